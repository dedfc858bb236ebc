// Attention of a few query rows over pages, written once over Simd. Rows share each load of K and
// V.
//
// A split of 256 positions: all scores, their maximum, powers of two and their sum in 16 lanes,
// then one chain of products with V for each output. Which tiles a row's neighbours make it visit
// cannot matter: masked scores give probabilities of exactly zero.
#pragma once

#include <algorithm>
#include <cfloat>

#include "engine/cpu/kernels.h"
#include "engine/cpu/kernels_math.h"

namespace neurogrid {
namespace {

constexpr int kTileTokens = 16;
constexpr int kGroupTiles =
    4;  // of keys in L1; of scores whose exponentials are taken side by side
constexpr int kGroupTokens = kGroupTiles * kTileTokens;

/// Where the parts of a worker's space begin.
struct AttentionWork {
  AttentionWork(float* work, int padded_dim)
      : scores(work),
        probabilities(reinterpret_cast<uint8_t*>(work + kAttentionJobRowsMax * kSplitTokens)),
        queries(reinterpret_cast<uint8_t*>(work + 2 * kAttentionJobRowsMax * kSplitTokens)),
        state(work + 2 * kAttentionJobRowsMax * kSplitTokens + kAttentionJobRowsMax * padded_dim) {}

  float* scores;           // [rows][256]
  uint8_t* probabilities;  // [rows][256] bf16 or f32
  uint8_t* queries;        // [rows][head_dim] bf16 or f32
  float* state;            // of one split
};

/// The tokens of one split that some row sees, relative to the split's start.
struct SplitRange {
  int first = 0;
  int last = 0;
  int newest_tile = 0;             // the job's last, perhaps of a later split
  const int32_t* pages = nullptr;  // of the split's first tile

  int first_tile() const { return first / kTileTokens; }
  int last_tile() const { return (last + kTileTokens - 1) / kTileTokens; }
  /// Of the first group of tiles.
  int first_token() const { return first / kGroupTokens * kGroupTokens; }
};

/// Some tiles of a split and the rows of one kv head.
struct TileSpan {
  int head = 0;
  int first = 0;
  int last = 0;
};

inline float* SumsOf(float* state) { return state + kAttentionJobRowsMax; }
inline float* OutputsOf(float* state) { return state + 2 * kAttentionJobRowsMax; }
inline const float* OutputsOf(const float* state) { return state + 2 * kAttentionJobRowsMax; }

/// Bytes from a job's keys or values to those of a tile.
inline int64_t TileOffset(const AttentionJob& job, const SplitRange& range, int head, int tile) {
  return range.pages[tile] * job.stride_bytes + head * job.tile_bytes;
}

/// What rows of tiles ask for while they are computed.
enum class Fetch { kNothing, kValues, kNextKeys };

/// Scores of kRows rows and kTiles tiles of 16 tokens, one chain over head_dim each.
template <class Steps, int kRows, int kTiles, Fetch kFetch>
void ScoreTiles(const AttentionJob& job, const SplitRange& range, int head, const uint8_t* queries,
                int tile, float* scores) {
  const int64_t row_bytes = 4 * (job.head_dim / Steps::kElements);
  const uint8_t* keys[kTiles];
#pragma GCC unroll 4
  for (int t = 0; t < kTiles; ++t) {
    keys[t] = job.keys + TileOffset(job, range, head, tile + t);
  }
  const uint8_t* ahead[kTiles];
#pragma GCC unroll 4
  for (int t = 0; t < kTiles; ++t) {
    ahead[t] = kFetch == Fetch::kNextKeys
                   ? job.keys + TileOffset(job, range, head,
                                           std::min(tile + kTiles + t, range.newest_tile))
                   : keys[t] + (job.values - job.keys);
  }
  Simd::Float sum[kRows][kTiles];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int t = 0; t < kTiles; ++t) sum[r][t] = Simd::Zero();
  }
  for (int64_t offset = 0; offset < row_bytes; offset += 4) {
    typename Steps::Weight key[kTiles];
#pragma GCC unroll 4
    for (int t = 0; t < kTiles; ++t) key[t] = Steps::Load(keys[t] + 16 * offset);
    if constexpr (kFetch != Fetch::kNothing) {
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) __builtin_prefetch(ahead[t] + 16 * offset, 0, 2);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const typename Steps::Activation query = Steps::Broadcast(queries + r * row_bytes + offset);
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) sum[r][t] = Steps::Dot(sum[r][t], key[t], query);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int t = 0; t < kTiles; ++t) {
      Simd::Store(scores + kSplitTokens * r + kTileTokens * (tile + t), sum[r][t]);
    }
  }
}

/// Scores of a span's tiles for kRows rows from its head's row `row` on.
template <class Steps, int kRows>
void ScoreRows(const AttentionJob& job, const SplitRange& range, const AttentionWork& work,
               const TileSpan& span, int row) {
  constexpr int kTiles = Simd::kTileColumns<kRows>;
  const int64_t first_row = span.head * job.head_rows() + row;
  const uint8_t* queries = work.queries + first_row * 4 * (job.head_dim / Steps::kElements);
  float* scores = work.scores + kSplitTokens * first_row;
  // The first rows that pass over some tiles ask for their values, the second for the next keys.
  const bool second = row > 0 && row <= Simd::kTileRows;
  int tile = span.first;
  for (; tile + kTiles <= span.last; tile += kTiles) {
    if (row == 0 && !job.streams()) {
      ScoreTiles<Steps, kRows, kTiles, Fetch::kValues>(job, range, span.head, queries, tile,
                                                       scores);
    } else if (second) {
      ScoreTiles<Steps, kRows, kTiles, Fetch::kNextKeys>(job, range, span.head, queries, tile,
                                                         scores);
    } else {
      ScoreTiles<Steps, kRows, kTiles, Fetch::kNothing>(job, range, span.head, queries, tile,
                                                        scores);
    }
  }
  for (; tile < span.last; ++tile) {
    ScoreTiles<Steps, kRows, 1, Fetch::kNothing>(job, range, span.head, queries, tile, scores);
  }
}

/// Caps one row's scores where kCapped, masks them and returns the largest of each lane. Walks
/// whole groups of tiles: what lies in tiles beside the range is masked like any other token.
/// The row sees the tokens [first, last) of the split.
template <bool kCapped>
[[gnu::noinline]] Simd::Float MaskScores(const AttentionJob& job, const SplitRange& range,
                                         int first, int last, float* scores) {
  const Simd::Float masked = Simd::Set(-__builtin_inff());
  const Simd::Float scale = Simd::Set(job.scale);
  const Simd::Float cap = Simd::Set(job.softcap);
  Simd::Float largest = masked;
  for (int token = range.first_token(); token < range.last; token += kGroupTokens) {
    const bool whole = first <= token && token + kGroupTokens <= last;
    Simd::Float score[kGroupTiles];
#pragma GCC unroll 4
    for (int t = 0; t < kGroupTiles; ++t) score[t] = Simd::Load(scores + token + kTileTokens * t);
    if constexpr (kCapped) {
#pragma GCC unroll 4
      for (Simd::Float& s : score) s = Simd::Mul(cap, Tanh(Simd::Div(Simd::Mul(s, scale), cap)));
    }
    if (!whole) {
      for (int t = 0; t < kGroupTiles; ++t) {
        const int tile = token + kTileTokens * t;
        score[t] = Simd::KeepLanes(score[t], first - tile, last - tile, masked);
      }
    }
    if (kCapped || !whole) {
#pragma GCC unroll 4
      for (int t = 0; t < kGroupTiles; ++t) Simd::Store(scores + token + kTileTokens * t, score[t]);
    }
    const Simd::Float first_two = Simd::Max(score[0], score[1]);
    largest = Simd::Max(largest, Simd::Max(first_two, Simd::Max(score[2], score[3])));
  }
  return largest;
}

/// Each row's probabilities, 2 to the power of factor * score - base, and their sum in each lane.
template <class Steps>
[[gnu::noinline]] void Exponentials(const SplitRange& range, int rows, float factor,
                                    const float* bases, const AttentionWork& work,
                                    float (*totals)[16]) {
  const Simd::Float f = Simd::Set(factor);
  for (int row = 0; row < rows; ++row) {
    const float* const scores = work.scores + kSplitTokens * row;
    uint8_t* const probabilities =
        work.probabilities + int64_t{row} * 4 * kSplitTokens / Steps::kElements;
    // A row that sees nothing here gets zeros.
    const Simd::Float base = Simd::Set(bases[row] < -FLT_MAX ? 0 : -bases[row]);
    Simd::Float total = Simd::Zero();
    for (int token = range.first_token(); token < range.last; token += kGroupTokens) {
      Simd::Float e[kGroupTiles];
#pragma GCC unroll 4
      for (int t = 0; t < kGroupTiles; ++t) {
        e[t] = Simd::Fma(Simd::Load(scores + token + kTileTokens * t), f, base);
      }
      Exp2Each(e);
#pragma GCC unroll 4
      for (int t = 0; t < kGroupTiles; ++t) {
        total = Simd::Add(total, e[t]);
        StoreAs(probabilities + (token + kTileTokens * t) * (4 / Steps::kElements),
                Steps::kElements == 2, e[t]);
      }
    }
    Simd::Store(totals[row], total);
  }
}

/// outputs[kRows][kColumns vectors from `column`] = probabilities times the values of the span,
/// in one chain with the tiles before it.
/// kMasked: the one vector is the last of a head_dim that is no multiple of 16.
template <class Steps, int kRows, int kColumns, bool kMasked>
void WeighColumns(const AttentionJob& job, const SplitRange& range, const TileSpan& span,
                  const uint8_t* probabilities, int column, float* outputs) {
  constexpr int kTileSteps = kTileTokens / Steps::kElements;
  constexpr int64_t kRowBytes = 4 * kSplitTokens / Steps::kElements;
  const int lanes = job.head_dim % 16;
  const auto load = [lanes](const uint8_t* p) {
    if constexpr (kMasked) return Steps::LoadFirst(p, lanes);
    return Steps::Load(p);
  };
  const int dim = job.padded_dim();
  const bool continues = span.first > range.first_tile();
  Simd::Float sum[kRows][kColumns];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      sum[r][c] = continues ? Simd::Load(outputs + r * dim + 16 * (column + c)) : Simd::Zero();
    }
  }
  const auto add_step = [&](const typename Steps::Weight* value, const uint8_t* p) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const typename Steps::Activation probability = Steps::Broadcast(p + r * kRowBytes);
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) sum[r][c] = Steps::Dot(sum[r][c], value[c], probability);
    }
  };
  const int64_t step_bytes = int64_t{4} * job.head_dim;
  const int whole_steps = range.last / Steps::kElements;
  typename Steps::Weight value[kColumns];
  for (int tile = span.first; tile < span.last; ++tile) {
    const uint8_t* v = job.values + TileOffset(job, range, span.head, tile) + 64 * column;
    const uint8_t* p = probabilities + 4 * kTileSteps * tile;
    const int left = whole_steps - kTileSteps * tile;
    const int steps = left < kTileSteps ? left : kTileSteps;
    for (int s = 0; s < steps; ++s, v += step_bytes, p += 4) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) value[c] = load(v + 64 * c);
      add_step(value, p);
    }
    if (steps < kTileSteps && range.last % Steps::kElements != 0) {
      // The other token of the last pair is unwritten: whatever lies there must not be multiplied.
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) value[c] = Steps::FirstElements(load(v + 64 * c));
      add_step(value, p);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      // + 0 turns a flushed -0 into the +0 that a shorter walk over the same tokens would give.
      Simd::Store(outputs + r * dim + 16 * (column + c), Simd::Add(sum[r][c], Simd::Zero()));
    }
  }
}

template <class Steps, int kRows>
void WeighRows(const AttentionJob& job, const SplitRange& range, const AttentionWork& work,
               const TileSpan& span, int row) {
  constexpr int kColumns = Simd::kTileColumns<kRows>;
  const int64_t first_row = span.head * job.head_rows() + row;
  const uint8_t* p = work.probabilities + first_row * 4 * kSplitTokens / Steps::kElements;
  float* outputs = OutputsOf(work.state) + first_row * job.padded_dim();
  const int whole = job.head_dim / 16;
  int column = 0;
  for (; column + kColumns <= whole; column += kColumns) {
    WeighColumns<Steps, kRows, kColumns, false>(job, range, span, p, column, outputs);
  }
  for (; column < whole; ++column) {
    WeighColumns<Steps, kRows, 1, false>(job, range, span, p, column, outputs);
  }
  if (job.head_dim % 16 != 0) {
    WeighColumns<Steps, kRows, 1, true>(job, range, span, p, column, outputs);
  }
}

template <int kRows, class Run>
void RunRowsOf(int rows, const TileSpan& span, int row, const Run& run) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      run.template operator()<kRows>(span, row);
    } else {
      RunRowsOf<kRows - 1>(rows, span, row, run);
    }
  }
}

/// Calls run.operator()<height>(span, row) for every kv head's rows, in tiles of nearly equal
/// height, over the split's tiles: `tiles` of them at a time.
template <class Run>
void RunSpans(const AttentionJob& job, const SplitRange& range, int tiles, const Run& run) {
  const int rows = job.head_rows();
  const int blocks = (rows + Simd::kTileRows - 1) / Simd::kTileRows;
  for (int tile = range.first_tile(); tile < range.last_tile(); tile += tiles) {
    const int last_tile = std::min(tile + tiles, range.last_tile());
    for (int head = 0; head < job.kv_heads; ++head) {
      const TileSpan span = {head, tile, last_tile};
      for (int block = 0; block < blocks; ++block) {
        const int first = rows * block / blocks;
        RunRowsOf<Simd::kTileRows>(rows * (block + 1) / blocks - first, span, first, run);
      }
    }
  }
}

/// Each row's probabilities relative to its maximum, from the scores in work. Maxima are logarithms
/// to base 2. Lanes are put together for all rows at once, so that no row waits for another's.
template <class Steps>
void TakeExponentials(const AttentionJob& job, const SplitRange& range, int start,
                      const AttentionWork& work) {
  alignas(64) float lanes[kAttentionJobRowsMax][16];
  float* const maxima = work.state;
  float* const sums = SumsOf(work.state);
  const int rows = job.rows();
  const auto mask = job.softcap > 0 ? MaskScores<true> : MaskScores<false>;
  for (int row = 0, query = 0; row < rows; query = query + 1 < job.queries ? query + 1 : 0) {
    const int position = job.first_position + query;
    for (const int last_row = row + job.heads; row < last_row; ++row) {
      Simd::Store(lanes[row], mask(job, range, job.first_key(position) - start,
                                   position + 1 - start, work.scores + kSplitTokens * row));
    }
  }
  constexpr float kLog2E = 1.44269504088896341f;
  const float factor = job.softcap > 0 ? kLog2E : job.scale * kLog2E;
  for (int row = 0; row < rows; ++row) maxima[row] = factor * MaxOfLanes(Simd::Load(lanes[row]));
  Exponentials<Steps>(range, rows, factor, maxima, work, lanes);
  for (int row = 0; row < rows; ++row) sums[row] = SumOfLanes(Simd::Load(lanes[row]));
}

/// work.state = the softmax state of split `split`.
/// Several kv heads: memory is the bound, and a page's tiles of all heads are read as they lie,
/// page after page. One: its rows pass over a few tiles of keys while these lie in L1, and keep
/// their outputs in registers over all values.
template <class Steps>
void AttendSplit(const AttentionJob& job, int split, const AttentionWork& work) {
  const int start = split * kSplitTokens;
  const int first_key = job.first_key(job.first_position) - start;
  const int last_key = job.last_position() + 1 - start;
  SplitRange range;
  range.first = first_key > 0 ? first_key : 0;
  range.last = last_key < kSplitTokens ? last_key : kSplitTokens;
  range.newest_tile = (last_key - 1) / kTileTokens;
  range.pages = job.pages + start / kTileTokens;
  const bool streams = job.streams();
  RunSpans(job, range, streams ? 1 : kGroupTiles, [&]<int kRows>(const TileSpan& span, int row) {
    ScoreRows<Steps, kRows>(job, range, work, span, row);
  });
  TakeExponentials<Steps>(job, range, start, work);
  RunSpans(job, range, streams ? 1 : kSplitTokens / kTileTokens,
           [&]<int kRows>(const TileSpan& span, int row) {
             WeighRows<Steps, kRows>(job, range, work, span, row);
           });
}

/// With a row that has seen nothing (maximum minus infinity, zeros) this is a copy, bit for bit.
void MergeAttention(const AttentionJob& job, float* state, const float* next) {
  alignas(64) float old_factor[kAttentionJobRowsMax];
  alignas(64) float next_factor[kAttentionJobRowsMax];
  constexpr int kSums = kAttentionJobRowsMax;
  for (int row = 0; row < job.rows(); row += 16) {
    const Simd::Float old_maximum = Simd::Load(state + row);
    const Simd::Float next_maximum = Simd::Load(next + row);
    const Simd::Float maximum = Simd::Max(old_maximum, next_maximum);
    const Simd::Float base = Simd::Max(Simd::Set(-FLT_MAX), maximum);
    const Simd::Float a = Exp2(Simd::Sub(old_maximum, base));
    const Simd::Float b = Exp2(Simd::Sub(next_maximum, base));
    Simd::Store(old_factor + row, a);
    Simd::Store(next_factor + row, b);
    Simd::Store(state + row, maximum);
    Simd::Store(state + kSums + row, Simd::Fma(Simd::Load(next + kSums + row), b,
                                               Simd::Mul(Simd::Load(state + kSums + row), a)));
  }
  float* outputs = OutputsOf(state);
  const float* next_outputs = OutputsOf(next);
  const int dim = job.padded_dim();
  for (int row = 0; row < job.rows(); ++row) {
    const Simd::Float a = Simd::Set(old_factor[row]);
    const Simd::Float b = Simd::Set(next_factor[row]);
    for (int64_t i = int64_t{row} * dim; i < int64_t{row + 1} * dim; i += 16) {
      Simd::Store(outputs + i, Simd::Fma(Simd::Load(next_outputs + i), b,
                                         Simd::Mul(Simd::Load(outputs + i), a)));
    }
  }
}

/// A row's query and query head, counted from the job's first.
inline int64_t QueryOf(const AttentionJob& job, int row) {
  return row % job.head_rows() / job.heads;
}
inline int64_t HeadOf(const AttentionJob& job, int row) {
  return row / job.head_rows() * job.heads + row % job.heads;
}

void Attend(const AttentionJob& job, int first_split, int last_split, float* state,
            float* work_floats) {
  const AttentionWork work(work_floats, job.padded_dim());
  const size_t size = job.is_bf16 ? 2 : 4;
  const size_t head_bytes = size * static_cast<size_t>(job.head_dim);
  for (int row = 0; row < job.rows(); ++row) {
    const uint8_t* q = job.q + QueryOf(job, row) * job.q_stride_bytes +
                       HeadOf(job, row) * static_cast<int64_t>(head_bytes);
    std::memcpy(work.queries + static_cast<size_t>(row) * head_bytes, q, head_bytes);
  }
  // Slots beyond the rows are merged along with them, so they must hold numbers.
  for (int i = 0; i < kAttentionJobRowsMax; ++i) {
    state[i] = work.state[i] = -FLT_MAX;
    SumsOf(state)[i] = SumsOf(work.state)[i] = 0;
  }
  for (int split = first_split; split < last_split; ++split) {
    AttentionWork to = work;
    if (split == first_split) to.state = state;
    if (job.is_bf16) {
      AttendSplit<Bf16Steps>(job, split, to);
    } else {
      AttendSplit<F32Steps>(job, split, to);
    }
    if (split != first_split) MergeAttention(job, state, to.state);
  }
}

void FinishAttention(const AttentionJob& job, const float* state) {
  const int64_t size = job.is_bf16 ? 2 : 4;
  for (int row = 0; row < job.rows(); ++row) {
    const float* outputs = OutputsOf(state) + int64_t{row} * job.padded_dim();
    uint8_t* out =
        job.out + QueryOf(job, row) * job.out_stride_bytes + HeadOf(job, row) * job.head_dim * size;
    const Simd::Float sum = Simd::Set(state[kAttentionJobRowsMax + row]);
    for (int i = 0; i < job.head_dim; i += 16) {
      StoreSome(out + i * size, job.is_bf16, Simd::Div(Simd::Load(outputs + i), sum),
                job.head_dim - i);
    }
  }
}

}  // namespace
}  // namespace neurogrid
