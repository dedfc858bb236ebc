// Puts a Checkpoint together and checks it, whatever the weights come from.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/model/architecture.h"
#include "engine/model/checkpoint.h"

namespace neurogrid {

class CheckpointBuilder {
 public:
  explicit CheckpointBuilder(const std::string& path);

  /// Sources; each fills the config and the tensors.
  absl::Status AddFolder();
  absl::Status AddGguf();
  /// Weights that are views into `buffers`.
  absl::Status AddSynthetic(ModelConfig config, WeightStore weights, std::vector<Buffer> buffers);

  /// Checks every tensor against the config, decides about the tied head, and computes digest and
  /// description.
  absl::StatusOr<std::unique_ptr<Checkpoint>> Finish();

 private:
  absl::Status ResolveTiedHead();
  absl::Status CheckTensors();
  void Describe();
  void ComputeDigest();

  std::unique_ptr<Checkpoint> checkpoint_;
  const Architecture* row_ = nullptr;
};

}  // namespace neurogrid
