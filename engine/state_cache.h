// Recurrent state of a stage's short convolutions in slots. Slot ids come from the coordinator.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/status.h"
#include "engine/model/layer_range.h"
#include "engine/model/model_config.h"
#include "engine/model/precision.h"
#include "engine/ops.h"

namespace neurogrid {

/// Slots x convolution layers. Knows bytes, not requests, as KvCache.
class StateCache {
 public:
  /// Layers without recurrent state take no memory. ResourceExhausted without memory.
  static absl::StatusOr<StateCache> Allocate(Ops& ops, const ModelConfig& config, LayerRange layers,
                                             Precision precision, int slots);

  /// Bytes of one slot id over all layers.
  int64_t slot_bytes() const { return slot_bytes_; }
  /// `layer` is a layer of the model within the range, and is a short convolution.
  StateLayerView layer(int layer) const;

 private:
  std::unique_ptr<DeviceBuffer> memory_;
  LayerRange layers_;
  std::vector<int> place_of_layer_;  // [layers]  place among the convolutions; -1: none
  int64_t slot_bytes_ = 0;
  StateLayerView first_;  // the view of the first convolution
};

}  // namespace neurogrid
