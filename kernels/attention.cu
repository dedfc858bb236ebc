#include "kernels/attention.h"
#include "kernels/launch.h"
#include "kernels/mma.cuh"
#include "kernels/online_softmax.cuh"
#include "kernels/simt.cuh"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * kWarpThreads;
constexpr int kWarpTokens = kSplitTokens / kWarps;
constexpr int kColumns = kWarpTokens / 8;  // tiles of eight positions of a warp
constexpr int kRowPadding = 8;             // elements: rows start at other banks
constexpr int kProbabilityStride = kSplitTokens + kRowPadding;

/// Where a block's shared memory goes. kDim: head_dim padded to 32, 64, 128 or 256.
template <int kDim, int kTiles>
struct Layout {
  static constexpr int kRows = 16 * kTiles;
  static constexpr int kStride = kDim + kRowPadding;  // elements
  // Keys and values apart let both be under way at once; there is not room for it everywhere.
  static constexpr bool kApart = kDim <= 64;
  static constexpr int kTokensElements = kSplitTokens * kStride;

  bf16* keys;
  bf16* values;
  bf16* queries;        // [kRows][kStride]
  bf16* probabilities;  // [kRows][kProbabilityStride]
  float* maxima;        // [kWarps][kRows]
  float* sums;          // [kWarps][kRows]

  __device__ explicit Layout(uint8_t* shared) {
    keys = reinterpret_cast<bf16*>(shared);
    values = kApart ? keys + kTokensElements : keys;
    queries = values + kTokensElements;
    probabilities = queries + kRows * kStride;
    maxima = reinterpret_cast<float*>(probabilities + kRows * kProbabilityStride);
    sums = maxima + kWarps * kRows;
  }
  static constexpr size_t kBytes =
      2 * ((kApart ? 2 : 1) * kTokensElements + kRows * (kStride + kProbabilityStride)) +
      4 * 2 * kWarps * kRows;
};

using Operands = AttentionOperands<bf16>;

/// What a block works on, in the tile's terms.
struct Place {
  AttentionTile tile;
  int kv_head;
  int group;
  int start;  // position of the split
  int first;  // visible to some row, from `start`
  int last;   // half-open

  __device__ __forceinline__ void SetSplit(int split, int window) {
    start = split * kSplitTokens;
    const int position = tile.first_position;
    const int first_key = window > 0 && position >= window ? position - window + 1 : 0;
    const int last_key = position + tile.queries;
    first = first_key > start ? first_key - start : 0;
    last = last_key - start < kSplitTokens ? last_key - start : kSplitTokens;
  }
  /// Steps of 16 positions up to the last visible one.
  __device__ __forceinline__ int steps() const { return (last + 15) / 16; }
};

/// One split's keys or values to shared memory. What no row sees becomes zeros: it may belong to
/// another sequence by now, and a NaN there must not reach this one.
template <int kDim, int kTiles>
__device__ __forceinline__ void CopyTokens(bf16* shared, const Operands& o, const Place& place,
                                           bool values) {
  constexpr int kPieces = kDim / 8;
  const int32_t* pages = o.pages + place.tile.first_page + place.start / kPageTokens;
  for (int i = static_cast<int>(threadIdx.x); i < place.steps() * 16 * kPieces; i += kThreads) {
    const int token = i / kPieces;
    const int column = i % kPieces * 8;
    const bool live = token >= place.first && token < place.last && column < o.kv.head_dim;
    const bf16* from = o.qkv;
    if (live) {
      const int64_t page = pages[token / kPageTokens];
      const bf16* tile = values ? o.kv.values(page, place.kv_head) : o.kv.keys(page, place.kv_head);
      from = tile + token % kPageTokens * o.kv.head_dim + column;
    }
    CopyAsync16(shared + token * Layout<kDim, kTiles>::kStride + column, from, live);
  }
}

template <int kDim, int kTiles>
__device__ __forceinline__ void CopyQueries(bf16* shared, const Operands& o, const Place& place) {
  constexpr int kPieces = kDim / 8;
  using L = Layout<kDim, kTiles>;
  for (int i = static_cast<int>(threadIdx.x); i < L::kRows * kPieces; i += kThreads) {
    const int row = i / kPieces;
    const int column = i % kPieces * 8;
    const bool live = row < place.tile.queries * place.group && column < o.kv.head_dim;
    const int64_t query = live ? place.tile.first_row + row / place.group : 0;
    const int head = place.kv_head * place.group + row % place.group;
    const bf16* from = live ? o.qkv + query * o.qkv_stride + head * o.kv.head_dim + column : o.qkv;
    CopyAsync16(shared + row * L::kStride + column, from, live);
  }
}

/// Scores of this warp's 64 positions for all rows of the tile.
template <int kDim, int kTiles>
__device__ __forceinline__ void Score(const Layout<kDim, kTiles>& l, const Place& place, int warp,
                                      int lane, float (&scores)[kTiles][kColumns][4]) {
  using L = Layout<kDim, kTiles>;
#pragma unroll
  for (int j = 0; j < kColumns; ++j) {
    const int token = warp * kWarpTokens + 8 * j;
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) scores[m][j][i] = 0;
    }
    if (token >= place.last) continue;
#pragma unroll
    for (int d = 0; d < kDim; d += 32) {
      uint32_t key[4];
      LdMatrix(key, l.keys + (token + lane % 8) * L::kStride + d + lane / 8 * 8);
#pragma unroll
      for (int step = 0; step < 2; ++step) {
#pragma unroll
        for (int m = 0; m < kTiles; ++m) {
          uint32_t query[4];
          LdMatrix(query,
                   l.queries + (16 * m + lane % 16) * L::kStride + d + 16 * step + lane / 16 * 8);
          Mma(scores[m][j], query, key[2 * step], key[2 * step + 1]);
        }
      }
    }
  }
}

/// The row of the tile of element i of a fragment.
__device__ __forceinline__ int RowOf(int m, int i, int lane) {
  return 16 * m + lane / 4 + i / 2 * 8;
}

/// Caps and masks the scores and leaves each row's maximum over the warp in `l.maxima`.
template <int kDim, int kTiles>
__device__ __forceinline__ void Mask(const Layout<kDim, kTiles>& l, const Operands& o,
                                     const Place& place, int warp, int lane,
                                     float (&scores)[kTiles][kColumns][4]) {
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = RowOf(m, 2 * half, lane);
      const int position = place.tile.first_position + row / place.group - place.start;
      const int first = o.window > 0 ? position - o.window + 1 : -place.start;
      float largest = MinusInfinity();
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
#pragma unroll
        for (int i = 2 * half; i < 2 * half + 2; ++i) {
          const int token = warp * kWarpTokens + 8 * j + 2 * (lane % 4) + i % 2;
          float score = scores[m][j][i];
          if (o.softcap > 0) score = o.softcap * tanhf(score * o.scale / o.softcap);
          const bool visible = token <= position && token >= first && token < place.last;
          scores[m][j][i] = visible ? score : MinusInfinity();
          largest = fmaxf(largest, scores[m][j][i]);
        }
      }
      largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 2));
      if (lane % 4 == 0) l.maxima[warp * Layout<kDim, kTiles>::kRows + row] = largest;
    }
  }
}

/// A value of each of the tile's rows over the four warps.
template <int kRows>
__device__ __forceinline__ float MaximumOf(const float* maxima, int row) {
  return fmaxf(fmaxf(maxima[row], maxima[kRows + row]),
               fmaxf(maxima[2 * kRows + row], maxima[3 * kRows + row]));
}
template <int kRows>
__device__ __forceinline__ float SumOf(const float* sums, int row) {
  return __fadd_rn(__fadd_rn(__fadd_rn(sums[row], sums[kRows + row]), sums[2 * kRows + row]),
                   sums[3 * kRows + row]);
}

/// Scores become probabilities in shared memory, their sums over the warp go to `l.sums`.
/// factor: from a score to the exponent of 2.
template <int kDim, int kTiles>
__device__ __forceinline__ void Exponentiate(const Layout<kDim, kTiles>& l, float factor, int warp,
                                             int lane, const float (&scores)[kTiles][kColumns][4]) {
  using L = Layout<kDim, kTiles>;
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = RowOf(m, 2 * half, lane);
      const float maximum = MaximumOf<L::kRows>(l.maxima, row);
      const float base = maximum == MinusInfinity() ? 0.0f : __fmul_rn(maximum, factor);
      float sum = 0;
#pragma unroll
      for (int j = 0; j < kColumns; ++j) {
        const float p0 = Exp2(fmaf(scores[m][j][2 * half], factor, -base));
        const float p1 = Exp2(fmaf(scores[m][j][2 * half + 1], factor, -base));
        sum = __fadd_rn(__fadd_rn(sum, p0), p1);
        const int token = warp * kWarpTokens + 8 * j + 2 * (lane % 4);
        *reinterpret_cast<uint32_t*>(l.probabilities + row * kProbabilityStride + token) =
            PackBf16(p0, p1);
      }
      sum = __fadd_rn(sum, __shfl_xor_sync(kFullMask, sum, 1));
      sum = __fadd_rn(sum, __shfl_xor_sync(kFullMask, sum, 2));
      if (lane % 4 == 0) l.sums[warp * L::kRows + row] = sum;
    }
  }
}

template <int kDim>
inline constexpr int kWarpDim = kDim / kWarps;  // of head_dim, a warp's own
template <int kDim>
inline constexpr int kOutputs = kWarpDim<kDim> / 8;

/// Probabilities times values, for this warp's quarter of head_dim.
template <int kDim, int kTiles>
__device__ __forceinline__ void Weigh(const Layout<kDim, kTiles>& l, int steps, int warp, int lane,
                                      float (&outputs)[kTiles][kOutputs<kDim>][4]) {
  using L = Layout<kDim, kTiles>;
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int n = 0; n < kOutputs<kDim>; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) outputs[m][n][i] = 0;
    }
  }
#pragma unroll 2
  for (int step = 0; step < steps; ++step) {
    uint32_t p[kTiles][4];
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
      LdMatrix(p[m], l.probabilities + (16 * m + lane % 16) * kProbabilityStride + 16 * step +
                         lane / 16 * 8);
    }
#pragma unroll
    for (int n = 0; n < kOutputs<kDim>; n += 2) {
      uint32_t v[4];
      LdMatrixTransposed(v, l.values + (16 * step + lane % 16) * L::kStride +
                                warp * kWarpDim<kDim> + 8 * n + lane / 16 * 8);
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        Mma(outputs[m][n], p[m], v[0], v[1]);
        if constexpr (kOutputs < kDim >> 1) Mma(outputs[m][n + 1], p[m], v[2], v[3]);
      }
    }
  }
}

/// One split of the tile: outputs of this warp's quarter; maxima and sums in l.
template <int kDim, int kTiles>
__device__ __forceinline__ void AttendSplit(const Layout<kDim, kTiles>& l, const Operands& o,
                                            const Place& place, float factor, int warp, int lane,
                                            float (&outputs)[kTiles][kOutputs<kDim>][4]) {
  using L = Layout<kDim, kTiles>;
  CopyTokens<kDim, kTiles>(l.keys, o, place, /*values=*/false);
  CommitCopies();
  if constexpr (L::kApart) CopyTokens<kDim, kTiles>(l.values, o, place, /*values=*/true);
  CommitCopies();
  WaitForCopies<1>();
  __syncthreads();
  float scores[kTiles][kColumns][4];
  Score(l, place, warp, lane, scores);
  Mask(l, o, place, warp, lane, scores);
  __syncthreads();
  if constexpr (!L::kApart) {  // all warps have read the keys
    CopyTokens<kDim, kTiles>(l.values, o, place, /*values=*/true);
    CommitCopies();
  }
  Exponentiate(l, factor, warp, lane, scores);
  WaitForCopies<0>();
  __syncthreads();
  Weigh(l, place.steps(), warp, lane, outputs);
}

/// The softmax part of one row of the split just attended.
template <int kRows>
__device__ __forceinline__ SoftmaxPart PartOf(const float* maxima, const float* sums, int row,
                                              float factor) {
  const float maximum = MaximumOf<kRows>(maxima, row);
  return {maximum == MinusInfinity() ? maximum : __fmul_rn(maximum, factor),
          SumOf<kRows>(sums, row)};
}

struct RowPlace {
  int64_t query;  // row of the batch
  int head;
};
__device__ __forceinline__ RowPlace PlaceOfRow(const Place& place, int row) {
  return {place.tile.first_row + row / place.group,
          place.kv_head * place.group + row % place.group};
}

template <int kDim>
__device__ __forceinline__ void StoreRow(const Operands& o, const RowPlace& at, int column, float a,
                                         float b, float sum) {
  if (column >= o.kv.head_dim) return;
  const int64_t row = at.query * o.query_heads + at.head;
  *reinterpret_cast<uint32_t*>(o.out + row * o.kv.head_dim + column) =
      PackBf16(Finished(a, sum), Finished(b, sum));
}

__device__ __forceinline__ float FactorOf(const Operands& o) {
  return o.softcap > 0 ? kLog2E : __fmul_rn(o.scale, kLog2E);
}

/// More rows: a block goes through the splits of its tile.
template <int kDim, int kTiles>
__global__ void __launch_bounds__(kThreads)
    AttendTilesKernel(Operands o, const AttentionTile* tiles) {
  using L = Layout<kDim, kTiles>;
  WaitForPredecessor();
  ReleaseSuccessor();
  const L l(SharedMemory<uint8_t>());
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  Place place{
      tiles[blockIdx.x], static_cast<int>(blockIdx.y), o.query_heads / o.kv.kv_heads, 0, 0, 0};
  const float factor = FactorOf(o);
  CopyQueries<kDim, kTiles>(l.queries, o, place);
  float totals[kTiles][kOutputs<kDim>][4] = {};
  SoftmaxPart parts[kTiles][2];
#pragma unroll
  for (int m = 0; m < kTiles; ++m) parts[m][0] = parts[m][1] = NoKeys();
  for (int split = 0; split < place.tile.splits; ++split) {
    place.SetSplit(place.tile.first_split + split, o.window);
    float outputs[kTiles][kOutputs<kDim>][4];
    AttendSplit(l, o, place, factor, warp, lane, outputs);
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const MergeFactors factors = Merge(
            parts[m][half], PartOf<L::kRows>(l.maxima, l.sums, RowOf(m, 2 * half, lane), factor));
#pragma unroll
        for (int n = 0; n < kOutputs<kDim>; ++n) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            totals[m][n][i] = MergeOutput(totals[m][n][i], outputs[m][n][i], factors);
          }
        }
      }
    }
    __syncthreads();  // the next split overwrites all of it
  }
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = RowOf(m, 2 * half, lane);
      if (row >= place.tile.queries * place.group) continue;
#pragma unroll
      for (int n = 0; n < kOutputs<kDim>; ++n) {
        StoreRow<kDim>(o, PlaceOfRow(place, row), warp * kWarpDim<kDim> + 8 * n + 2 * (lane % 4),
                       totals[m][n][2 * half], totals[m][n][2 * half + 1], parts[m][half].sum);
      }
    }
  }
}

/// A state is [query_heads][head_dim] outputs, then [query_heads] of maximum and sum.
struct StateView {
  float* outputs;
  float* parts;

  __device__ StateView(float* states, int64_t state, int query_heads, int head_dim, int head) {
    float* first = states + state * query_heads * (head_dim + 2);
    outputs = first + static_cast<int64_t>(head) * head_dim;
    parts = first + static_cast<int64_t>(query_heads) * head_dim + 2 * head;
  }
};

/// Few rows: one split of a tile.
template <int kDim>
__global__ void __launch_bounds__(kThreads)
    AttendItemsKernel(Operands o, const AttentionTile* tiles, const AttentionItem* items) {
  using L = Layout<kDim, 1>;
  WaitForPredecessor();
  ReleaseSuccessor();
  const L l(SharedMemory<uint8_t>());
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const AttentionItem item = items[blockIdx.x];
  if (item.tile == kNoTile) return;
  Place place{
      tiles[item.tile], static_cast<int>(blockIdx.y), o.query_heads / o.kv.kv_heads, 0, 0, 0};
  const float factor = FactorOf(o);
  CopyQueries<kDim, 1>(l.queries, o, place);
  place.SetSplit(item.split, o.window);
  float outputs[1][kOutputs<kDim>][4];
  AttendSplit(l, o, place, factor, warp, lane, outputs);
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = RowOf(0, 2 * half, lane);
    if (row >= place.tile.queries * place.group) continue;
    const SoftmaxPart part = PartOf<L::kRows>(l.maxima, l.sums, row, factor);
    const RowPlace at = PlaceOfRow(place, row);
    const int64_t state = place.tile.first_state + row / place.group * place.tile.splits +
                          item.split - place.tile.first_split;
    const bool alone = place.tile.splits == 1;
    SoftmaxPart total = NoKeys();
    const MergeFactors factors = Merge(total, part);
#pragma unroll
    for (int n = 0; n < kOutputs<kDim>; ++n) {
      const int column = warp * kWarpDim<kDim> + 8 * n + 2 * (lane % 4);
      const float a = outputs[0][n][2 * half];
      const float b = outputs[0][n][2 * half + 1];
      if (alone) {
        StoreRow<kDim>(o, at, column, MergeOutput(0, a, factors), MergeOutput(0, b, factors),
                       total.sum);
      } else if (column < o.kv.head_dim) {
        const StateView view(o.states, state, o.query_heads, o.kv.head_dim, at.head);
        view.outputs[column] = a;
        view.outputs[column + 1] = b;
        if (column == 0) {
          view.parts[0] = part.maximum;
          view.parts[1] = part.sum;
        }
      }
    }
  }
}

/// Merges a row's states of one head: a thread for each element.
__global__ void __launch_bounds__(kThreads)
    MergeStatesKernel(Operands o, const AttentionMerge* merges) {
  WaitForPredecessor();
  ReleaseSuccessor();
  const AttentionMerge merge = merges[blockIdx.x];
  if (merge.splits == 0) return;
  const int head = static_cast<int>(blockIdx.y);
  const int head_dim = o.kv.head_dim;
  for (int c = static_cast<int>(threadIdx.x); c < head_dim; c += kThreads) {
    SoftmaxPart total = NoKeys();
    float output = 0;
#pragma unroll 4
    for (int split = 0; split < merge.splits; ++split) {
      const StateView view(o.states, merge.first_state + split, o.query_heads, head_dim, head);
      const MergeFactors factors = Merge(total, {view.parts[0], view.parts[1]});
      output = MergeOutput(output, view.outputs[c], factors);
    }
    const int64_t row = static_cast<int64_t>(merge.row) * o.query_heads + head;
    o.out[row * head_dim + c] = FromFloat<bf16>(Finished(output, total.sum));
  }
}

template <int kDim>
cudaError_t LaunchAttention(const Operands& o, const AttentionWorkView& work, cudaStream_t stream) {
  const auto kv_heads = static_cast<unsigned>(o.kv.kv_heads);
  cudaError_t error = cudaSuccess;
  if (work.more_tiles_count > 0) {
    error = Launch(
        {"Attention, more rows", dim3(static_cast<unsigned>(work.more_tiles_count), kv_heads),
         dim3(kThreads), Layout<kDim, 2>::kBytes, stream},
        AttendTilesKernel<kDim, 2>, o, work.more_tiles);
  }
  if (error == cudaSuccess && work.items_count > 0) {
    error = Launch({"Attention, few rows", dim3(static_cast<unsigned>(work.items_count), kv_heads),
                    dim3(kThreads), Layout<kDim, 1>::kBytes, stream},
                   AttendItemsKernel<kDim>, o, work.few_tiles, work.items);
  }
  if (error == cudaSuccess && work.merges_count > 0) {
    error = Launch(
        {"Attention, merge",
         dim3(static_cast<unsigned>(work.merges_count), static_cast<unsigned>(o.query_heads)),
         dim3(kThreads), 0, stream},
        MergeStatesKernel, o, work.merges);
  }
  return error;
}

}  // namespace

cudaError_t Attention(const AttentionOperands<bf16>& o, const AttentionWorkView& work,
                      cudaStream_t stream) {
  const int dim = o.kv.head_dim;
  const bool whole_groups = o.kv.kv_heads > 0 && o.query_heads % o.kv.kv_heads == 0 &&
                            o.query_heads / o.kv.kv_heads <= kGroupMax;
  if (!whole_groups || dim % 8 != 0 || dim > kHeadDimMax) return cudaErrorInvalidValue;
  if (dim <= 32) return LaunchAttention<32>(o, work, stream);
  if (dim <= 64) return LaunchAttention<64>(o, work, stream);
  if (dim <= 128) return LaunchAttention<128>(o, work, stream);
  return LaunchAttention<256>(o, work, stream);
}

}  // namespace neurogrid::kernels
