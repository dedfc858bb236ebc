// Few rows: one kernel attends the splits of all tiles, a second merges their states.
#include "kernels/attention.cuh"
#include "kernels/attention_ways.h"
#include "kernels/launch.h"

namespace neurogrid::kernels {
namespace {

/// A state of one head: head_dim outputs, maximum, sum, and two more for the alignment.
__device__ __forceinline__ float* StateOf(const Bf16Attention& o, int64_t state, int head) {
  return o.states + (state * o.query_heads + head) * (o.kv.head_dim + kStatePadding);
}

template <int kDim>
__device__ __forceinline__ void StoreSplit(
    const SplitAttention<kDim, 1>& block, const AttentionPlace& place,
    const typename SplitAttention<kDim, 1>::Outputs& outputs) {
  using Split = SplitAttention<kDim, 1>;
  const Bf16Attention& o = block.o;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = block.RowOf(0, 2 * half);
    if (row >= place.rows()) continue;
    const SoftmaxPart part = block.PartOf(row);
    const bool alone = place.tile.splits == 1;
    SoftmaxPart total = NoKeys();
    const MergeFactors factors = Merge(total, part);
    float* state = StateOf(o,
                           int64_t{place.tile.first_state} + row / place.group * place.tile.splits +
                               place.split - place.tile.first_split,
                           place.HeadOf(row));
#pragma unroll
    for (int chunk = 0; chunk < Split::kChunks; ++chunk) {
#pragma unroll
      for (int n = 0; n < Split::kOutputs; ++n) {
        const int column = block.ColumnOf(chunk, n);
        const float a = outputs[chunk][0][n][2 * half];
        const float b = outputs[chunk][0][n][2 * half + 1];
        if (alone) {
          StoreAttended(o, place, row, column, MergeOutput(0, a, factors),
                        MergeOutput(0, b, factors), total.sum);
        } else if (column < o.kv.head_dim) {
          *reinterpret_cast<float2*>(state + column) = make_float2(a, b);
          if (column == 0) {
            *reinterpret_cast<float2*>(state + o.kv.head_dim) = make_float2(part.maximum, part.sum);
          }
        }
      }
    }
  }
}

/// Blocks take (item, kv head) after (item, kv head), a grid apart.
template <int kDim>
__global__ void __launch_bounds__(kAttentionThreads)
    AttendItemsKernel(Bf16Attention o, AttentionWorkView work) {
  ReleaseSuccessor();
  const int kv_heads = o.kv.kv_heads;
  const int units = (work.live == nullptr ? work.items_count : work.live->items) * kv_heads;
  const auto place_of = [&](int unit) {
    const AttentionItem item = work.items[unit / kv_heads];
    AttentionPlace place{
        work.few_tiles[item.tile], unit % kv_heads, o.query_heads / kv_heads, 0, 0, 0, 0, 0};
    place.SetSplit(item.split, o);
    return place;
  };
  int unit = static_cast<int>(blockIdx.x);
  if (unit >= units) return WaitForPredecessor();
  const SplitAttention<kDim, 1> block(o, SharedMemory<uint8_t>());
  AttentionPlace place = place_of(unit);
  block.CopyOld(place);
  WaitForPredecessor();
  block.CopyNew(place);
  for (;;) {
    unit += static_cast<int>(gridDim.x);
    const bool more = unit < units;
    const AttentionPlace following = more ? place_of(unit) : place;
    typename SplitAttention<kDim, 1>::Outputs outputs;
    block.Attend(place, outputs, [&](int chunk) {
      if (!more) return;
      if (chunk == 0) block.CopyQueries(following);
      block.CopyChunk(chunk, following, 0, following.steps() * 16);
    });
    StoreSplit<kDim>(block, place, outputs);
    if (!more) return;
    place = following;
  }
}

/// A piece of a row's states of one head for a warp: kPairs pairs of columns a lane, of kSplits
/// splits, and of each split its part in the lane of its number.
template <int kPairs>
struct States {
  static constexpr int kSplits = kWarpThreads / kPairs;

  float2 outputs[kSplits][kPairs];
  SoftmaxPart part;

  static __device__ __forceinline__ int ColumnOf(int pair) {
    return 2 * (static_cast<int>(threadIdx.x) + pair * kWarpThreads);
  }
  __device__ __forceinline__ void Load(const Bf16Attention& o, int64_t state, int head,
                                       int splits) {
    const int lane = static_cast<int>(threadIdx.x);
#pragma unroll
    for (int split = 0; split < kSplits; ++split) {
      if (split >= splits) break;
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        if (ColumnOf(pair) >= o.kv.head_dim) continue;
        outputs[split][pair] =
            *reinterpret_cast<const float2*>(StateOf(o, state + split, head) + ColumnOf(pair));
      }
    }
    part = NoKeys();
    if (lane < kSplits && lane < splits) {
      const float2 both =
          *reinterpret_cast<const float2*>(StateOf(o, state + lane, head) + o.kv.head_dim);
      part = {both.x, both.y};
    }
  }
};

template <int kPairs>
struct Merged {
  float2 outputs[kPairs];
  float sum;
  float maximum;

  /// Merges splits one by one. What the merging of one needs of the others are the maxima before
  /// it, which are exact: a scan finds all at once.
  __device__ __forceinline__ void Add(const States<kPairs>& states, int splits) {
    const int lane = static_cast<int>(threadIdx.x);
    float largest = states.part.maximum;
#pragma unroll
    for (unsigned distance = 1; distance < kWarpThreads; distance *= 2) {
      largest = fmaxf(largest, __shfl_up_sync(kFullMask, largest, distance));
    }
    largest = fmaxf(largest, maximum);
    const float before = __shfl_up_sync(kFullMask, largest, 1);
    const float base = largest == MinusInfinity() ? 0.0f : largest;
    const float old_part = Exp2((lane == 0 ? maximum : before) - base);
    const float new_part = Exp2(states.part.maximum - base);
    const float new_sum = __fmul_rn(states.part.sum, new_part);
    maximum = __shfl_sync(kFullMask, largest, kWarpThreads - 1);
#pragma unroll
    for (int split = 0; split < States<kPairs>::kSplits; ++split) {
      if (split >= splits) break;
      const MergeFactors factors{__shfl_sync(kFullMask, old_part, split),
                                 __shfl_sync(kFullMask, new_part, split)};
      sum = __fadd_rn(__fmul_rn(sum, factors.old_part), __shfl_sync(kFullMask, new_sum, split));
#pragma unroll
      for (int pair = 0; pair < kPairs; ++pair) {
        const float2 output = states.outputs[split][pair];
        outputs[pair].x = MergeOutput(outputs[pair].x, output.x, factors);
        outputs[pair].y = MergeOutput(outputs[pair].y, output.y, factors);
      }
    }
  }
};

/// Merges states: a warp for each row and head. kPairs: head_dim / 64, rounded up.
template <int kPairs>
__global__ void __launch_bounds__(4 * kWarpThreads)
    MergeStatesKernel(Bf16Attention o, AttentionWorkView work) {
  constexpr int kSplits = States<kPairs>::kSplits;
  ReleaseSuccessor();
  const int rows = work.live == nullptr ? work.merges_count : work.live->merges;
  const int unit = static_cast<int>(blockIdx.x * blockDim.y + threadIdx.y);
  if (unit >= rows * o.query_heads) return WaitForPredecessor();
  const AttentionMerge merge = work.merges[unit / o.query_heads];
  const int head = unit % o.query_heads;
  Merged<kPairs> merged{{}, 0, MinusInfinity()};
  WaitForPredecessor();
  States<kPairs> states;
  states.Load(o, merge.first_state, head, merge.splits);
  for (int first = 0; first < merge.splits; first += kSplits) {
    States<kPairs> following;
    following.Load(o, int64_t{merge.first_state} + first + kSplits, head,
                   merge.splits - first - kSplits);
    merged.Add(states, merge.splits - first);
    states = following;
  }
  bf16* out = o.out + (static_cast<int64_t>(merge.row) * o.query_heads + head) * o.kv.head_dim;
#pragma unroll
  for (int pair = 0; pair < kPairs; ++pair) {
    const int column = States<kPairs>::ColumnOf(pair);
    if (column >= o.kv.head_dim) continue;
    *reinterpret_cast<uint32_t*>(out + column) = PackBf16(
        Finished(merged.outputs[pair].x, merged.sum), Finished(merged.outputs[pair].y, merged.sum));
  }
}

cudaError_t LaunchMerge(const Bf16Attention& o, const AttentionWorkView& work,
                        cudaStream_t stream) {
  constexpr int kUnitsOfBlocks = 512;  // up to here a warp has a multiprocessor of its own, or most
  const int units = work.merges_count * o.query_heads;
  const int warps = units > kUnitsOfBlocks ? 4 : 1;
  const LaunchShape shape{"Attention, merge",
                          dim3(static_cast<unsigned>((units + warps - 1) / warps)),
                          dim3(kWarpThreads, static_cast<unsigned>(warps)), 0, stream};
  if (o.kv.head_dim <= 64) return Launch(shape, MergeStatesKernel<1>, o, work);
  if (o.kv.head_dim <= 128) return Launch(shape, MergeStatesKernel<2>, o, work);
  return Launch(shape, MergeStatesKernel<4>, o, work);
}

/// As many blocks as the device runs at a time: more would only follow one another.
unsigned BlocksOf(int units, size_t shared_bytes) {
  static const int processors = [] {
    int device = 0;
    int count = 1;
    if (cudaGetDevice(&device) != cudaSuccess ||
        cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device) != cudaSuccess) {
      return 1;
    }
    return count;
  }();
  constexpr size_t kSharedOfProcessor = 227 * 1024;  // fewer on most: then blocks wait their turn
  const auto blocks = processors * static_cast<int>(kSharedOfProcessor / shared_bytes);
  return static_cast<unsigned>(units < blocks ? units : blocks);
}

}  // namespace

cudaError_t AttendFewRows(const Bf16Attention& o, const AttentionWorkView& work,
                          cudaStream_t stream) {
  cudaError_t error = cudaSuccess;
  if (work.items_count > 0) {
    error = ForHeadDim(o.kv.head_dim, [&](auto dim) {
      constexpr int kDim = decltype(dim)::value;
      constexpr size_t kBytes = SplitAttention<kDim, 1>::kBytes;
      return Launch(
          {"Attention, few rows", dim3(BlocksOf(work.items_count * o.kv.kv_heads, kBytes)),
           dim3(kAttentionThreads), kBytes, stream},
          AttendItemsKernel<kDim>, o, work);
    });
  }
  if (error != cudaSuccess || work.merges_count == 0) return error;
  return LaunchMerge(o, work, stream);
}

}  // namespace neurogrid::kernels
