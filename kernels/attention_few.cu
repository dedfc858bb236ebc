// Few rows: one kernel attends the splits of all tiles, a second merges the states of cut heads.
#include "kernels/attention.cuh"
#include "kernels/attention_rotated.cuh"
#include "kernels/attention_ways.h"
#include "kernels/device_limits.h"
#include "kernels/launch.h"

namespace neurogrid::kernels {
namespace {

/// A state of one head: head_dim outputs, maximum, sum, and two more for the alignment.
__device__ __forceinline__ float* StateOf(const Bf16Attention& o, int64_t state, int head) {
  return o.states + (state * o.query_heads + head) * (o.kv.head_dim + kStatePadding);
}

__device__ __forceinline__ SoftmaxPart PartOfState(const Bf16Attention& o, int64_t state,
                                                   int head) {
  const float2 part = *reinterpret_cast<const float2*>(StateOf(o, state, head) + o.kv.head_dim);
  return {part.x, part.y};
}

/// The units of a batch, shared out to runs as evenly as whole units can be. A run may begin or end
/// up to an eighth of its length elsewhere, if it then cuts no head.
struct Units {
  int count;
  int runs;  // of at least one unit

  __device__ __forceinline__ Units(const AttentionWorkView& work, int kv_heads, int blocks)
      : count((work.live == nullptr ? work.items_count : work.live->items) * kv_heads),
        runs(count < blocks ? count : blocks) {}
  __device__ __forceinline__ int slack() const { return count / runs / 8; }
  /// Where a run begins before it is moved.
  __device__ __forceinline__ int Even(int run) const {
    return run < runs ? static_cast<int>(int64_t{run} * count / runs) : count;
  }

  /// Where a block's run begins.
  __device__ __forceinline__ int BeginOf(int block, const AttentionWorkView& work,
                                         int kv_heads) const {
    const int unit = Even(block);
    if (unit >= count) return count;
    const AttentionTile& tile = work.few_tiles[work.items[unit / kv_heads].tile];
    const int behind = (unit - tile.first_item * kv_heads) % tile.splits;  // the head's first
    if (behind <= slack()) return unit - behind;
    return tile.splits - behind <= slack() ? unit + tile.splits - behind : unit;
  }
  /// The states of a row's head that are there: one of the splits in the run of the first, then one
  /// of each. A single one: the head was not cut, and its result is where it belongs.
  __device__ __forceinline__ AttentionMerge StatesOf(AttentionMerge merge, int kv_heads,
                                                     int kv_head) const {
    const int head = merge.first_item * kv_heads + kv_head * merge.splits;
    const int next = static_cast<int>(int64_t{head} * runs / count) + 1;  // run
    int of_first_run = Even(next) - head;
    if (of_first_run <= slack()) of_first_run = Even(next + 1) - head;
    if (of_first_run >= merge.splits - slack()) of_first_run = merge.splits;
    merge.first_state += of_first_run - 1;
    merge.splits -= of_first_run - 1;
    return merge;
  }
};

/// The units of a block.
struct Share {
  int first;
  int count;
  int stride = 1;  // from one of its heads to the next

  __device__ __forceinline__ Share(const AttentionWorkView& work, int kv_heads) {
    const auto blocks = static_cast<int>(gridDim.x);
    const auto block = static_cast<int>(blockIdx.x);
    if (!work.whole_heads) {
      const Units units(work, kv_heads, blocks);
      first = units.BeginOf(block, work, kv_heads);
      count = units.BeginOf(block + 1, work, kv_heads) - first;
      return;
    }
    const int heads =
        (work.live == nullptr ? work.few_tiles_count : work.live->few_tiles) * kv_heads;
    first = 0;
    count = 0;
    stride = blocks;
    for (int head = block; head < heads; head += stride) {
      const AttentionTile& tile = work.few_tiles[head / kv_heads];
      if (head == block) first = tile.first_item * kv_heads + head % kv_heads * tile.splits;
      count += tile.splits;
    }
  }
};

/// A block's way from unit to unit.
struct Walk {
  int tile;
  AttentionPlace place;

  __device__ __forceinline__ Walk(const Bf16Attention& o, const AttentionWorkView& work, int unit)
      : tile(work.items[unit / o.kv.kv_heads].tile), place(work.few_tiles[tile], 0, o) {
    const int of_tile = unit - place.tile.first_item * o.kv.kv_heads;
    place.kv_head = of_tile / place.tile.splits;
    place.SetSplit(place.tile.first_split + of_tile % place.tile.splits, o);
  }
  __device__ __forceinline__ bool AtFirstSplit() const {
    return place.split == place.tile.first_split;
  }
  __device__ __forceinline__ bool AtLastSplit() const {
    return place.split == place.tile.first_split + place.tile.splits - 1;
  }
  /// `stride`: from one head to the next.
  __device__ __forceinline__ void Step(const Bf16Attention& o, const AttentionWorkView& work,
                                       int stride) {
    if (!AtLastSplit()) return place.SetSplit(place.split + 1, o);
    place.kv_head += stride;
    if (place.kv_head >= o.kv.kv_heads) {
      tile += place.kv_head / o.kv.kv_heads;
      place.kv_head %= o.kv.kv_heads;
      place.tile = work.few_tiles[tile];
    }
    place.SetSplit(place.tile.first_split, o);
  }
};

/// The state of the splits of one head that end with the place's.
template <typename Split>
__device__ __forceinline__ void StoreState(const Split& block, const AttentionPlace& place,
                                           const SplitTotals<Split>& totals) {
  const Bf16Attention& o = block.o;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = block.RowOf(0, 2 * half);
    if (row >= place.rows()) continue;
    float* state =
        StateOf(o,
                int64_t{place.tile.first_state} + place.QueryInTile(row) * place.tile.splits +
                    place.split - place.tile.first_split,
                place.HeadOf(row));
#pragma unroll
    for (int chunk = 0; chunk < Split::kChunks; ++chunk) {
#pragma unroll
      for (int n = 0; n < Split::kOutputs; ++n) {
        const int column = block.ColumnOf(chunk, n);
        if (column >= o.kv.head_dim) continue;
        const float(&output)[4] = totals.outputs[chunk][0][n];
        *reinterpret_cast<float2*>(state + column) =
            make_float2(output[2 * half], output[2 * half + 1]);
        if (column == 0) {
          const SoftmaxPart& part = totals.parts[0][half];
          *reinterpret_cast<float2*>(state + o.kv.head_dim) = make_float2(part.maximum, part.sum);
        }
      }
    }
  }
}

template <typename Split>
__global__ void __launch_bounds__(kAttentionThreads)
    AttendItemsKernel(Bf16Attention o, AttentionWorkView work) {
  ReleaseSuccessor();
  const Share share(work, o.kv.kv_heads);
  if (share.count <= 0) return WaitForPredecessor();
  const Split block(o, SharedMemory<uint8_t>());
  Walk walk(o, work, share.first);
  block.CopyOld(walk.place);
  WaitForPredecessor();
  block.CopyNew(walk.place);
  SplitTotals<Split> totals;
  bool whole = false;  // the totals hold a head from its first split on
  for (int left = share.count - 1;; --left) {
    const bool more = left > 0;
    Walk following = walk;
    if (more) following.Step(o, work, share.stride);
    typename Split::Outputs outputs;
    block.Attend(walk.place, outputs, [&](int chunk) {
      if (!more) return;
      if (chunk == 0 && following.AtFirstSplit()) block.CopyQueries(following.place);
      block.CopyChunk(chunk, following.place, following.place.steps() * 16);
    });
    whole = whole || walk.AtFirstSplit();
    totals.Add(block, outputs);
    if (whole && walk.AtLastSplit()) {
      totals.Store(block, walk.place);
    } else if (!whole || !more) {
      StoreState(block, walk.place, totals);
    }
    if (!more) return;
    if (!whole || walk.AtLastSplit()) {
      totals = SplitTotals<Split>();
      whole = false;
    }
    walk = following;
  }
}

/// Behind the copies of what is old at `place`, the first that the block attends: the row, and what
/// is left of the first chunks. `has_row`: the row's own position is in them.
template <typename Split>
__device__ __forceinline__ void BeginRotated(const Split& block, const RotatedRow<Split>& row,
                                             const AttentionPlace& place, bool has_row) {
  row.ClearQueries();
  __syncthreads();
  WaitForPredecessor();
  row.Rotate();
#pragma unroll 1
  for (int i = 0; i < 2; ++i) {
    block.CopyPart(i, place, place.old() + (has_row ? 1 : 0), place.steps() * 16);
    CommitCopies();
  }
}

/// One unit a block, of rows that are not rotated yet.
template <typename Split>
__global__ void __launch_bounds__(kAttentionThreads)
    AttendRotatingKernel(Bf16Attention o, AttentionWorkView work) {
  ReleaseSuccessor();
  const Units units(work, o.kv.kv_heads, static_cast<int>(gridDim.x));
  const int unit = static_cast<int>(blockIdx.x);
  if (unit >= units.count) return WaitForPredecessor();
  const Split block(o, SharedMemory<uint8_t>());
  const Walk walk(o, work, unit);
  const AttentionPlace& place = walk.place;
  block.CopyOld(place);
  const RotatedRow<Split> row(block, place, /*staged=*/true);
  BeginRotated(block, row, place, row.writes());
  typename Split::Outputs outputs;
  block.Attend(place, outputs, [](int) {});
  SplitTotals<Split> totals;
  totals.Add(block, outputs);
  if (walk.AtFirstSplit() && walk.AtLastSplit()) {
    totals.Store(block, place);
  } else {
    StoreState(block, place, totals);
  }
}

/// One whole head a block, of rows that are not rotated yet.
template <typename Split>
__global__ void __launch_bounds__(kAttentionThreads, Split::kBlocks)
    AttendRotatingHeadsKernel(Bf16Attention o, AttentionWorkView work) {
  ReleaseSuccessor();
  const int kv_heads = o.kv.kv_heads;
  const int tiles = work.live == nullptr ? work.few_tiles_count : work.live->few_tiles;
  const auto head = static_cast<int>(blockIdx.x);
  if (head >= tiles * kv_heads) return WaitForPredecessor();
  const AttentionTile& tile = work.few_tiles[head / kv_heads];
  const Split block(o, SharedMemory<uint8_t>());
  Walk walk(o, work, tile.first_item * kv_heads + head % kv_heads * tile.splits);
  block.CopyOld(walk.place);
  AttentionPlace last = walk.place;
  last.SetSplit(tile.first_split + tile.splits - 1, o);
  const RotatedRow<Split> row(block, last, /*staged=*/walk.AtLastSplit());
  BeginRotated(block, row, walk.place, walk.AtLastSplit());
  SplitTotals<Split> totals;
  while (true) {
    const bool more = !walk.AtLastSplit();
    Walk following = walk;
    if (more) following.Step(o, work, /*stride=*/1);
    typename Split::Outputs outputs;
    block.Attend(walk.place, outputs, [&](int chunk) {
      if (more) block.CopyChunk(chunk, following.place, following.place.steps() * 16);
    });
    totals.Add(block, outputs);
    if (!more) return totals.Store(block, walk.place);
    walk = following;
  }
}

constexpr int kMergeThreads = 128;
constexpr int kMergeColumns = kHeadDimMax / kMergeThreads;
constexpr int kMergeFloats = 8192;

struct MergeShared {
  float outputs[kMergeFloats];
  float old_parts[kMergeThreads];  // factors of what was merged before a split
  float new_parts[kMergeThreads];  // of the split
  float sums[kMergeThreads];       // times the factor
  float maxima[kMergeThreads / kWarpThreads];
};

/// The largest of the warp's maxima up to each lane's.
__device__ __forceinline__ float LargestSoFar(float maximum) {
#pragma unroll
  for (unsigned distance = 1; distance < kWarpThreads; distance *= 2) {
    maximum = fmaxf(maximum, __shfl_up_sync(kFullMask, maximum, distance));
  }
  return maximum;
}

/// Merges a row's states of one head, a split a thread. What a split's merging needs of the others
/// are the maxima before it, which are exact: a scan finds them at once, and only sums go from
/// split to split.
__global__ void __launch_bounds__(kMergeThreads)
    MergeByBlocksKernel(Bf16Attention o, AttentionWorkView work, unsigned blocks) {
  ReleaseSuccessor();
  const int rows = work.live == nullptr ? work.merges_count : work.live->merges;
  if (static_cast<int>(blockIdx.x) >= rows) return WaitForPredecessor();
  MergeShared& shared = SharedObject<MergeShared>();
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / kWarpThreads;
  const int head = static_cast<int>(blockIdx.y);
  const int kv_heads = o.kv.kv_heads;
  const AttentionMerge merge =
      Units(work, kv_heads, static_cast<int>(blocks))
          .StatesOf(work.merges[blockIdx.x], kv_heads, head / (o.query_heads / kv_heads));
  if (merge.splits == 1) return WaitForPredecessor();
  const int dim = o.kv.head_dim;
  const int splits_max =
      kMergeFloats / dim < kMergeThreads ? kMergeFloats / dim : kMergeThreads;  // at a time
  float carried = MinusInfinity();
  float sum = 0;
  float outputs[kMergeColumns] = {};
  WaitForPredecessor();
  for (int first = 0; first < merge.splits; first += splits_max) {
    const int splits = merge.splits - first < splits_max ? merge.splits - first : splits_max;
    for (int i = thread; i < splits * (dim / 4); i += kMergeThreads) {
      const int split = i / (dim / 4);
      const int column = i % (dim / 4) * 4;
      CopyAsync16(shared.outputs + split * dim + column,
                  StateOf(o, merge.first_state + first + split, head) + column, true);
    }
    CommitCopies();
    const bool live = thread < splits;
    const SoftmaxPart part =
        live ? PartOfState(o, merge.first_state + first + thread, head) : NoKeys();
    float largest = LargestSoFar(part.maximum);
    if (thread % kWarpThreads == kWarpThreads - 1) shared.maxima[warp] = largest;
    __syncthreads();
    float before = carried;  // of all before this warp
    for (int i = 0; i < warp; ++i) before = fmaxf(before, shared.maxima[i]);
    largest = fmaxf(largest, before);
    const float neighbour = __shfl_up_sync(kFullMask, largest, 1);
    if (thread % kWarpThreads != 0) before = neighbour;
    SoftmaxPart merged{before, 0};
    const MergeFactors factors = Merge(merged, part);
    shared.old_parts[thread] = factors.old_part;
    shared.new_parts[thread] = factors.new_part;
    shared.sums[thread] = __fmul_rn(part.sum, factors.new_part);
    for (const float maximum : shared.maxima) carried = fmaxf(carried, maximum);
    WaitForCopies<0>();
    __syncthreads();
#pragma unroll 8
    for (int split = 0; split < splits; ++split) {
      const MergeFactors both{shared.old_parts[split], shared.new_parts[split]};
      sum = __fadd_rn(__fmul_rn(sum, both.old_part), shared.sums[split]);
#pragma unroll
      for (int i = 0; i < kMergeColumns; ++i) {
        const int column = thread + i * kMergeThreads;
        if (column >= dim) continue;
        outputs[i] = MergeOutput(outputs[i], shared.outputs[split * dim + column], both);
      }
    }
    __syncthreads();  // the next splits overwrite all of it
  }
  const int64_t row = static_cast<int64_t>(merge.row) * o.query_heads + head;
#pragma unroll
  for (int i = 0; i < kMergeColumns; ++i) {
    const int column = thread + i * kMergeThreads;
    if (column < dim) o.out[row * dim + column] = FromFloat<bf16>(Finished(outputs[i], sum));
  }
}

constexpr int kMergeWarps = 4;  // of a block

/// Merges a row's states of one head by a warp, for many rows: a lane has kPairs pairs of columns.
template <int kPairs>
__global__ void __launch_bounds__(kMergeWarps* kWarpThreads)
    MergeByWarpsKernel(Bf16Attention o, AttentionWorkView work, int blocks) {
  constexpr int kAhead = 8 / kPairs;  // splits under way at a time
  ReleaseSuccessor();
  const int rows = work.live == nullptr ? work.merges_count : work.live->merges;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int unit =
      static_cast<int>(blockIdx.x) * kMergeWarps + static_cast<int>(threadIdx.x) / kWarpThreads;
  if (unit >= rows * o.query_heads) return WaitForPredecessor();
  const int head = unit % o.query_heads;
  const int kv_heads = o.kv.kv_heads;
  const AttentionMerge merge =
      Units(work, kv_heads, static_cast<int>(blocks))
          .StatesOf(work.merges[unit / o.query_heads], kv_heads, head / (o.query_heads / kv_heads));
  if (merge.splits == 1) return WaitForPredecessor();
  const int dim = o.kv.head_dim;
  SoftmaxPart total = NoKeys();
  float2 outputs[kPairs] = {};
  WaitForPredecessor();
  for (int first = 0; first < merge.splits; first += kAhead) {
    SoftmaxPart parts[kAhead];
    float2 states[kAhead][kPairs] = {};
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {
      parts[i] = NoKeys();
      if (first + i >= merge.splits) continue;
      parts[i] = PartOfState(o, merge.first_state + first + i, head);
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        const int column = 2 * (lane + pair * kWarpThreads);
        if (column >= dim) continue;
        states[i][pair] = *reinterpret_cast<const float2*>(
            StateOf(o, merge.first_state + first + i, head) + column);
      }
    }
#pragma unroll
    for (int i = 0; i < kAhead; ++i) {  // a part without keys changes nothing
      const MergeFactors factors = Merge(total, parts[i]);
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        outputs[pair].x = MergeOutput(outputs[pair].x, states[i][pair].x, factors);
        outputs[pair].y = MergeOutput(outputs[pair].y, states[i][pair].y, factors);
      }
    }
  }
  bf16* out = o.out + (static_cast<int64_t>(merge.row) * o.query_heads + head) * dim;
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    const int column = 2 * (lane + pair * kWarpThreads);
    if (column >= dim) continue;
    *reinterpret_cast<uint32_t*>(out + column) =
        PackBf16(Finished(outputs[pair].x, total.sum), Finished(outputs[pair].y, total.sum));
  }
}

/// Few rows wait for the longest chain, many for the number of blocks.
cudaError_t LaunchMerge(const Bf16Attention& o, const AttentionWorkView& work, unsigned blocks,
                        cudaStream_t stream) {
  constexpr int kUnitsOfBlocks = 512;
  const auto rows = static_cast<unsigned>(work.merges_count);
  const auto heads = static_cast<unsigned>(o.query_heads);
  if (rows * heads <= kUnitsOfBlocks) {
    return Launch({"Attention, merge", dim3(rows, heads), dim3(kMergeThreads), 0, stream},
                  MergeByBlocksKernel, o, work, blocks);
  }
  const LaunchShape shape{"Attention, merge", dim3((rows * heads + kMergeWarps - 1) / kMergeWarps),
                          dim3(kMergeWarps * kWarpThreads), 0, stream};
  if (o.kv.head_dim <= 64) return Launch(shape, MergeByWarpsKernel<1>, o, work, blocks);
  if (o.kv.head_dim <= 128) return Launch(shape, MergeByWarpsKernel<2>, o, work, blocks);
  return Launch(shape, MergeByWarpsKernel<4>, o, work, blocks);
}

/// As many blocks as the device runs at a time: more would only follow one another.
int DeviceBlocks(size_t shared_bytes) {
  constexpr size_t kSharedOfProcessor = 227 * 1024;  // fewer on most: then blocks wait their turn
  return MultiprocessorCount() * static_cast<int>(kSharedOfProcessor / shared_bytes);
}

/// Where rows rotate on their way, a block has one unit or one whole head: of heads in several,
/// each would rotate all rows anew while its copies wait.
constexpr int kRotatingUnitsMax = 256;

int HeadsOf(const Bf16Attention& o, const AttentionWorkView& work) {
  return work.few_tiles_count * o.kv.kv_heads;
}

/// Fewer heads are rotated sooner by a kernel of their own, behind which keys and values arrive.
bool WholeHeadsRotate(const Bf16Attention& o, const AttentionWorkView& work) {
  return work.whole_heads && HeadsOf(o, work) > 2 * MultiprocessorCount();
}

template <typename Split>
cudaError_t LaunchAttend(void (*kernel)(Bf16Attention, AttentionWorkView), int blocks,
                         const Bf16Attention& o, const AttentionWorkView& work,
                         cudaStream_t stream) {
  return Launch({"Attention, few rows", dim3(static_cast<unsigned>(blocks)),
                 dim3(kAttentionThreads), Split::kBytes, stream},
                kernel, o, work);
}

/// A block for each head: in chunks of half the positions where the device then runs all of them at
/// once and would not otherwise. Where it does not anyway, longer chunks are faster.
template <int kDim>
cudaError_t AttendRotatingHeads(const Bf16Attention& o, const AttentionWorkView& work,
                                cudaStream_t stream) {
  using Split = SplitAttention<kDim, 1>;
  const int heads = HeadsOf(o, work);
  if constexpr (kDim == 64) {
    using Short = SplitAttention<kDim, 1, kSplitTokens / 2>;
    if (heads > DeviceBlocks(Split::kBytes) && heads <= Short::kBlocks * MultiprocessorCount()) {
      return LaunchAttend<Short>(AttendRotatingHeadsKernel<Short>, heads, o, work, stream);
    }
  }
  return LaunchAttend<Split>(AttendRotatingHeadsKernel<Split>, heads, o, work, stream);
}

}  // namespace

bool FewRowsRotate(const Bf16Attention& o, const AttentionWorkView& work) {
  const int dim = o.kv.head_dim;
  const bool units = work.items_count <= kRotatingUnitsMax / o.kv.kv_heads;
  return (dim == 32 || dim == 64 || dim == 128 || dim == 256) &&
         (units || WholeHeadsRotate(o, work));
}

cudaError_t AttendFewRowsBy(int device_blocks, const Bf16Attention& o,
                            const AttentionWorkView& work, cudaStream_t stream) {
  if (work.items_count == 0) return cudaSuccess;
  return ForHeadDim(o.kv.head_dim, [&](auto dim) {
    constexpr int kDim = decltype(dim)::value;
    using Split = SplitAttention<kDim, 1>;
    const bool rotates = o.rotation.table != nullptr;
    if (rotates && WholeHeadsRotate(o, work)) return AttendRotatingHeads<kDim>(o, work, stream);
    const bool whole_heads = work.whole_heads && !rotates;
    // Of units or heads, each of which may be a block.
    const int parts = whole_heads ? HeadsOf(o, work) : work.items_count * o.kv.kv_heads;
    const int at_once = device_blocks > 0 ? device_blocks : DeviceBlocks(Split::kBytes);
    const int blocks = rotates || parts < at_once ? parts : at_once;
    const cudaError_t error = LaunchAttend<Split>(
        rotates ? AttendRotatingKernel<Split> : AttendItemsKernel<Split>, blocks, o, work, stream);
    if (error != cudaSuccess || work.merges_count == 0 || whole_heads) return error;
    return LaunchMerge(o, work, static_cast<unsigned>(blocks), stream);
  });
}

cudaError_t AttendFewRows(const Bf16Attention& o, const AttentionWorkView& work,
                          cudaStream_t stream) {
  return AttendFewRowsBy(0, o, work, stream);
}

}  // namespace neurogrid::kernels
