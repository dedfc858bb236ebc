// Attention of a few query rows over pages, written once over Simd. Rows share each load of K and
// V.
//
// A split of 256 positions: all scores, their maximum, exponentials and their sum in 16 lanes, then
// one chain of products with V for each output. Which tiles a row's neighbours make it visit cannot
// matter: masked scores give probabilities of exactly zero.
#pragma once

#include <cfloat>

#include "engine/cpu/kernels.h"
#include "engine/cpu/kernels_math.h"

namespace neurogrid {
namespace {

constexpr int kTileTokens = 16;

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

template <class Steps, int kRows>
void ScoreRows(const AttentionJob& job, const SplitRange& range, const AttentionWork& work,
               int row) {
  constexpr int kTiles = Simd::kTileColumns<kRows>;
  const uint8_t* queries = work.queries + int64_t{row} * 4 * (job.head_dim / Steps::kElements);
  float* scores = work.scores + kSplitTokens * row;
  int tile = range.first_tile();
  // With one block of rows memory is the bound; more blocks find keys and values in a cache.
  const int whole_end = tile + (range.last_tile() - tile) / kTiles * kTiles;
  for (const bool fetch = job.rows() == kRows; tile < whole_end; tile += kTiles) {
    if (fetch) {
      ScoreTiles<Steps, kRows, kTiles, true>(job, range, queries, tile, scores);
    } else {
      ScoreTiles<Steps, kRows, kTiles, false>(job, range, queries, tile, scores);
    }
  }
  for (; tile < range.last_tile(); ++tile) {
    ScoreTiles<Steps, kRows, 1, false>(job, range, queries, tile, scores);
  }
}

/// Turns one row's scores into probabilities relative to the maximum of the visible ones.
template <class Steps>
void SoftmaxRow(const AttentionJob& job, const SplitRange& range, int first, int last,
                float* scores, uint8_t* probabilities, float& maximum, float& sum) {
  constexpr float kMasked = -__builtin_inff();
  const Simd::Float masked = Simd::Set(kMasked);
  Simd::Float largest = masked;
  for (int tile = range.first_tile(); tile < range.last_tile(); ++tile) {
    const int token = tile * kTileTokens;
    Simd::Float score = Simd::Mul(Simd::Load(scores + token), Simd::Set(job.scale));
    if (job.softcap > 0) {
      const Simd::Float cap = Simd::Set(job.softcap);
      score = Simd::Mul(cap, Tanh(Simd::Div(score, cap)));
    }
    if (token < first || token + kTileTokens > last) {
      score = Simd::KeepLanes(score, first - token, last - token, masked);
    }
    Simd::Store(scores + token, score);
    largest = Simd::Max(largest, score);
  }
  maximum = MaxOfLanes(largest);
  // A row that sees nothing here gets zeros: its maximum stays minus infinity.
  const Simd::Float base = Simd::Set(maximum < -FLT_MAX ? -FLT_MAX : maximum);
  Simd::Float total = Simd::Zero();
  for (int tile = range.first_tile(); tile < range.last_tile(); ++tile) {
    const int token = tile * kTileTokens;
    const Simd::Float e = Exp(Simd::Sub(Simd::Load(scores + token), base));
    total = Simd::Add(total, e);
    StoreAs(probabilities + token * (4 / Steps::kElements), Steps::kElements == 2, e);
  }
  sum = SumOfLanes(total);
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

/// Calls ScoreRows (kWeigh false) or WeighRows over all rows in tiles of nearly equal height.
template <class Steps, bool kWeigh, int kRows>
void RunRowsOf(int rows, const AttentionJob& job, const SplitRange& range,
               const AttentionWork& work, int row) {
  if constexpr (kRows > 0) {
    if (rows != kRows) {
      RunRowsOf<Steps, kWeigh, kRows - 1>(rows, job, range, work, row);
    } else if constexpr (kWeigh) {
      WeighRows<Steps, kRows>(job, range, work, row);
    } else {
      ScoreRows<Steps, kRows>(job, range, work, row);
    }
  }
}

template <class Steps, bool kWeigh>
void RunRows(const AttentionJob& job, const SplitRange& range, const AttentionWork& work) {
  const int rows = job.rows();
  const int tiles = (rows + Simd::kTileRows - 1) / Simd::kTileRows;
  for (int tile = 0; tile < tiles; ++tile) {
    const int first = rows * tile / tiles;
    RunRowsOf<Steps, kWeigh, Simd::kTileRows>(rows * (tile + 1) / tiles - first, job, range, work,
                                              first);
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
  RunRows<Steps, false>(job, range, work);
  for (int row = 0; row < job.rows(); ++row) {
    const int position = job.first_position + row / job.heads;
    SoftmaxRow<Steps>(job, range, job.first_key(position) - start, position + 1 - start,
                      work.scores + kSplitTokens * row,
                      work.probabilities + int64_t{row} * 4 * kSplitTokens / Steps::kElements,
                      work.state[row], work.state[32 + row]);
  }
  RunRows<Steps, true>(job, range, work);
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
