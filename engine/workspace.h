// The activations of one step: one block of device memory, sized once for the largest batch.
#pragma once

#include <cstdint>
#include <memory>

#include "common/status.h"
#include "common/tensor.h"
#include "engine/model/model_config.h"
#include "engine/ops.h"
#include "engine/stage.h"

namespace neurogrid {

/// Views for the rows of one step. `dtype` is the stage's activation dtype.
struct Activations {
  Tensor hidden;     // [rows, hidden]    dtype: the residual stream
  Tensor normed;     // [rows, hidden]    dtype
  Tensor qkv;        // [rows, (query_heads + 2 * kv_heads) * head_dim]  dtype
  Tensor attended;   // [rows, query_heads * head_dim]  dtype
  Tensor bcu;        // [rows, 3 * hidden]  dtype; no columns without short convolutions
  Tensor convolved;  // [rows, hidden]      dtype; the same
  Tensor gated;      // [rows, ffn]       dtype
  Tensor branch;     // [rows, hidden]    dtype: a block's output before its post norm
};

/// Views for the sampled rows of one step, on the last stage.
struct Outputs {
  Tensor rows;    // [samples, hidden]  dtype
  Tensor logits;  // [samples, vocab]   f32
};

class Workspace {
 public:
  /// ResourceExhausted without memory.
  static absl::StatusOr<Workspace> Allocate(Ops& ops, const ModelConfig& config,
                                            const StageOptions& options);

  Activations For(int rows) const;
  Outputs OutputsFor(int samples) const;

 private:
  std::unique_ptr<DeviceBuffer> arena_;
  Activations whole_;
  Outputs outputs_;
};

/// The dtype of activations and of the KV cache in a precision.
inline DType ActivationDType(Precision precision) {
  return precision == Precision::kF32 ? DType::kF32 : DType::kBF16;
}

inline bool IsFirstStage(const LayerRange& layers) { return layers.first == 0; }
inline bool IsLastStage(const ModelConfig& config, const LayerRange& layers) {
  return layers.last == config.layers_count();
}

}  // namespace neurogrid
