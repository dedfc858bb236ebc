// More rows: a block goes through all splits of its part of a tile.
#include "kernels/attention.cuh"
#include "kernels/attention_ways.h"
#include "kernels/launch.h"

namespace neurogrid::kernels {
namespace {

constexpr int kTiles = 2;
constexpr int kRows = 16 * kTiles;

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
  AttentionPlace place(PartOfTile(whole, parts - 1 - unit % parts, kRows / group, o.window),
                       static_cast<int>(blockIdx.x) % o.kv.kv_heads, o);
  if (place.tile.queries <= 0) return;
  const Split block(o, SharedMemory<uint8_t>());
  SplitTotals<Split> totals;
  place.SetSplit(place.tile.first_split, o);
  block.CopyOld(place);
  block.CopyNew(place);
  for (int split = 1; split <= place.tile.splits; ++split) {
    AttentionPlace following = place;
    following.SetSplit(place.split + 1, o);
    typename Split::Outputs outputs;
    block.Attend(place, outputs, [&](int chunk) {
      if (split < place.tile.splits) {
        block.CopyChunk(chunk, following, following.steps() * 16);
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
