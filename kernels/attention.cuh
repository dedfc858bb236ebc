// What the kernels of attention for bf16 share: a block's place, its copies of pages and queries,
// and one split of the recurrence in attention.h on four warps.
//
// Keys and values of a split come in chunks of 256 positions by up to 64 columns (32 KiB), each to
// the half of a ring of two that the chunk before the last has left; so chunks of the next split
// are under way while this one is attended, and shared memory does not grow with head_dim. A score
// is one chain over head_dim through all chunks of keys; each warp scores 64 positions and owns a
// quarter of a chunk's columns of the values. Rows of 16-byte pieces are swizzled, not padded.
#pragma once

#include <type_traits>

#include "kernels/attention.h"
#include "kernels/mma.cuh"
#include "kernels/online_softmax.cuh"
#include "kernels/simt.cuh"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {

using Bf16Attention = AttentionOperands<bf16>;

/// Where a block's rows and split are, from positions to what `start` counts from.
struct AttentionPlace {
  AttentionTile tile;
  int kv_head;
  int group;
  int split;
  int start;     // position of the split
  int first;     // visible to some row, from `start`
  int last;      // half-open
  int32_t page;  // of positions 16 lane .. 16 lane + 15

  /// Reads the page table: early, as copies wait for it.
  __device__ __forceinline__ void SetSplit(int to, const Bf16Attention& o) {
    const int window = o.window;
    split = to;
    start = split * kSplitTokens;
    const int position = tile.first_position;
    const int first_key = window > 0 && position >= window ? position - window + 1 : 0;
    const int last_key = position + tile.queries;
    first = first_key > start ? first_key - start : 0;
    last = last_key - start < kSplitTokens ? last_key - start : kSplitTokens;
    const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
    const bool has_page = lane < kSplitTokens / kPageTokens && lane * kPageTokens < last &&
                          (lane + 1) * kPageTokens > first;
    page = has_page ? o.pages[tile.first_page + start / kPageTokens + lane] : 0;
  }
  __device__ __forceinline__ int64_t PageOf(int token) const {
    return __shfl_sync(kFullMask, page, token / kPageTokens);
  }
  /// Steps of 16 positions up to the last visible one.
  __device__ __forceinline__ int steps() const { return (last + 15) / 16; }
  /// Positions from `start` that earlier steps of the engine have written.
  __device__ __forceinline__ int old() const {
    const int written = tile.first_position - start;
    return written < 0 ? 0 : written < last ? written : last;
  }
  __device__ __forceinline__ int rows() const { return tile.queries * group; }
  __device__ __forceinline__ int64_t QueryOf(int row) const { return tile.first_row + row / group; }
  __device__ __forceinline__ int HeadOf(int row) const { return kv_head * group + row % group; }
};

/// From a score to the exponent of 2.
__device__ __forceinline__ float FactorOf(const Bf16Attention& o) {
  return o.softcap > 0 ? kLog2E : __fmul_rn(o.scale, kLog2E);
}

/// Two neighbouring columns of one row's result.
__device__ __forceinline__ void StoreAttended(const Bf16Attention& o, const AttentionPlace& place,
                                              int row, int column, float a, float b, float sum) {
  if (column >= o.kv.head_dim) return;
  const int64_t at = place.QueryOf(row) * o.query_heads + place.HeadOf(row);
  *reinterpret_cast<uint32_t*>(o.out + at * o.kv.head_dim + column) =
      PackBf16(Finished(a, sum), Finished(b, sum));
}

inline constexpr int kAttentionWarps = 4;
inline constexpr int kAttentionThreads = kAttentionWarps * kWarpThreads;

/// One block's split: kDim is head_dim padded to 32, 64, 128 or 256, kTiles its rows / 16.
template <int kDim, int kTiles>
struct SplitAttention {
  static constexpr int kRows = 16 * kTiles;
  static constexpr int kChunk = kDim < 64 ? kDim : 64;  // columns
  static constexpr int kChunks = kDim / kChunk;
  static constexpr int kPieces = kChunk / 8;  // of 16 bytes
  static constexpr int kWarpTokens = kSplitTokens / kAttentionWarps;
  static constexpr int kScores = kWarpTokens / 8;  // tiles of eight positions of a warp
  static constexpr int kOutputs = kChunk / 8 / kAttentionWarps;  // tiles of a chunk's columns
  static constexpr int kStage = kSplitTokens * kChunk;           // elements
  static constexpr size_t kBytes = sizeof(bf16) * (2 * kStage + kRows * (kDim + kSplitTokens)) +
                                   sizeof(float) * 2 * kAttentionWarps * kRows;

  using Scores = float[kTiles][kScores][4];
  using Outputs = float[kChunks][kTiles][kOutputs][4];

  const Bf16Attention& o;
  bf16* stages;         // [2][kSplitTokens][kChunk]
  bf16* queries;        // [kChunks][kRows][kChunk]
  bf16* probabilities;  // [kRows][kSplitTokens]
  float* maxima;        // [kAttentionWarps][kRows]
  float* sums;          // [kAttentionWarps][kRows]
  float factor;
  int warp;
  int lane;

  __device__ SplitAttention(const Bf16Attention& operands, uint8_t* shared)
      : o(operands),
        factor(FactorOf(operands)),
        warp(static_cast<int>(threadIdx.x) / kWarpThreads),
        lane(static_cast<int>(threadIdx.x) % kWarpThreads) {
    stages = reinterpret_cast<bf16*>(shared);
    queries = stages + 2 * kStage;
    probabilities = queries + kRows * kDim;
    maxima = reinterpret_cast<float*>(probabilities + kRows * kSplitTokens);
    sums = maxima + kAttentionWarps * kRows;
  }

  /// A piece of a row of a chunk: eight rows from a multiple of 8 on have it in eight places of
  /// the 128 bytes that shared memory gives at a time.
  static __device__ __forceinline__ int At(int row, int piece) {
    if constexpr (kPieces == 8) return row * kChunk + ((piece ^ (row & 7)) << 3);
    return row * kChunk + ((piece ^ (row >> 1 & 3)) << 3);
  }
  static __device__ __forceinline__ int AtProbability(int row, int token) {
    return row * kSplitTokens + ((token >> 3 ^ (row & 7)) << 3) + (token & 7);
  }
  /// The row of element i of fragment m.
  __device__ __forceinline__ int RowOf(int m, int i) const { return 16 * m + lane / 4 + i / 2 * 8; }
  /// The column of head_dim of elements 0 and 1 of an output fragment.
  __device__ __forceinline__ int ColumnOf(int chunk, int n) const {
    return chunk * kChunk + (warp * kOutputs + n) * 8 + 2 * (lane % 4);
  }

  /// Positions [from, to) of chunk i of a split: keys first, then values. What no row sees becomes
  /// zeros: it may belong to another sequence by now, and a NaN there must not reach this one.
  __device__ __forceinline__ void CopyChunk(int i, const AttentionPlace& place, int from,
                                            int to) const {
    constexpr int kTokens = kAttentionThreads / kPieces;  // at a time
    const int thread = static_cast<int>(threadIdx.x);
    const int piece = thread % kPieces;
    const int column = i % kChunks * kChunk + piece * 8;
    bf16* stage = stages + i % 2 * kStage;
    const bool values = i >= kChunks;
    const int64_t in_page = thread / kPieces % kPageTokens * o.kv.head_dim + column;
    if (from == 0 && place.first == 0 && place.last == kSplitTokens && to == kSplitTokens &&
        o.kv.head_dim == kDim) {
#pragma unroll
      for (int at = 0; at < kSplitTokens; at += kTokens) {
        const int token = at + thread / kPieces;
        const int64_t page = place.PageOf(token);
        CopyAsync16(
            stage + At(token, piece),
            (values ? o.kv.values(page, place.kv_head) : o.kv.keys(page, place.kv_head)) + in_page,
            true);
      }
      return;
    }
    for (int at = from / kTokens * kTokens; at < to; at += kTokens) {
      const int token = at + thread / kPieces;
      const int64_t page = place.PageOf(token);
      if (token < from || token >= to) continue;
      const bool live = token >= place.first && token < place.last && column < o.kv.head_dim;
      const bf16* tile = values ? o.kv.values(page, place.kv_head) : o.kv.keys(page, place.kv_head);
      CopyAsync16(stage + At(token, piece), live ? tile + in_page : o.qkv, live);
    }
  }
  __device__ __forceinline__ void CopyQueries(const AttentionPlace& place) const {
    for (int i = static_cast<int>(threadIdx.x); i < kRows * (kDim / 8); i += kAttentionThreads) {
      const int row = i / (kDim / 8);
      const int column = i % (kDim / 8) * 8;
      const bool live = row < place.rows() && column < o.kv.head_dim;
      const bf16* from = live ? o.qkv + place.QueryOf(row) * o.qkv_stride +
                                    place.HeadOf(row) * o.kv.head_dim + column
                              : o.qkv;
      CopyAsync16(queries + column / kChunk * kRows * kChunk + At(row, column % kChunk / 8), from,
                  live);
    }
  }
  /// The first two chunks of a split: what earlier steps wrote before the predecessor has ended,
  /// what this step did after that.
  __device__ __forceinline__ void CopyOld(const AttentionPlace& place) const {
    CopyChunk(0, place, 0, place.old());
    CopyChunk(1, place, 0, place.old());
  }
  __device__ __forceinline__ void CopyNew(const AttentionPlace& place) const {
    CopyQueries(place);
    for (int i = 0; i < 2; ++i) {
      CopyChunk(i, place, place.old(), place.steps() * 16);
      CommitCopies();
    }
  }

  /// Adds a chunk's part to the scores of this warp's positions.
  __device__ __forceinline__ void Score(int chunk, int last, Scores& scores) const {
    const bf16* keys = stages + chunk % 2 * kStage;
    const bf16* rows = queries + chunk * kRows * kChunk;
#pragma unroll
    for (int d = 0; d < kChunk; d += 32) {
      uint32_t query[kTiles][2][4];
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
#pragma unroll
        for (int step = 0; step < 2; ++step) {
          LdMatrix(query[m][step], rows + At(16 * m + lane % 16, d / 8 + 2 * step + lane / 16));
        }
      }
#pragma unroll
      for (int j = 0; j < kScores; ++j) {
        const int token = warp * kWarpTokens + 8 * j;
        if (token >= last) break;
        uint32_t key[4];
        LdMatrix(key, keys + At(token + lane % 8, d / 8 + lane / 8));
#pragma unroll
        for (int step = 0; step < 2; ++step) {
#pragma unroll
          for (int m = 0; m < kTiles; ++m) {
            Mma(scores[m][j], query[m][step], key[2 * step], key[2 * step + 1]);
          }
        }
      }
    }
  }

  __device__ __forceinline__ void Cap(Scores& scores) const {
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int j = 0; j < kScores; ++j) {
#pragma unroll
        for (float& score : scores[m][j]) {
          score = o.softcap * tanhf(score * o.scale / o.softcap);
        }
      }
    }
  }

  /// Caps and masks the scores and leaves each row's maximum over the warp in `maxima`.
  __device__ __forceinline__ void Mask(const AttentionPlace& place, Scores& scores) const {
    if (o.softcap > 0) Cap(scores);
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = RowOf(m, 2 * half);
        const int position = place.tile.first_position + row / place.group - place.start;
        const int first = o.window > 0 ? position - o.window + 1 : -place.start;
        float largest = MinusInfinity();
#pragma unroll
        for (int j = 0; j < kScores; ++j) {
#pragma unroll
          for (int i = 2 * half; i < 2 * half + 2; ++i) {
            const int token = warp * kWarpTokens + 8 * j + 2 * (lane % 4) + i % 2;
            const bool visible = token <= position && token >= first && token < place.last;
            scores[m][j][i] = visible ? scores[m][j][i] : MinusInfinity();
            largest = fmaxf(largest, scores[m][j][i]);
          }
        }
        largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 2));
        if (lane % 4 == 0) maxima[warp * kRows + row] = largest;
      }
    }
  }

  __device__ __forceinline__ float MaximumOf(int row) const {
    return fmaxf(fmaxf(maxima[row], maxima[kRows + row]),
                 fmaxf(maxima[2 * kRows + row], maxima[3 * kRows + row]));
  }
  /// The softmax part of one row of the split just attended.
  __device__ __forceinline__ SoftmaxPart PartOf(int row) const {
    const float maximum = MaximumOf(row);
    const float sum =
        __fadd_rn(__fadd_rn(__fadd_rn(sums[row], sums[kRows + row]), sums[2 * kRows + row]),
                  sums[3 * kRows + row]);
    return {maximum == MinusInfinity() ? maximum : __fmul_rn(maximum, factor), sum};
  }

  /// Scores become probabilities in shared memory, their sums over the warp go to `sums`.
  __device__ __forceinline__ void Exponentiate(const Scores& scores) const {
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = RowOf(m, 2 * half);
        const float maximum = MaximumOf(row);
        const float base = maximum == MinusInfinity() ? 0.0f : __fmul_rn(maximum, factor);
        float sum = 0;
#pragma unroll
        for (int j = 0; j < kScores; ++j) {
          const float p0 = Exp2(fmaf(scores[m][j][2 * half], factor, -base));
          const float p1 = Exp2(fmaf(scores[m][j][2 * half + 1], factor, -base));
          sum = __fadd_rn(__fadd_rn(sum, p0), p1);
          const int token = warp * kWarpTokens + 8 * j + 2 * (lane % 4);
          *reinterpret_cast<uint32_t*>(probabilities + AtProbability(row, token)) =
              PackBf16(p0, p1);
        }
        sum = __fadd_rn(sum, __shfl_xor_sync(kFullMask, sum, 1));
        sum = __fadd_rn(sum, __shfl_xor_sync(kFullMask, sum, 2));
        if (lane % 4 == 0) sums[warp * kRows + row] = sum;
      }
    }
  }

  /// Probabilities times a chunk of values, for this warp's quarter of its columns.
  __device__ __forceinline__ void Weigh(int chunk, int steps,
                                        float (&outputs)[kTiles][kOutputs][4]) const {
    const bf16* values = stages + (kChunks + chunk) % 2 * kStage;
    const int piece = warp * kOutputs + (kOutputs == 2 ? lane / 16 : 0);
#pragma unroll 4
    for (int step = 0; step < steps; ++step) {
      uint32_t v[4];
      LdMatrixTransposed(v, values + At(16 * step + lane % 16, piece));
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        uint32_t p[4];
        LdMatrix(p, probabilities + AtProbability(16 * m + lane % 16, 16 * step + lane / 16 * 8));
#pragma unroll
        for (int n = 0; n < kOutputs; ++n) Mma(outputs[m][n], p, v[2 * n], v[2 * n + 1]);
      }
    }
  }

  /// One split whose first two chunks are under way, each a group; `next` is told i when chunk i of
  /// what comes after this split has its place free. Outputs of this warp's columns; `maxima` and
  /// `sums` hold until two chunks later.
  template <typename Next>
  __device__ __forceinline__ void Attend(const AttentionPlace& place, Outputs& outputs,
                                         const Next& next) const {
    const auto refill = [&](int i) {  // every thread has read chunk i - 2
      if (i < 2 * kChunks) {
        CopyChunk(i, place, 0, place.steps() * 16);
      } else {
        next(i - 2 * kChunks);
      }
      CommitCopies();
    };
    Scores scores = {};
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      WaitForCopies<1>();
      __syncthreads();
      Score(chunk, place.last, scores);
      if (chunk == kChunks - 1) Mask(place, scores);
      __syncthreads();
      refill(chunk + 2);
    }
    Exponentiate(scores);
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
#pragma unroll
        for (int n = 0; n < kOutputs; ++n) {
#pragma unroll
          for (int i = 0; i < 4; ++i) outputs[chunk][m][n][i] = 0;
        }
      }
      WaitForCopies<1>();
      __syncthreads();
      Weigh(chunk, place.steps(), outputs[chunk]);
      __syncthreads();
      refill(kChunks + chunk + 2);
    }
  }
};

/// Calls what with a whole number for head_dim padded to what a kernel is made for.
template <typename What>
cudaError_t ForHeadDim(int head_dim, const What& what) {
  if (head_dim <= 32) return what(std::integral_constant<int, 32>());
  if (head_dim <= 64) return what(std::integral_constant<int, 64>());
  if (head_dim <= 128) return what(std::integral_constant<int, 128>());
  return what(std::integral_constant<int, 256>());
}

}  // namespace neurogrid::kernels
