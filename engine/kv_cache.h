// Keys and values of a stage's layers in pages of 16 tokens. Page ids come from the coordinator.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "common/status.h"
#include "engine/batch.h"
#include "engine/model/layer_range.h"
#include "engine/model/model_config.h"
#include "engine/model/precision.h"
#include "engine/ops.h"

namespace neurogrid {

/// Pages x attention layers, in two pools: layers with a window have page ids of their own, because
/// their pages are given back while the sequence goes on. Knows bytes, not requests: whose a page
/// is, is the coordinator's affair.
class KvCache {
 public:
  /// limits.pages of the layers that see everything and limits.window_pages of those with a window.
  /// Layers without keys (short convolutions) take no memory. ResourceExhausted without memory.
  static absl::StatusOr<KvCache> Allocate(Ops& ops, const ModelConfig& config, LayerRange layers,
                                          Precision precision, const BatchLimits& limits);

  /// Bytes of one page id over all layers that see everything, and over all with a window.
  int64_t page_bytes() const { return full_.page_bytes; }
  int64_t window_page_bytes() const { return window_.page_bytes; }
  /// `layer` is a layer of the model within the range, and has attention.
  KvLayerView layer(int layer) const;

 private:
  struct Pool {
    std::unique_ptr<DeviceBuffer> memory;
    int pages = 0;
    int64_t page_bytes = 0;  // over the pool's layers
  };

  const Pool& PoolOf(const KvLayerView& view) const { return view.windowed ? window_ : full_; }

  Pool full_;
  Pool window_;
  LayerRange layers_;
  std::vector<KvLayerView> views_;  // [layers]; without data for those that do not attend
};

}  // namespace neurogrid
