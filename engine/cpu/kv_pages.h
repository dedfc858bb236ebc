// Keys and values of one layer in pages of 16 tokens, in the order attention reads them.
#pragma once

#include <cstdint>
#include <vector>

#include "common/dtype.h"
#include "common/tensor.h"
#include "engine/batch.h"
#include "engine/cpu/cpu_context.h"
#include "engine/rope.h"

namespace neurogrid {

/// A page holds for each kv head a tile of keys and a tile of values:
///
///   bf16  keys [head_dim / 2][16 tokens][2]   values [8 token pairs][head_dim][2]
///   f32   keys [head_dim][16 tokens]          values [16 tokens][head_dim]
///
/// so scores come out one token a lane, and one dot instruction adds two tokens' values.
struct KvLayout {
  int kv_heads = 0;
  int head_dim = 0;            // even, at most 256
  DType dtype = DType::kBF16;  // or kF32

  int64_t tile_bytes() const { return BytesOf(dtype, int64_t{kPageTokens} * head_dim); }
  /// 2 * 16 * kv_heads * head_dim elements: no padding.
  int64_t page_bytes() const { return 2 * kv_heads * tile_bytes(); }
};

/// One layer's pages: the keys of all, [pages][kv_heads] tiles, then the values of all. A sequence
/// in neighbouring pages is so two streams, which memory gives up to twice as fast as pieces of a
/// page. data is 64-byte aligned where head_dim allows (any head_dim works). Batch::window_pages
/// names the pages when the layer has a window.
struct KvLayer {
  KvLayout layout;
  uint8_t* data = nullptr;
  int64_t pages = 0;
  bool windowed = false;

  const std::vector<int32_t>& table(const Batch& batch) const {
    return windowed ? batch.window_pages : batch.pages;
  }
  /// From a page's tiles of one kind to the next page's.
  int64_t stride_bytes() const { return layout.kv_heads * layout.tile_bytes(); }
  uint8_t* keys(int64_t page, int kv_head) const {
    return data + page * stride_bytes() + kv_head * layout.tile_bytes();
  }
  uint8_t* values(int64_t page, int kv_head) const {
    return keys(page, kv_head) + pages * stride_bytes();
  }
};

/// Rotates the queries of each row in place (rope.h), and writes its rotated keys and its values to
/// the page of its position.
///
///   qkv  [rows, (query_heads + 2 * kv_heads) * head_dim]  q, k, v in this order; dtype of the
///   layout
///
/// The keys inside qkv are unspecified afterwards.
void RopeAndWriteKv(const CpuContext& cpu, Tensor qkv, int query_heads, const RopeTable& rope,
                    const KvLayer& layer, const Batch& batch);

}  // namespace neurogrid
