// Keys and values of a stage's layers in pages of 16 tokens. Page ids come from the coordinator.
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

/// Pages x attention layers. Knows bytes, not requests: whose a page is, is the coordinator's
/// affair.
class KvCache {
 public:
  /// Layers without keys (short convolutions) take no memory. ResourceExhausted without memory.
  static absl::StatusOr<KvCache> Allocate(Ops& ops, const ModelConfig& config, LayerRange layers,
                                          Precision precision, int pages);

  /// Bytes of one page id over all layers.
  int64_t page_bytes() const { return page_bytes_; }
  /// `layer` is a layer of the model within the range, and has attention.
  KvLayerView layer(int layer) const;

 private:
  std::unique_ptr<DeviceBuffer> memory_;
  LayerRange layers_;
  std::vector<int> slot_of_layer_;  // [layers]  place among the attention layers; -1: none
  int64_t page_bytes_ = 0;
  KvLayerView first_;  // the view of the first attention layer
};

}  // namespace neurogrid
