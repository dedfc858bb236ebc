// An opened model: configuration and weights, from a safetensors directory or a GGUF file.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "common/buffer.h"
#include "common/mapped_file.h"
#include "engine/model/gguf.h"
#include "engine/model/model_config.h"
#include "engine/model/weight_store.h"

namespace neurogrid {

class Checkpoint {
 public:
  /// `path`: a directory with config.json and safetensors, or a .gguf file. Everything that can be
  /// checked without reading weights is checked here: structure, names, shapes, dtypes.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& path);

  const std::string& path() const { return path_; }
  const ModelConfig& config() const { return config_; }
  const WeightStore& weights() const { return weights_; }
  const Gguf* gguf() const { return gguf_.get(); }  // null for a directory
  /// SHA-256 in hex over config numbers, every tensor's name, dtype, shape and place in its file,
  /// and a few bytes from the middle of each: both ends of the wire compare it, so that two
  /// fine-tunes of one model are told apart without reading all their weights.
  const std::string& digest() const { return digest_; }
  /// Human words for start-up: "mixed Q4_1/Q6_K", "BF16", ...
  const std::string& weights_description() const { return weights_description_; }
  /// Things worth telling the operator, such as an ignored tensor outside the layers.
  const std::vector<std::string>& warnings() const { return warnings_; }

 private:
  Checkpoint() = default;
  friend class CheckpointBuilder;

  std::string path_;
  ModelConfig config_;
  WeightStore weights_;
  std::unique_ptr<Gguf> gguf_;
  std::vector<MappedFile> shards_;
  std::vector<Buffer> buffers_;  // of synthetic weights
  std::string digest_;
  std::string weights_description_;
  std::vector<std::string> warnings_;
};

}  // namespace neurogrid
