// Layer-major: the pages of one layer lie together, so that a sequence given neighbouring pages is
// read as one stream.
#include "engine/kv_cache.h"

#include "engine/model/stage_memory.h"
#include "engine/workspace.h"

namespace neurogrid {

absl::StatusOr<KvCache> KvCache::Allocate(Ops& ops, const ModelConfig& config, LayerRange layers,
                                          Precision precision, const BatchLimits& limits) {
  KvCache cache;
  cache.layers_ = layers;
  const ModelMemory memory = MemoryOf(config, precision);
  cache.full_.pages = limits.pages;
  cache.full_.page_bytes = PageBytes(memory, layers, kPageTokens);
  cache.window_.pages = limits.window_pages;
  cache.window_.page_bytes = WindowPageBytes(memory, layers, kPageTokens);
  for (Pool* pool : {&cache.full_, &cache.window_}) {
    NG_ASSIGN_OR_RETURN(pool->memory, ops.Allocate(pool->pages * pool->page_bytes));
  }
  int64_t full_offset = 0;
  int64_t window_offset = 0;
  for (int number = layers.first; number < layers.last; ++number) {
    const LayerConfig& layer = config.layers[static_cast<size_t>(number)];
    KvLayerView view;
    if (layer.kind == BlockKind::kAttention) {
      view = {
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .dtype = ActivationDType(precision),
          .pages = 0,
          .page_bytes = memory.layers[static_cast<size_t>(number)].kv_bytes_per_token * kPageTokens,
          .data = nullptr,
          .windowed = layer.window > 0};
      const Pool& pool = cache.PoolOf(view);
      int64_t& offset = view.windowed ? window_offset : full_offset;
      view.pages = pool.pages;
      view.data = static_cast<uint8_t*>(pool.memory->data()) + offset;
      offset += view.pages * view.page_bytes;
    }
    cache.views_.push_back(view);
  }
  return cache;
}

KvLayerView KvCache::layer(int layer) const {
  NG_CHECK(layers_.contains(layer));
  const KvLayerView& view = views_[static_cast<size_t>(layer - layers_.first)];
  NG_CHECK(view.kv_heads > 0);
  return view;
}

}  // namespace neurogrid
