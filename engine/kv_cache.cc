// Layer-major: the pages of one layer lie together, so that a sequence given neighbouring pages is
// read as one stream.
#include "engine/kv_cache.h"

#include "engine/model/stage_memory.h"
#include "engine/workspace.h"

namespace neurogrid {

absl::StatusOr<KvCache> KvCache::Allocate(Ops& ops, const ModelConfig& config, LayerRange layers,
                                          Precision precision, int pages) {
  KvCache cache;
  cache.layers_ = layers;
  int attention_layers = 0;
  for (int layer = layers.first; layer < layers.last; ++layer) {
    const bool attends = config.layers[static_cast<size_t>(layer)].kind == BlockKind::kAttention;
    cache.slot_of_layer_.push_back(attends ? attention_layers++ : -1);
  }
  cache.first_ = {.kv_heads = config.kv_heads,
                  .head_dim = config.head_dim,
                  .dtype = ActivationDType(precision),
                  .pages = pages,
                  .page_bytes = 0,
                  .data = nullptr};
  cache.page_bytes_ = PageBytes(MemoryOf(config, precision), layers, kPageTokens);
  if (attention_layers > 0) cache.first_.page_bytes = cache.page_bytes_ / attention_layers;
  NG_ASSIGN_OR_RETURN(cache.memory_, ops.Allocate(pages * cache.page_bytes_));
  return cache;
}

KvLayerView KvCache::layer(int layer) const {
  NG_CHECK(layers_.contains(layer));
  const int slot = slot_of_layer_[static_cast<size_t>(layer - layers_.first)];
  NG_CHECK(slot >= 0);
  KvLayerView view = first_;
  view.data = static_cast<uint8_t*>(memory_->data()) + slot * view.pages * view.page_bytes;
  return view;
}

}  // namespace neurogrid
