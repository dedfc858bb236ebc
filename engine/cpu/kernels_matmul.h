// A panel of 64 outputs times rows of activations, written once over Simd.
//
// A tile of rows keeps its sums in registers while it walks the panel; the panel stays in L2 while
// all tiles pass over it. Each output is one chain over k, cut only at fixed places: nothing
// depends on the number of rows, so neither do the bits.
#pragma once

#include "engine/cpu/kernels.h"
#include "engine/cpu/kernels_groups.h"
#include "engine/cpu/kernels_groups_a8.h"
#include "engine/cpu/kernels_math.h"

namespace neurogrid {
namespace {

constexpr int kPanelStepBytes = 4 * PackedMatrix::kPanelOutputs;  // 4 vectors of 64 bytes
constexpr int64_t kBlockSteps = 1024;  // 256 KiB of a panel at a time: a quarter of L2
// Sums restart here, those of f32 for accuracy, those of int32 because 512 * 127 * 32767 < 2^31.
constexpr int64_t kChainSteps = 256;
constexpr int64_t kA8GroupSteps = kA8GroupInputs / 4;

/// Brings memory into L2 while a tile is computed: a panel takes as long to come as some tiles take
/// to pass over it, for which the first of them would wait. Where a pass takes a part of the
/// columns (AVX2), products take so long that nothing waits.
struct Ahead {
  const uint8_t* line;
  int64_t stride_bytes;  // a step; 0: one line again and again, which costs next to nothing

  void Fetch() {
    __builtin_prefetch(line, 0, 2);
    line += stride_bytes;
  }
};

/// sums [kRows][64] = the chains of `steps` steps, continued from sums when `continues`.
/// Not inlined, like SumIntTile, whose inner loops are so to be read by themselves.
template <class Steps, int kRows>
[[gnu::noinline]] void SumTile(const uint8_t* x, int64_t x_stride, const uint8_t* panel,
                               int64_t steps, float* sums, bool continues, Ahead ahead) {
  constexpr int kColumns = Simd::kPanelColumns<kRows>;
  constexpr int kAtOnce = Simd::kPanelColumnsAtOnce<kRows>;
  for (int first = 0; first < 4; first += kColumns) {
    Simd::Float sum[kRows][kColumns / kAtOnce][kAtOnce];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) {
        sum[r][c / kAtOnce][c % kAtOnce] =
            continues ? Simd::Load(sums + 64 * r + 16 * (first + c)) : Simd::Zero();
      }
    }
    const uint8_t* w = panel + 64 * first;
    const uint8_t* const x_end = x + 4 * steps;
    for (const uint8_t* a = x; a != x_end; a += 4, w += kPanelStepBytes) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; c += kAtOnce) {
        typename Steps::Weight weight[kAtOnce];
#pragma GCC unroll 4
        for (int i = 0; i < kAtOnce; ++i) weight[i] = Steps::Load(w + 64 * (c + i));
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const typename Steps::Activation activation = Steps::BroadcastOfRow(a + r * x_stride);
          Steps::template DotRow<kAtOnce>(sum[r][c / kAtOnce], weight, activation);
        }
      }
      if constexpr (kAtOnce == 4) ahead.Fetch();
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) {
        Simd::Store(sums + 64 * r + 16 * (first + c), sum[r][c / kAtOnce][c % kAtOnce]);
      }
    }
  }
}

/// Pairs of int8 weights beside int16.
struct Int16Steps {
  static constexpr int kBytes = 32;  // of 16 outputs
  static constexpr bool kInGroups = false;
  using Weight = Simd::Words;
  using Activation = Simd::Word2;
  static Weight Load(const void* p) { return Simd::LoadBytePairs(p); }
  static Activation BroadcastOfRow(const void* p) { return Simd::BroadcastWords(p); }
  template <int kColumns>
  static void DotRow(Simd::Int (&sum)[kColumns], const Weight (&w)[kColumns], const Activation& x) {
    Simd::DotInt(sum, w, x);
  }
};

/// Fours of weights + 128 beside int8.
struct Int8Steps {
  static constexpr int kBytes = 64;
  static constexpr bool kInGroups = true;
  using Weight = Simd::Quads;
  using Activation = Simd::Quad;
  static Weight Load(const void* p) { return Simd::LoadQuads(p); }
  static Activation BroadcastOfRow(const void* p) { return Simd::BroadcastQuad(p); }
  template <int kColumns>
  static void DotRow(Simd::Int (&sum)[kColumns], const Weight (&w)[kColumns], const Activation& x) {
    Simd::DotQuads(sum, w, x);
  }
};

/// sums [kRows][64] += the exact int32 sums of at most kChainSteps steps, or of one group, times
/// its scale. `groups` stands at the first row's; unused without groups.
/// Not inlined: across calls, compilers would keep `sums` in the registers of the inner loop.
template <class Steps, int kRows>
[[gnu::noinline]] void SumIntTile(const uint8_t* x, int64_t x_stride, const uint8_t* panel,
                                  int64_t steps, const A8Groups& groups, float* sums, Ahead ahead) {
  constexpr int kColumns = Simd::kPanelColumns<kRows>;
  constexpr int kAtOnce = Simd::kPanelColumnsAtOnce<kRows>;
  for (int first = 0; first < 4; first += kColumns) {
    Simd::Int sum[kRows][kColumns / kAtOnce][kAtOnce];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) {
        sum[r][c / kAtOnce][c % kAtOnce] =
            Steps::kInGroups ? Simd::SetInt(groups.starts[r * groups.count]) : Simd::ZeroInt();
      }
    }
    const uint8_t* w = panel + Steps::kBytes * first;
    const uint8_t* const x_end = x + 4 * steps;
    for (const uint8_t* a = x; a != x_end; a += 4, w += 4 * Steps::kBytes) {
      if constexpr (kRows == 1 && Steps::kInGroups && Simd::kA8AheadBytes > 0) {
#pragma GCC unroll 4
        for (int c = 0; c < 4; ++c) {
          __builtin_prefetch(w + Simd::kA8AheadBytes + Steps::kBytes * c);
        }
      }
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; c += kAtOnce) {
        typename Steps::Weight weight[kAtOnce];
#pragma GCC unroll 4
        for (int i = 0; i < kAtOnce; ++i) weight[i] = Steps::Load(w + Steps::kBytes * (c + i));
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const typename Steps::Activation activation = Steps::BroadcastOfRow(a + r * x_stride);
          Steps::template DotRow<kAtOnce>(sum[r][c / kAtOnce], weight, activation);
        }
      }
      if constexpr (kAtOnce == 4) ahead.Fetch();
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Simd::Float scale =
          Steps::kInGroups ? Simd::Broadcast(groups.scales + r * groups.count) : Simd::Zero();
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) {
        float* out = sums + 64 * r + 16 * (first + c);
        const Simd::Float value = Simd::ToFloat(sum[r][c / kAtOnce][c % kAtOnce]);
        Simd::Store(out, Steps::kInGroups ? Simd::Fma(value, scale, Simd::Load(out))
                                          : Simd::Add(Simd::Load(out), value));
      }
    }
  }
}

/// The same of a K block of whole groups and perhaps a shorter one, for as few columns at a time
/// that totals stay in registers beside the sums of a group: through memory, tiles of six
/// rows take 6 % longer.
template <int kRows>
[[gnu::noinline]] void SumA8Tile(const uint8_t* x, int64_t x_stride, const uint8_t* panel,
                                 int64_t steps, const A8Groups& groups, float* sums, Ahead ahead) {
  constexpr int kColumns = Simd::kA8TotalColumns<kRows>;
  for (int first = 0; first < 4; first += kColumns) {
    Simd::Float total[kRows][kColumns];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) total[r][c] = Simd::Load(sums + 64 * r + 16 * (first + c));
    }
    const float* scales = groups.scales;
    const int32_t* starts = groups.starts;
    const uint8_t* w = panel + Int8Steps::kBytes * first;
    const uint8_t* a = x;
    for (int64_t left = steps; left > 0; left -= kA8GroupSteps) {
      Simd::Int sum[kRows][kColumns];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int c = 0; c < kColumns; ++c) sum[r][c] = Simd::SetInt(starts[r * groups.count]);
      }
      const uint8_t* const group_end = a + 4 * (left < kA8GroupSteps ? left : kA8GroupSteps);
      for (; a != group_end; a += 4, w += kPanelStepBytes) {
        Int8Steps::Weight weight[kColumns];
#pragma GCC unroll 4
        for (int c = 0; c < kColumns; ++c) weight[c] = Int8Steps::Load(w + Int8Steps::kBytes * c);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          const Int8Steps::Activation activation = Int8Steps::BroadcastOfRow(a + r * x_stride);
          Int8Steps::DotRow<kColumns>(sum[r], weight, activation);
        }
        ahead.Fetch();
      }
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Simd::Float scale = Simd::Broadcast(scales + r * groups.count);
#pragma GCC unroll 4
        for (int c = 0; c < kColumns; ++c) {
          total[r][c] = Simd::Fma(Simd::ToFloat(sum[r][c]), scale, total[r][c]);
        }
      }
      ++scales;
      ++starts;
    }
    ahead.stride_bytes = 0;  // The first columns have asked for all.
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) Simd::Store(sums + 64 * r + 16 * (first + c), total[r][c]);
    }
  }
}

/// One group after the other, from the one that starts at `step`.
template <int kRows>
void RunA8Tile(const PanelJob& job, int row, int64_t step, int64_t steps, float* tile,
               Ahead ahead) {
  const int64_t first = row * job.x_groups.count + step / kA8GroupSteps;
  A8Groups groups = {job.x_groups.scales + first, job.x_groups.starts + first, job.x_groups.count};
  const uint8_t* x = job.x + row * job.x_stride_bytes + 4 * step;
  const uint8_t* panel = job.panel + kPanelStepBytes * step;
  constexpr int kColumns = Simd::kA8TotalColumns<kRows>;
  if constexpr (kColumns > 0) {
    SumA8Tile<kRows>(x, job.x_stride_bytes, panel, steps, groups, tile, ahead);
    return;
  }
  for (int64_t done = 0; done < steps; done += kA8GroupSteps) {
    const int64_t count = steps - done < kA8GroupSteps ? steps - done : kA8GroupSteps;
    SumIntTile<Int8Steps, kRows>(x + 4 * done, job.x_stride_bytes, panel + kPanelStepBytes * done,
                                 count, groups, tile, ahead);
    ahead.line += count * ahead.stride_bytes;
    ++groups.scales;
    ++groups.starts;
  }
}

/// One tile over one K block that starts at `step`.
template <int kRows>
void RunTile(const PanelJob& job, int row, int64_t step, int64_t steps, float* sums, Ahead ahead) {
  const uint8_t* x = job.x + row * job.x_stride_bytes + 4 * step;
  float* tile = sums + 64 * row;
  if (job.format == PackedMatrix::Format::kBf16) {
    SumTile<Bf16Steps, kRows>(x, job.x_stride_bytes, job.panel + kPanelStepBytes * step, steps,
                              tile, step > 0, ahead);
    return;
  }
  if (job.format == PackedMatrix::Format::kInt8A8) {
    RunA8Tile<kRows>(job, row, step, steps, tile, ahead);
    return;
  }
  const bool is_int = job.format == PackedMatrix::Format::kInt8;
  const int64_t step_bytes = is_int ? kPanelStepBytes / 2 : kPanelStepBytes;
  for (int64_t done = 0; done < steps; done += kChainSteps) {
    const int64_t count = steps - done < kChainSteps ? steps - done : kChainSteps;
    const uint8_t* panel = job.panel + step_bytes * (step + done);
    if (is_int) {
      SumIntTile<Int16Steps, kRows>(x + 4 * done, job.x_stride_bytes, panel, count, {}, tile,
                                    ahead);
      ahead.line += count * ahead.stride_bytes;
      continue;
    }
    alignas(64) float part[kRows * 64];
    SumTile<F32Steps, kRows>(x + 4 * done, job.x_stride_bytes, panel, count, part, false, ahead);
    ahead.line += count * ahead.stride_bytes;
    for (int i = 0; i < kRows * 64; ++i) tile[i] += part[i];
  }
}

/// A line a step from what follows the block that ends at step `end`: more of the panel, or the
/// next one. A quarter of a block a tile, so the first four tiles ask for all of it.
inline Ahead AheadOf(const PanelJob& job, int64_t end, int64_t steps, int tile, int tiles) {
  constexpr int kQuarters = 4;
  const int64_t step_bytes =
      job.format == PackedMatrix::Format::kInt8 ? kPanelStepBytes / 2 : kPanelStepBytes;
  const uint8_t* const next = end < job.steps ? job.panel + end * step_bytes : job.next_panel;
  if (next == nullptr || tiles == 1 || tile >= kQuarters) return {job.panel, 0};
  return {next + tile * steps * step_bytes / kQuarters, step_bytes / kQuarters};
}

/// Brings what rows will be written to, and perhaps are added to, into L2: they lie so far apart
/// that no prefetcher follows. Inlined, because GCC drops calls of what only prefetches.
[[gnu::always_inline]] inline void FetchOutputs(const PanelJob& job, int first, int end) {
  constexpr int kLineBytes = 64;
  const int bytes = job.outputs * (job.y_is_bf16 ? 2 : 4);
  for (int row = first; row < end; ++row) {
    const uint8_t* const y = job.y + row * job.y_stride_bytes;
    for (int i = 0; i < bytes; i += kLineBytes) __builtin_prefetch(y + i, 1, 2);
  }
}

template <int kRows>
void RunTileOf(int rows, const PanelJob& job, int row, int64_t step, int64_t steps, float* sums,
               Ahead ahead) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      RunTile<kRows>(job, row, step, steps, sums, ahead);
    } else {
      RunTileOf<kRows - 1>(rows, job, row, step, steps, sums, ahead);
    }
  }
}

/// Turns a row of sums into output values: scales, bias, gate, residual, rounding.
inline void FinishRow(const PanelJob& job, int row, float* v) {
  if (job.w_scales != nullptr) {
    // Scales of groups are in the sums already.
    const Simd::Float x_scale = Simd::Set(job.x_scales == nullptr ? 1.0f : job.x_scales[row]);
    for (int i = 0; i < 64; i += 16) {
      const Simd::Float scaled = Simd::Mul(Simd::Load(v + i), Simd::Load(job.w_scales + i));
      Simd::Store(v + i, Simd::Mul(scaled, x_scale));
    }
  }
  if (job.bias != nullptr) {
    for (int i = 0; i < job.outputs; ++i) v[i] += job.bias[i];
  }
  if (job.up_bias != nullptr) {
    for (int i = 0; i < job.outputs; ++i) v[32 + i] += job.up_bias[i];
  }
  if (job.epilogue == Epilogue::kSiluGated || job.epilogue == Epilogue::kGeluGated) {
    const bool silu = job.epilogue == Epilogue::kSiluGated;
    for (int i = 0; i < 32; i += 16) {
      const Simd::Float gate = Simd::Load(v + i);
      Simd::Store(v + i, Simd::Mul(silu ? Silu(gate) : Gelu(gate), Simd::Load(v + 32 + i)));
    }
  }
  const int64_t size = job.y_is_bf16 ? 2 : 4;
  uint8_t* y = job.y + row * job.y_stride_bytes;
  const bool adds = job.epilogue == Epilogue::kAdd;
  for (int i = 0; i < job.outputs; i += 16) {
    alignas(64) uint8_t partial[64] = {};
    const int count = job.outputs - i < 16 ? job.outputs - i : 16;
    uint8_t* out = count == 16 ? y + size * i : partial;
    Simd::Float value = Simd::Load(v + i);
    if (adds) {
      if (count < 16) std::memcpy(partial, y + size * i, static_cast<size_t>(size * count));
      value = Simd::Add(value, LoadAs(out, job.y_is_bf16));
    }
    StoreAs(out, job.y_is_bf16, value);
    if (count < 16) std::memcpy(y + size * i, partial, static_cast<size_t>(size * count));
  }
}

/// Of a job of at most kRowsMax rows. Not inlined, so that few rows have a small frame, of which
/// compilers touch every page on entry.
template <int kRowsMax>
[[gnu::noinline]] void MultiplyPanelOf(const PanelJob& job) {
  alignas(64) float sums[kRowsMax * 64];
  if (job.format != PackedMatrix::Format::kBf16) {
    std::memset(sums, 0, sizeof(float) * 64 * static_cast<size_t>(job.rows));
  }
  if (job.format == PackedMatrix::Format::kGroups) {
    if (job.x_is_bytes) {
      AddBytePanel(job, sums);
    } else {
      AddGroupedPanel(job, sums);
    }
    for (int row = 0; row < job.rows; ++row) FinishRow(job, row, sums + 64 * row);
    return;
  }
  // Tiles of nearly equal height: 8 rows are 4 + 4, not 6 + 2.
  const int tiles = (job.rows + Simd::kTileRows - 1) / Simd::kTileRows;
  for (int64_t step = 0; step < job.steps; step += kBlockSteps) {
    const int64_t steps = job.steps - step < kBlockSteps ? job.steps - step : kBlockSteps;
    const bool last = step + steps == job.steps;
    for (int tile = 0; tile < tiles; ++tile) {
      const int first = job.rows * tile / tiles;
      const int end = job.rows * (tile + 1) / tiles;
      if (last) FetchOutputs(job, first, end);
      RunTileOf<Simd::kTileRows>(end - first, job, first, step, steps, sums,
                                 AheadOf(job, step + steps, steps, tile, tiles));
      if (!last) continue;
      for (int row = first; row < end; ++row) FinishRow(job, row, sums + 64 * row);
    }
  }
}

void MultiplyPanel(const PanelJob& job) {
  constexpr int kFewRows = 8;
  if (job.rows <= kFewRows) {
    MultiplyPanelOf<kFewRows>(job);
  } else {
    MultiplyPanelOf<kPanelRowsMax>(job);
  }
}

}  // namespace
}  // namespace neurogrid
