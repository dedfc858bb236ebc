// Attention of a few query rows over pages, written once over Simd. Rows share each load of K and
// V.
//
// A split of 256 positions: all scores, their maximum, exponentials and their sum in 16 lanes, then
// one chain of products with V for each output. Which tiles a row's neighbours make it visit cannot
// matter: masked scores give probabilities of exactly zero.
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
        probabilities(reinterpret_cast<uint8_t*>(work + kAttentionRowsMax * kSplitTokens)),
        queries(reinterpret_cast<uint8_t*>(work + 2 * kAttentionRowsMax * kSplitTokens)),
        state(work + 2 * kAttentionRowsMax * kSplitTokens + kAttentionRowsMax * padded_dim) {}

  float* scores;           // [rows][256]
  uint8_t* probabilities;  // [rows][256] bf16 or f32
  uint8_t* queries;        // [rows][head_dim] bf16 or f32
  float* state;            // of one split
};

/// The tokens of one split that some row sees, relative to the split's start.
struct SplitRange {
  int first = 0;
  int last = 0;
  const int32_t* pages = nullptr;  // of the split's first tile

  int first_tile() const { return first / kTileTokens; }
  int last_tile() const { return (last + kTileTokens - 1) / kTileTokens; }
  /// Of the first group of tiles.
  int first_token() const { return first / kGroupTokens * kGroupTokens; }
};

inline float* OutputsOf(float* state) { return state + 64; }
inline const float* OutputsOf(const float* state) { return state + 64; }

inline const uint8_t* KeyTile(const AttentionJob& job, const SplitRange& range, int tile) {
  return job.pages_data + range.pages[tile] * job.page_stride_bytes;
}

/// Scores of kRows rows and kTiles tiles of 16 tokens, one chain over head_dim each.
/// kFetchValues: asks for the tiles' values on the way. Pieces of a page are too short for the
/// hardware to see a stream; fetching the next keys as well gains nothing.
template <class Steps, int kRows, int kTiles, bool kFetchValues>
void ScoreTiles(const AttentionJob& job, const SplitRange& range, const uint8_t* queries, int tile,
                float* scores) {
  const int64_t row_bytes = 4 * (job.head_dim / Steps::kElements);
  const uint8_t* keys[kTiles];
#pragma GCC unroll 4
  for (int t = 0; t < kTiles; ++t) keys[t] = KeyTile(job, range, tile + t);
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
    if constexpr (kFetchValues) {
#pragma GCC unroll 4
      for (int t = 0; t < kTiles; ++t) {
        __builtin_prefetch(keys[t] + job.tile_bytes + 16 * offset, 0, 2);
      }
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

/// Scores of the tiles [tile, last_tile) for kRows rows from `row` on.
template <class Steps, int kRows>
void ScoreRows(const AttentionJob& job, const SplitRange& range, const AttentionWork& work, int row,
               int tile, int last_tile) {
  constexpr int kTiles = Simd::kTileColumns<kRows>;
  const uint8_t* queries = work.queries + int64_t{row} * 4 * (job.head_dim / Steps::kElements);
  float* scores = work.scores + kSplitTokens * row;
  for (; tile + kTiles <= last_tile; tile += kTiles) {
    if (row == 0) {
      ScoreTiles<Steps, kRows, kTiles, true>(job, range, queries, tile, scores);
    } else {
      ScoreTiles<Steps, kRows, kTiles, false>(job, range, queries, tile, scores);
    }
  }
  for (; tile < last_tile; ++tile) {
    ScoreTiles<Steps, kRows, 1, false>(job, range, queries, tile, scores);
  }
}

/// Scales, caps and masks one row's scores and returns the largest of each lane. Walks whole groups
/// of tiles: what lies in tiles beside the range is masked like any other token.
/// The row sees the tokens [first, last) of the split.
template <bool kCapped>
[[gnu::noinline]] Simd::Float MaskScores(const AttentionJob& job, const SplitRange& range,
                                         int first, int last, float* scores) {
  const Simd::Float masked = Simd::Set(-__builtin_inff());
  const Simd::Float scale = Simd::Set(job.scale);
  const Simd::Float cap = Simd::Set(job.softcap);
  Simd::Float largest = masked;
  const auto mask_tile = [&](int token, bool whole) {
    Simd::Float score = Simd::Mul(Simd::Load(scores + token), scale);
    if constexpr (kCapped) score = Simd::Mul(cap, Tanh(Simd::Div(score, cap)));
    if (!whole) score = Simd::KeepLanes(score, first - token, last - token, masked);
    Simd::Store(scores + token, score);
    largest = Simd::Max(largest, score);
  };
  for (int token = range.first_token(); token < range.last; token += kGroupTokens) {
    if (first <= token && token + kGroupTokens <= last) {
#pragma GCC unroll 4
      for (int t = 0; t < kGroupTiles; ++t) mask_tile(token + kTileTokens * t, true);
    } else {
      for (int t = 0; t < kGroupTiles; ++t) mask_tile(token + kTileTokens * t, false);
    }
  }
  return largest;
}

/// Turns masked scores into probabilities relative to e^base and returns their sum in each lane.
template <class Steps>
[[gnu::noinline]] Simd::Float Exponentials(const SplitRange& range, Simd::Float base,
                                           const float* scores, uint8_t* probabilities) {
  Simd::Float total = Simd::Zero();
  for (int token = range.first_token(); token < range.last; token += kGroupTokens) {
    Simd::Float e[kGroupTiles];
#pragma GCC unroll 4
    for (int t = 0; t < kGroupTiles; ++t) {
      e[t] = Simd::Sub(Simd::Load(scores + token + kTileTokens * t), base);
    }
    ExpEach(e);
#pragma GCC unroll 4
    for (int t = 0; t < kGroupTiles; ++t) {
      total = Simd::Add(total, e[t]);
      StoreAs(probabilities + (token + kTileTokens * t) * (4 / Steps::kElements),
              Steps::kElements == 2, e[t]);
    }
  }
  return total;
}

/// outputs[kRows][kColumns vectors from `column`] = probabilities times values.
/// kMasked: the one vector is the last of a head_dim that is no multiple of 16.
template <class Steps, int kRows, int kColumns, bool kMasked>
void WeighColumns(const AttentionJob& job, const SplitRange& range, const uint8_t* probabilities,
                  int column, float* outputs) {
  constexpr int kTileSteps = kTileTokens / Steps::kElements;
  constexpr int64_t kRowBytes = 4 * kSplitTokens / Steps::kElements;
  const int lanes = job.head_dim % 16;
  const auto load = [lanes](const uint8_t* p) {
    if constexpr (kMasked) return Steps::LoadFirst(p, lanes);
    return Steps::Load(p);
  };
  Simd::Float sum[kRows][kColumns];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) sum[r][c] = Simd::Zero();
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
  for (int tile = range.first_tile(); tile < range.last_tile(); ++tile) {
    const uint8_t* v = KeyTile(job, range, tile) + job.tile_bytes + 64 * column;
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
      Simd::Store(outputs + r * job.padded_dim() + 16 * (column + c),
                  Simd::Add(sum[r][c], Simd::Zero()));
    }
  }
}

template <class Steps, int kRows>
void WeighRows(const AttentionJob& job, const SplitRange& range, const AttentionWork& work,
               int row) {
  constexpr int kColumns = Simd::kTileColumns<kRows>;
  const uint8_t* probabilities =
      work.probabilities + int64_t{row} * 4 * kSplitTokens / Steps::kElements;
  float* outputs = OutputsOf(work.state) + int64_t{row} * job.padded_dim();
  const int whole = job.head_dim / 16;
  int column = 0;
  for (; column + kColumns <= whole; column += kColumns) {
    WeighColumns<Steps, kRows, kColumns, false>(job, range, probabilities, column, outputs);
  }
  for (; column < whole; ++column) {
    WeighColumns<Steps, kRows, 1, false>(job, range, probabilities, column, outputs);
  }
  if (job.head_dim % 16 != 0) {
    WeighColumns<Steps, kRows, 1, true>(job, range, probabilities, column, outputs);
  }
}

template <int kRows, class Run>
void RunRowsOf(int rows, int row, const Run& run) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      run.template operator()<kRows>(row);
    } else {
      RunRowsOf<kRows - 1>(rows, row, run);
    }
  }
}

/// Calls run.operator()<height>(first row) for all rows in tiles of nearly equal height.
template <class Run>
void RunRows(int rows, const Run& run) {
  const int tiles = (rows + Simd::kTileRows - 1) / Simd::kTileRows;
  for (int tile = 0; tile < tiles; ++tile) {
    const int first = rows * tile / tiles;
    RunRowsOf<Simd::kTileRows>(rows * (tile + 1) / tiles - first, first, run);
  }
}

/// work.state = the softmax state of split `split`.
template <class Steps>
void AttendSplit(const AttentionJob& job, int split, const AttentionWork& work) {
  const int start = split * kSplitTokens;
  const int first_key = job.first_key(job.first_position) - start;
  const int last_key = job.last_position() + 1 - start;
  SplitRange range;
  range.first = first_key > 0 ? first_key : 0;
  range.last = last_key < kSplitTokens ? last_key : kSplitTokens;
  range.pages = job.pages + start / kTileTokens;
  // All rows pass over a few tiles of keys while these lie in L1.
  for (int tile = range.first_tile(); tile < range.last_tile(); tile += kGroupTiles) {
    const int last_tile = std::min(tile + kGroupTiles, range.last_tile());
    RunRows(job.rows(), [&]<int kRows>(int row) {
      ScoreRows<Steps, kRows>(job, range, work, row, tile, last_tile);
    });
  }
  float* const maxima = work.state;
  float* const sums = work.state + 32;
  for (int row = 0; row < job.rows(); ++row) {
    const int position = job.first_position + row / job.heads;
    const int first = job.first_key(position) - start;
    float* const scores = work.scores + kSplitTokens * row;
    const auto mask = job.softcap > 0 ? MaskScores<true> : MaskScores<false>;
    maxima[row] = MaxOfLanes(mask(job, range, first, position + 1 - start, scores));
  }
  for (int row = 0; row < job.rows(); ++row) {
    // A row that sees nothing here gets zeros: its maximum stays minus infinity.
    const float base = maxima[row] < -FLT_MAX ? -FLT_MAX : maxima[row];
    sums[row] = SumOfLanes(Exponentials<Steps>(
        range, Simd::Set(base), work.scores + kSplitTokens * row,
        work.probabilities + int64_t{row} * 4 * kSplitTokens / Steps::kElements));
  }
  RunRows(job.rows(), [&]<int kRows>(int row) { WeighRows<Steps, kRows>(job, range, work, row); });
}

/// With a state that has seen nothing (maximum minus infinity, zeros) this is a copy, bit for bit.
void MergeAttention(const AttentionJob& job, float* state, const float* next) {
  alignas(64) float old_factor[32];
  alignas(64) float next_factor[32];
  for (int row = 0; row < job.rows(); row += 16) {
    const Simd::Float old_maximum = Simd::Load(state + row);
    const Simd::Float next_maximum = Simd::Load(next + row);
    const Simd::Float maximum = Simd::Max(old_maximum, next_maximum);
    const Simd::Float base = Simd::Max(Simd::Set(-FLT_MAX), maximum);
    const Simd::Float a = Exp(Simd::Sub(old_maximum, base));
    const Simd::Float b = Exp(Simd::Sub(next_maximum, base));
    Simd::Store(old_factor + row, a);
    Simd::Store(next_factor + row, b);
    Simd::Store(state + row, maximum);
    Simd::Store(state + 32 + row, Simd::Fma(Simd::Load(next + 32 + row), b,
                                            Simd::Mul(Simd::Load(state + 32 + row), a)));
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

void Attend(const AttentionJob& job, int first_split, int last_split, float* state,
            float* work_floats) {
  const AttentionWork work(work_floats, job.padded_dim());
  const size_t size = job.is_bf16 ? 2 : 4;
  const size_t head_bytes = size * static_cast<size_t>(job.head_dim);
  for (int row = 0; row < job.rows(); ++row) {
    const uint8_t* q = job.q + row / job.heads * job.q_stride_bytes +
                       static_cast<size_t>(row % job.heads) * head_bytes;
    std::memcpy(work.queries + static_cast<size_t>(row) * head_bytes, q, head_bytes);
  }
  // Slots beyond the rows are merged along with them, so they must hold numbers.
  for (int i = 0; i < 32; ++i) {
    state[i] = work.state[i] = -FLT_MAX;
    state[32 + i] = work.state[32 + i] = 0;
  }
  for (int row = 0; row < job.rows(); ++row) state[row] = -__builtin_inff();
  std::memset(OutputsOf(state), 0,
              sizeof(float) * static_cast<size_t>(job.rows() * job.padded_dim()));
  for (int split = first_split; split < last_split; ++split) {
    if (job.is_bf16) {
      AttendSplit<Bf16Steps>(job, split, work);
    } else {
      AttendSplit<F32Steps>(job, split, work);
    }
    MergeAttention(job, state, work.state);
  }
}

void FinishAttention(const AttentionJob& job, const float* state) {
  const int64_t size = job.is_bf16 ? 2 : 4;
  for (int row = 0; row < job.rows(); ++row) {
    const float* outputs = OutputsOf(state) + int64_t{row} * job.padded_dim();
    uint8_t* out =
        job.out + row / job.heads * job.out_stride_bytes + row % job.heads * job.head_dim * size;
    const Simd::Float sum = Simd::Set(state[32 + row]);
    for (int i = 0; i < job.head_dim; i += 16) {
      alignas(64) uint8_t values[64];
      StoreAs(values, job.is_bf16, Simd::Div(Simd::Load(outputs + i), sum));
      const int count = job.head_dim - i < 16 ? job.head_dim - i : 16;
      std::memcpy(out + i * size, values, static_cast<size_t>(count * size));
    }
  }
}

}  // namespace
}  // namespace neurogrid
