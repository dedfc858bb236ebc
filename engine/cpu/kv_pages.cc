#include "engine/cpu/kv_pages.h"

#include <algorithm>
#include <cstring>

#include "common/check.h"
#include "engine/cpu/kernels.h"

namespace neurogrid {
namespace {

constexpr int64_t kRowsPerChunk = 8;

/// Scatters one head's row of keys and values to lane `token` of its tiles. A unit is what the
/// tiles keep together: for keys 4 bytes (a pair of bf16 or one f32), for values one element.
template <typename Element>
void WriteTiles(int dim, uint8_t* key_tile, uint8_t* value_tile, int token, const Element* k,
                const Element* v) {
  constexpr int kUnit = 4 / sizeof(Element);
  for (int i = 0; i < dim; i += kUnit) {
    std::memcpy(key_tile + (i / kUnit * kPageTokens + token) * 4, k + i, 4);
  }
  Element* values =
      reinterpret_cast<Element*>(value_tile) + token / kUnit * dim * kUnit + token % kUnit;
  for (int i = 0; i < dim; ++i) values[i * kUnit] = v[i];
}

template <typename Element>
void WriteRow(const Kernels& kernels, Element* row, int query_heads, const RopeTable& rope,
              const KvLayer& layer, int position, int64_t page) {
  const int dim = layer.layout.head_dim;
  const int kv_heads = layer.layout.kv_heads;
  const float* cosines = rope.cosines(position);
  const float* sines = rope.sines(position);
  for (int head = 0; head < query_heads + kv_heads; ++head) {
    if constexpr (sizeof(Element) == 2) {
      kernels.rotate_bf16(row + head * dim, cosines, sines, dim / 2);
    } else {
      kernels.rotate_f32(row + head * dim, cosines, sines, dim / 2);
    }
  }
  const Element* k = row + query_heads * dim;
  const Element* v = k + kv_heads * dim;
  for (int head = 0; head < kv_heads; ++head) {
    WriteTiles(dim, layer.keys(page, head), layer.values(page, head), position % kPageTokens,
               k + head * dim, v + head * dim);
  }
}

}  // namespace

void RopeAndWriteKv(const CpuContext& cpu, Tensor qkv, int query_heads, const RopeTable& rope,
                    const KvLayer& layer, const Batch& batch) {
  const KvLayout& layout = layer.layout;
  const int64_t columns = int64_t{query_heads + 2 * layout.kv_heads} * layout.head_dim;
  NG_CHECK(layout.head_dim % 2 == 0 && rope.head_dim() == layout.head_dim);
  NG_CHECK(layout.dtype == DType::kBF16 || layout.dtype == DType::kF32);
  NG_CHECK(qkv.dtype == layout.dtype);
  NG_CHECK(qkv.shape == Shape({batch.rows(), columns}));
  const Kernels& kernels = KernelsFor(cpu.instructions);
  const std::vector<int32_t>& pages = layer.table(batch);
  const int64_t rows = batch.rows();
  cpu.pool->ParallelFor((rows + kRowsPerChunk - 1) / kRowsPerChunk, [&](int64_t chunk, int) {
    const int64_t end = std::min(rows, (chunk + 1) * kRowsPerChunk);
    for (int64_t row = chunk * kRowsPerChunk; row < end; ++row) {
      const auto next = std::upper_bound(batch.sequence_offsets.begin(),
                                         batch.sequence_offsets.end(), static_cast<int32_t>(row));
      const int64_t sequence = next - batch.sequence_offsets.begin() - 1;
      const int position = batch.positions[static_cast<size_t>(row)];
      NG_CHECK(position < rope.positions_max());
      const int64_t slot =
          batch.page_offsets[static_cast<size_t>(sequence)] + position / kPageTokens;
      const int64_t page = pages[static_cast<size_t>(slot)];
      NG_CHECK(page >= 0 && page < layer.pages);
      if (layout.dtype == DType::kBF16) {
        WriteRow(kernels, qkv.as<uint16_t>() + row * columns, query_heads, rope, layer, position,
                 page);
      } else {
        WriteRow(kernels, qkv.as<float>() + row * columns, query_heads, rope, layer, position,
                 page);
      }
    }
  });
}

}  // namespace neurogrid
