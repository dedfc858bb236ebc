// More rows: a block goes through all splits of its part of a tile.
#include "kernels/attention.cuh"
#include "kernels/attention_ways.h"
#include "kernels/launch.h"

namespace neurogrid::kernels {
namespace {

constexpr int kTiles = 2;
constexpr int kRows = 16 * kTiles;

/// Part `part` of a tile cut into parts of `queries_max`; without queries where it is shorter.
__device__ __forceinline__ AttentionTile PartOfTile(AttentionTile tile, int part, int queries_max,
                                                    int window) {
  const int skipped = part * queries_max;
  tile.first_row += skipped;
  tile.first_position += skipped;
  tile.queries -= skipped;
  if (tile.queries > queries_max) tile.queries = queries_max;
  const int position = tile.first_position;
  const int first_key = window > 0 && position >= window ? position - window + 1 : 0;
  tile.first_split = first_key / kSplitTokens;
  tile.splits = (position + tile.queries - 1) / kSplitTokens + 1 - tile.first_split;
  return tile;
}

template <int kDim>
struct Totals {
  using Split = SplitAttention<kDim, kTiles>;

  typename Split::Outputs outputs = {};
  SoftmaxPart parts[kTiles][2];

  __device__ __forceinline__ Totals() {
#pragma unroll
    for (int m = 0; m < kTiles; ++m) parts[m][0] = parts[m][1] = NoKeys();
  }
  __device__ __forceinline__ void Add(const Split& block, const typename Split::Outputs& next) {
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const MergeFactors factors = Merge(parts[m][half], block.PartOf(block.RowOf(m, 2 * half)));
#pragma unroll
        for (int chunk = 0; chunk < Split::kChunks; ++chunk) {
#pragma unroll
          for (int n = 0; n < Split::kOutputs; ++n) {
#pragma unroll
            for (int i = 2 * half; i < 2 * half + 2; ++i) {
              float& total = outputs[chunk][m][n][i];
              total = MergeOutput(total, next[chunk][m][n][i], factors);
            }
          }
        }
      }
    }
  }
  __device__ __forceinline__ void Store(const Split& block, const AttentionPlace& place) const {
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = block.RowOf(m, 2 * half);
        if (row >= place.rows()) continue;
#pragma unroll
        for (int chunk = 0; chunk < Split::kChunks; ++chunk) {
#pragma unroll
          for (int n = 0; n < Split::kOutputs; ++n) {
            const float(&total)[4] = outputs[chunk][m][n];
            StoreAttended(block.o, place, row, block.ColumnOf(chunk, n), total[2 * half],
                          total[2 * half + 1], parts[m][half].sum);
          }
        }
      }
    }
  }
};

/// Later tiles see more keys: they start first.
template <int kDim>
__global__ void __launch_bounds__(kAttentionThreads)
    AttendTilesKernel(Bf16Attention o, AttentionWorkView work, int parts) {
  using Split = SplitAttention<kDim, kTiles>;
  ReleaseSuccessor();
  WaitForPredecessor();
  const int tiles = work.live == nullptr ? work.more_tiles_count : work.live->more_tiles;
  const int group = o.query_heads / o.kv.kv_heads;
  const int unit = static_cast<int>(blockIdx.x) / o.kv.kv_heads;
  if (unit >= tiles * parts) return;
  const AttentionTile whole = work.more_tiles[tiles - 1 - unit / parts];
  AttentionPlace place{PartOfTile(whole, parts - 1 - unit % parts, kRows / group, o.window),
                       static_cast<int>(blockIdx.x) % o.kv.kv_heads,
                       group,
                       0,
                       0,
                       0,
                       0,
                       0};
  if (place.tile.queries <= 0) return;
  const Split block(o, SharedMemory<uint8_t>());
  Totals<kDim> totals;
  place.SetSplit(place.tile.first_split, o);
  block.CopyOld(place);
  block.CopyNew(place);
  for (int split = 1; split <= place.tile.splits; ++split) {
    AttentionPlace following = place;
    following.SetSplit(place.split + 1, o);
    typename Split::Outputs outputs;
    block.Attend(place, outputs, [&](int chunk) {
      if (split < place.tile.splits) {
        block.CopyChunk(chunk, following, 0, following.steps() * 16);
      }
    });
    totals.Add(block, outputs);
    place = following;
  }
  totals.Store(block, place);
}

}  // namespace

cudaError_t AttendTiles(const Bf16Attention& o, const AttentionWorkView& work,
                        cudaStream_t stream) {
  if (work.more_tiles_count == 0) return cudaSuccess;
  const int group = o.query_heads / o.kv.kv_heads;
  const int queries_max = kRows / group;
  const int parts = (kMoreTileRows / group + queries_max - 1) / queries_max;
  return ForHeadDim(o.kv.head_dim, [&](auto dim) {
    constexpr int kDim = decltype(dim)::value;
    return Launch({"Attention, more rows",
                   dim3(static_cast<unsigned>(work.more_tiles_count * parts * o.kv.kv_heads)),
                   dim3(kAttentionThreads), SplitAttention<kDim, kTiles>::kBytes, stream},
                  AttendTilesKernel<kDim>, o, work, parts);
  });
}

}  // namespace neurogrid::kernels
