// The short convolution block kind of LFM2 (models.md 2.3): one projection to B, C and U, a
// convolution over the last tokens with its state in slots, output projection.
#pragma once

#include <memory>

#include "common/status.h"
#include "engine/batch.h"
#include "engine/model/architecture.h"
#include "engine/ops.h"
#include "engine/weight_loader.h"
#include "engine/workspace.h"

namespace neurogrid {

class ShortConvolutionBlock {
 public:
  /// The memory of `state` outlives the block.
  static absl::StatusOr<ShortConvolutionBlock> Load(WeightLoader& loader, const ModelConfig& config,
                                                    const TensorNames& names, int layer,
                                                    const StateLayerView& state);

  /// Of a.normed: the gated convolution, [rows, hidden], before the output projection.
  ConstTensor Forward(Ops& ops, const Batch& batch, const Activations& a) const;

  const Matrix& output() const { return *output_; }

 private:
  std::unique_ptr<Matrix> input_;  // rows of B, then C, then U
  DeviceVector taps_;              // [taps, hidden], the current token's last
  DeviceVector bias_;
  std::unique_ptr<Matrix> output_;
  StateLayerView state_;
};

}  // namespace neurogrid
