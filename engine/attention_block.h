// The attention block kind: q, k, v in one matrix, paged keys and values, output projection.
#pragma once

#include <memory>

#include "common/status.h"
#include "engine/batch.h"
#include "engine/model/architecture.h"
#include "engine/ops.h"
#include "engine/weight_loader.h"
#include "engine/workspace.h"

namespace neurogrid {

class AttentionBlock {
 public:
  /// `rotation` and the memory of `kv` outlive the block.
  static absl::StatusOr<AttentionBlock> Load(WeightLoader& loader, const ModelConfig& config,
                                             const TensorNames& names, int layer,
                                             const Rotation* rotation, const KvLayerView& kv);

  /// Of a.normed: heads joined, [rows, query_heads * head_dim], before the output projection.
  ConstTensor Forward(Ops& ops, const Batch& batch, const Activations& a) const;

  const Matrix& output() const { return *output_; }

 private:
  std::unique_ptr<Matrix> qkv_;  // rows of q, then k, then v
  std::unique_ptr<Matrix> output_;
  DeviceVector q_norm_;
  DeviceVector k_norm_;
  const Rotation* rotation_ = nullptr;
  KvLayerView kv_;
  AttentionSpec spec_;
  HeadNorms norms_;
};

}  // namespace neurogrid
