// From tensors of a checkpoint to weights on the device: widened, stacked, rounded and packed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/status.h"
#include "engine/model/architecture.h"
#include "engine/model/model_config.h"
#include "engine/model/weight_store.h"
#include "engine/ops.h"
#include "engine/stage.h"

namespace neurogrid {

/// A vector on the device, f32: a norm's weight, a convolution's taps. Null when the model has none
/// there.
struct DeviceVector {
  std::unique_ptr<DeviceBuffer> memory;
  ConstTensor view;  // [size]; taps: [taps, channels]

  explicit operator bool() const { return memory != nullptr; }
};

/// The norm of that weight as the model does its norms; of no weight none.
inline Norm NormOf(const ModelConfig& config, const DeviceVector& weight) {
  return {.weight = weight.view,
          .epsilon = config.norm_epsilon,
          .rounds_before_weight = config.norm_rounds_before_weight};
}

/// "model.layers.3.self_attn.q_proj" of LayerPart(3, "self_attn.q_proj"); "" of a family without
/// it.
std::string LayerPart(int layer, absl::string_view part);

/// Some rows of a stacked matrix: tensor NAME.weight [outputs, inputs], and NAME.bias [outputs]
/// where the file has it. In all names here the suffix is left out.
struct LinearPart {
  std::string name;
  int64_t outputs = 0;
};

/// Reads what a stage needs, once, and counts it. Every error names file, tensor, found and
/// expected.
class WeightLoader {
 public:
  WeightLoader(const ModelConfig& config, const TensorNames& names, const WeightStore& weights,
               Ops& ops, const StageOptions& options, const Stage::Progress& progress);

  bool HasWeight(const std::string& name) const { return weights_.Has(name + ".weight"); }

  /// NAME.weight [size] + `offset` (1 for (1 + w) norms).
  absl::StatusOr<DeviceVector> Vector(const std::string& name, int64_t size, float offset);
  /// A null vector when the family or the file has no such tensor.
  absl::StatusOr<DeviceVector> VectorIfPresent(const std::string& name, int64_t size, float offset);

  /// The taps NAME.weight [channels, 1, taps] of a depthwise convolution, as [taps, channels].
  absl::StatusOr<DeviceVector> Taps(const std::string& name, int64_t channels, int64_t taps);
  /// NAME.bias [size], or a null vector.
  absl::StatusOr<DeviceVector> BiasIfPresent(const std::string& name, int64_t size);

  /// The parts' rows, one below the other, in the stage's precision.
  absl::StatusOr<std::unique_ptr<Matrix>> Linear(const std::vector<LinearPart>& parts,
                                                 int64_t inputs);
  absl::StatusOr<std::unique_ptr<Matrix>> Gated(const std::string& gate, const std::string& up,
                                                int64_t outputs, int64_t inputs);
  /// An embedding: not quantised beyond what the file did, since each of its rows is an input too.
  absl::StatusOr<std::unique_ptr<Matrix>> Table(const std::string& name, int64_t rows,
                                                int64_t columns);

  /// Bytes on the device so far.
  int64_t device_bytes() const { return device_bytes_; }

 private:
  struct Part {
    WeightStore::Entry weight;
    int64_t first = 0;  // row of the stack
    int64_t outputs = 0;
  };
  absl::StatusOr<DeviceVector> Uploaded(const std::vector<float>& values, const Shape& shape,
                                        int64_t file_bytes);
  absl::StatusOr<Part> Find(const LinearPart& part, int64_t first, int64_t inputs);
  bool StaysStored(const Part& part) const;
  MatrixFormat StoredFormat() const;
  absl::StatusOr<std::vector<float>> Bias(const std::vector<LinearPart>& parts);
  std::unique_ptr<Matrix> Count(std::unique_ptr<Matrix> matrix, int64_t file_bytes);
  void Advance(int64_t file_bytes);

  const WeightStore& weights_;
  Ops& ops_;
  Precision precision_;
  const Stage::Progress& progress_;
  int64_t file_bytes_total_ = 0;
  int64_t file_bytes_done_ = 0;
  int64_t device_bytes_ = 0;
};

}  // namespace neurogrid
