// What the kernels of attention for bf16 share: a block's place, its copies of pages and queries,
// and one split of the recurrence in attention.h on four warps.
//
// Keys and values of a split come in chunks of 256 positions, or of half as many, by up to 64
// columns (32 KiB), each to the half of a ring of two that the chunk before the last has left; so
// chunks of the next split are under way while this one is attended, and shared memory does not
// grow with head_dim. A score is one chain over head_dim through all chunks of keys; each warp
// scores 64 positions and owns a quarter of a chunk's columns of the values. Rows of 16-byte pieces
// are swizzled, not padded.
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
  int inverse;  // of the group, times 2^16
  int split = 0;
  int start = 0;     // position of the split
  int first = 0;     // visible to some row, from `start`
  int last = 0;      // half-open
  int32_t page = 0;  // of positions 16 lane .. 16 lane + 15

  /// Before SetSplit.
  __device__ __forceinline__ AttentionPlace(const AttentionTile& of, int head,
                                            const Bf16Attention& o)
      : tile(of),
        kv_head(head),
        group(o.query_heads / o.kv.kv_heads),
        inverse((1 << 16) / group + 1) {}
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
  __device__ __forceinline__ uint32_t PageOf(int token) const {
    return static_cast<uint32_t>(__shfl_sync(kFullMask, page, token / kPageTokens));
  }
  /// Steps of 16 positions up to the last visible one.
  __device__ __forceinline__ int steps() const { return (last + 15) / 16; }
  /// Positions from `start` that earlier steps of the engine have written.
  __device__ __forceinline__ int old() const {
    const int written = tile.first_position - start;
    return written < 0 ? 0 : written < last ? written : last;
  }
  __device__ __forceinline__ int rows() const { return tile.queries * group; }
  /// Whether every row sees all of the split.
  __device__ __forceinline__ bool SeesAll(int window) const {
    const int earliest = tile.first_position - start;
    return earliest >= kSplitTokens - 1 && (window <= 0 || earliest + tile.queries - window <= 0);
  }
  /// row / group: exact, as 128 rows times 16 stay below 2^16.
  __device__ __forceinline__ int QueryInTile(int row) const { return row * inverse >> 16; }
  __device__ __forceinline__ int64_t QueryOf(int row) const {
    return tile.first_row + QueryInTile(row);
  }
  __device__ __forceinline__ int HeadOf(int row) const {
    return kv_head * group + row - QueryInTile(row) * group;
  }
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

/// Apart, as all kernels have these instructions and few models a cap: others would wait for them
/// to pass by.
inline __device__ __noinline__ float CappedScore(float score, float scale, float softcap) {
  return softcap * tanhf(score * scale / softcap);
}

inline constexpr int kAttentionWarps = 4;
inline constexpr int kAttentionThreads = kAttentionWarps * kWarpThreads;

/// One block's split: kDim is head_dim padded to 32, 64, 128 or 256, kTiles its rows / 16,
/// kPositions those of a chunk.
template <int kDimPadded, int kTilesOf, int kPositionsOf = kSplitTokens>
struct SplitAttention {
  static constexpr int kDim = kDimPadded;
  static constexpr int kTiles = kTilesOf;
  static constexpr int kRows = 16 * kTiles;
  static constexpr int kPositions = kPositionsOf;
  static constexpr int kHalves = kSplitTokens / kPositions;
  static constexpr int kChunk = kDim < 64 ? kDim : 64;  // columns
  static constexpr int kChunks = kDim / kChunk;         // of all positions
  static constexpr int kParts = kChunks * kHalves;      // chunks of keys, and as many of values
  static constexpr int kPieces = kChunk / 8;            // of 16 bytes
  static constexpr int kWarpTokens = kSplitTokens / kAttentionWarps;
  static constexpr int kScores = kWarpTokens / 8;  // tiles of eight positions of a warp
  static constexpr int kOutputs = kChunk / 8 / kAttentionWarps;  // tiles of a chunk's columns
  static constexpr int kStage = kPositions * kChunk;             // elements
  static constexpr size_t kBytes = sizeof(bf16) * (2 * kStage + kRows * (kDim + kSplitTokens)) +
                                   sizeof(float) * 2 * kAttentionWarps * kRows;

  // Blocks of a multiprocessor that registers have to suffice for, where chunks are short so that
  // more of them fit. 0: the compiler chooses.
  static constexpr int kBlocks = kHalves > 1 ? 4 : 0;
  static_assert(kHalves <= 2 && kPositions % kWarpTokens == 0);

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

  /// Elements of a row of queries, and of a position of a chunk; `column` of head_dim.
  __device__ __forceinline__ bf16& Query(int row, int column) const {
    const int in_chunk = column % kChunk;
    return queries[column / kChunk * kRows * kChunk + At(row, in_chunk / 8) + in_chunk % 8];
  }
  /// The chunk that a position's column of keys or values comes in.
  static __device__ __forceinline__ int ChunkOf(int token, int column, bool is_value) {
    return (column / kChunk + (is_value ? kChunks : 0)) * kHalves + token / kPositions;
  }
  __device__ __forceinline__ bf16& Staged(int chunk, int token, int column) const {
    const int in_chunk = column % kChunk;
    return stages[chunk % 2 * kStage + At(token % kPositions, in_chunk / 8) + in_chunk % 8];
  }
  /// The first of a chunk's positions.
  static __device__ __forceinline__ int BeginOf(int chunk) { return chunk % kHalves * kPositions; }

  /// What a thread copies of chunk i of a split (keys first, then values): a piece of every eighth
  /// or so of its rows.
  struct Pieces {
    static constexpr int kTokens = kAttentionThreads / kPieces;  // copied at a time
    int token;                                                   // the first
    int piece;
    int column;
    bf16* stage;
    int begin;            // of the chunk's positions
    const uint8_t* from;  // in page 0
    uint32_t page_bytes;

    __device__ __forceinline__ Pieces(const SplitAttention& block, int i, int kv_head)
        : token(static_cast<int>(threadIdx.x) / kPieces),
          piece(static_cast<int>(threadIdx.x) % kPieces),
          column(i / kHalves % kChunks * kChunk + piece * 8),
          stage(block.stages + i % 2 * kStage),
          begin(BeginOf(i)),
          page_bytes(static_cast<uint32_t>(block.o.kv.page_stride) *
                     static_cast<uint32_t>(sizeof(bf16))) {
      const KvPages<bf16>& kv = block.o.kv;
      const bf16* tile = i >= kParts ? kv.values(0, kv_head) : kv.keys(0, kv_head);
      from = reinterpret_cast<const uint8_t*>(tile + token % kPageTokens * kv.head_dim + column);
    }
    __device__ __forceinline__ void Copy(int at, uint32_t page, const bf16* elsewhere,
                                         bool live) const {
      const uint8_t* source = from + static_cast<uint64_t>(page) * page_bytes;
      CopyAsync16(stage + At(at - begin + token, piece),
                  live ? source : reinterpret_cast<const uint8_t*>(elsewhere), live);
    }
  };

  /// What positions [from, to) have of a chunk. What no row sees becomes zeros: it may belong to
  /// another sequence by now, and a NaN there must not reach this one.
  __device__ __forceinline__ void CopyPart(int i, const AttentionPlace& place, int from,
                                           int to) const {
    const Pieces pieces(*this, i, place.kv_head);
    if (kHalves > 1 && from < pieces.begin) from = pieces.begin;
    if (kHalves > 1 && to > pieces.begin + kPositions) to = pieces.begin + kPositions;
#pragma unroll 1  // instructions that are not there yet cost a short step more than the loop
    for (int at = from / Pieces::kTokens * Pieces::kTokens; at < to; at += Pieces::kTokens) {
      const int token = at + pieces.token;
      const uint32_t page = place.PageOf(token);
      if (token < from || token >= to) continue;
      pieces.Copy(at, page, o.qkv,
                  token >= place.first && token < place.last && pieces.column < o.kv.head_dim);
    }
  }
  /// What positions [0, to) have of a chunk.
  __device__ __forceinline__ void CopyChunk(int i, const AttentionPlace& place, int to) const {
    if (to != kSplitTokens || place.first != 0 || place.last != kSplitTokens ||
        o.kv.head_dim != kDim) {
      return CopyPart(i, place, 0, to);
    }
    const Pieces pieces(*this, i, place.kv_head);
#pragma unroll
    for (int copied = 0; copied < kPositions; copied += Pieces::kTokens) {
      const int at = pieces.begin + copied;
      pieces.Copy(at, place.PageOf(at + pieces.token), nullptr, true);
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
  /// The first two chunks of a split: what earlier steps wrote before the predecessor has ended
  /// (the copy of a step's inputs lies between, and starts when the step before has ended), what
  /// this step did after that.
  __device__ __forceinline__ void CopyOld(const AttentionPlace& place) const {
#pragma unroll 1
    for (int i = 0; i < 2; ++i) CopyChunk(i, place, place.old());
  }
  __device__ __forceinline__ void CopyNew(const AttentionPlace& place) const {
    CopyQueries(place);
#pragma unroll 1
    for (int i = 0; i < 2; ++i) {
      CopyPart(i, place, place.old(), place.steps() * 16);
      CommitCopies();
    }
  }

  /// Adds a chunk's part to the scores of this warp's positions.
  __device__ __forceinline__ void Score(int chunk, int last, Scores& scores) const {
    const int begin = BeginOf(chunk);
    if (kHalves > 1 && warp * kWarpTokens / kPositions != chunk % kHalves) return;
    const bf16* keys = stages + chunk % 2 * kStage;
    const bf16* rows = queries + chunk / kHalves * kRows * kChunk;
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
        LdMatrix(key, keys + At(token - begin + lane % 8, d / 8 + lane / 8));
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

  /// How many of the two rows of a thread's fragments are there: a tile of a decoding sequence has
  /// mostly eight at most.
  static __device__ __forceinline__ int HalvesOf(const AttentionPlace& place) {
    return kTiles == 1 && place.rows() <= 8 ? 1 : 2;
  }
  /// Whether tiles of eight positions from j on lie behind what is visible, in whole steps.
  __device__ __forceinline__ bool IsBehind(const AttentionPlace& place, int j) const {
    return warp * kWarpTokens + 8 * j >= 16 * place.steps();
  }

  __device__ __forceinline__ void Cap(const AttentionPlace& place, Scores& scores) const {
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int j = 0; j < kScores; ++j) {
        if (IsBehind(place, j)) break;
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          if (i / 2 < HalvesOf(place)) {
            scores[m][j][i] = CappedScore(scores[m][j][i], o.scale, o.softcap);
          }
        }
      }
    }
  }
  /// Hides what a row does not see.
  __device__ __forceinline__ void Hide(const AttentionPlace& place, Scores& scores) const {
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int row = RowOf(m, 2 * half);
        const int position = place.tile.first_position + place.QueryInTile(row) - place.start;
        const int column = warp * kWarpTokens + 2 * (lane % 4);
        const int last = (position < place.last ? position : place.last - 1) - column;
        const int first = (o.window > 0 ? position - o.window + 1 : 0) - column;
#pragma unroll
        for (int j = 0; j < kScores; ++j) {
#pragma unroll
          for (int i = 0; i < 2; ++i) {
            float& score = scores[m][j][2 * half + i];
            score = 8 * j + i >= first && 8 * j + i <= last ? score : MinusInfinity();
          }
        }
      }
    }
  }
  /// Caps and hides scores and leaves each row's maximum over the warp in `maxima`.
  __device__ __forceinline__ void Mask(const AttentionPlace& place, Scores& scores) const {
    if (o.softcap > 0) Cap(place, scores);
    if (!place.SeesAll(o.window)) Hide(place, scores);
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (half == HalvesOf(place)) break;
        float largest = MinusInfinity();
#pragma unroll
        for (int j = 0; j < kScores; ++j) {
          if (IsBehind(place, j)) break;
          largest = fmaxf(largest, fmaxf(scores[m][j][2 * half], scores[m][j][2 * half + 1]));
        }
        largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(kFullMask, largest, 2));
        if (lane % 4 == 0) maxima[warp * kRows + RowOf(m, 2 * half)] = largest;
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
  __device__ __forceinline__ void Exponentiate(const AttentionPlace& place,
                                               const Scores& scores) const {
#pragma unroll
    for (int m = 0; m < kTiles; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        if (half == HalvesOf(place)) break;
        const int row = RowOf(m, 2 * half);
        const float maximum = MaximumOf(row);
        const float base = maximum == MinusInfinity() ? 0.0f : __fmul_rn(maximum, factor);
        float sum = 0;
#pragma unroll
        for (int j = 0; j < kScores; ++j) {
          if (IsBehind(place, j)) break;
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

  /// Adds probabilities times a chunk of values, for this warp's quarter of its columns.
  __device__ __forceinline__ void Weigh(int chunk, int steps,
                                        float (&outputs)[kTiles][kOutputs][4]) const {
    const bf16* values = stages + chunk % 2 * kStage;
    const int begin = BeginOf(chunk);
    const int piece = warp * kOutputs + (kOutputs == 2 ? lane / 16 : 0);
    if (kHalves > 1 && 16 * steps > begin + kPositions) steps = (begin + kPositions) / 16;
#pragma unroll 4
    for (int step = begin / 16; step < steps; ++step) {
      uint32_t v[4];
      LdMatrixTransposed(v, values + At(16 * step - begin + lane % 16, piece));
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
      if (i < 2 * kParts) {
        CopyChunk(i, place, place.steps() * 16);
      } else {
        next(i - 2 * kParts);
      }
      CommitCopies();
    };
    Scores scores = {};
#pragma unroll 1
    for (int chunk = 0; chunk < kParts - 1; ++chunk) {
      WaitForCopies<1>();
      __syncthreads();
      Score(chunk, place.last, scores);
      __syncthreads();
      CopyChunk(chunk + 2, place, place.steps() * 16);
      CommitCopies();
    }
    WaitForCopies<1>();
    __syncthreads();
    Score(kParts - 1, place.last, scores);
    Mask(place, scores);
    __syncthreads();
    refill(kParts + 1);
    Exponentiate(place, scores);
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
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        const int i = kParts + chunk * kHalves + half;
        WaitForCopies<1>();
        __syncthreads();
        Weigh(i, place.steps(), outputs[chunk]);
        __syncthreads();
        refill(i + 2);
      }
    }
  }
};

/// What a block has attended so far, split after split.
template <typename Split>
struct SplitTotals {
  static constexpr int kTiles = Split::kTiles;

  typename Split::Outputs outputs = {};
  SoftmaxPart parts[kTiles][2];

  __device__ __forceinline__ SplitTotals() {
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

/// Calls what with a whole number for head_dim padded to what a kernel is made for.
template <typename What>
cudaError_t ForHeadDim(int head_dim, const What& what) {
  if (head_dim <= 32) return what(std::integral_constant<int, 32>());
  if (head_dim <= 64) return what(std::integral_constant<int, 64>());
  if (head_dim <= 128) return what(std::integral_constant<int, 128>());
  return what(std::integral_constant<int, 256>());
}

}  // namespace neurogrid::kernels
