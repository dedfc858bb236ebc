#include "engine/state_cache.h"

#include "engine/model/stage_memory.h"
#include "engine/workspace.h"

namespace neurogrid {

absl::StatusOr<StateCache> StateCache::Allocate(Ops& ops, const ModelConfig& config,
                                                LayerRange layers, Precision precision, int slots) {
  StateCache cache;
  cache.layers_ = layers;
  int convolutions = 0;
  for (int layer = layers.first; layer < layers.last; ++layer) {
    const BlockKind kind = config.layers[static_cast<size_t>(layer)].kind;
    cache.place_of_layer_.push_back(kind == BlockKind::kShortConvolution ? convolutions++ : -1);
  }
  cache.slot_bytes_ = StateBytes(MemoryOf(config, precision), layers);
  if (convolutions == 0) return cache;
  cache.first_ = {.rows = config.conv_taps - 1,
                  .columns = config.hidden_size,
                  .dtype = ActivationDType(precision),
                  .slots = slots,
                  .slot_bytes = cache.slot_bytes_ / convolutions,
                  .data = nullptr};
  NG_ASSIGN_OR_RETURN(cache.memory_, ops.Allocate(slots * cache.slot_bytes_));
  return cache;
}

StateLayerView StateCache::layer(int layer) const {
  NG_CHECK(layers_.contains(layer));
  const int place = place_of_layer_[static_cast<size_t>(layer - layers_.first)];
  NG_CHECK(place >= 0);
  StateLayerView view = first_;
  view.data = static_cast<uint8_t*>(memory_->data()) + place * view.slots * view.slot_bytes;
  return view;
}

}  // namespace neurogrid
