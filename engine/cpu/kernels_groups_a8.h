// A panel of integers in groups (packed_groups.h) times rows of 8-bit integers.
//
// Activations are integers of 8 bits times a scale for each unit of the weights, 32 or 256 inputs
// (Kernels::quantize_units), so the products of a group add up exactly in int32, in any order.
// Where each group has an f32 scale, for each group of a row
//
//   sum = fma(minimum, total, sum), total = (sum of the group's activations) * their scale
//   sum = fma(scale, (sum of the group's products) * the activations' scale, sum)
//
// in the order of the groups. Where scales are f16 times int8, the products of a unit's groups
// times their int8 are an exact integer too, and for each unit
//
//   part = half * (sum of products times int8)
//   part = fma(half of minimums, sum of activations times the int8 of minimums, part)
//   sum = fma(the activations' scale, part, sum)
//
// Codes count up from zero: what they are above their values is one more minimum.
#pragma once

#include "engine/cpu/kernels_groups.h"

namespace neurogrid {
namespace {

/// Inputs whose codes, as bytes, stay in L1 while all rows pass over them.
constexpr int kByteBlockInputs = 256;

/// Some groups of a panel of 64 outputs.
struct ByteRun {
  const uint8_t* codes;
  int groups;
  // More rows than one leave time for the next run to come into L2, headers among it: with each
  // group a pass asks for `share` bytes. All at once by a pass would be no faster than none.
  const uint8_t* next;
  int64_t next_bytes;  // that no tile has asked for yet
  int64_t share;       // 0: nothing
  // f32 for each group:
  const float* scales;    // [groups][64]
  const float* minimums;  // the same
  // int8 for each group of a unit, which the run is:
  const uint8_t* factors;         // [groups][64] as ByteDots::FactorsOf makes them
  const uint8_t* pairs;           // [groups / 2][64][2] int8 of minimums
  const uint8_t* halves;          // [64] f16
  const uint8_t* minimum_halves;  // [64] f16
  float minimum_factor;           // of minimum_halves
};

/// Some rows of activations beside a run.
struct ByteRunRows {
  const uint8_t* x;
  int64_t x_stride;
  const float* scales;  // of a row: one for each unit
  int64_t scales_stride;
  const float* totals;  // [groups] of a row; f32 scales only
  const int16_t* sums;  // [groups] of a row; int8 scales only
  int64_t sums_stride;  // of either
};

/// What one group asks for in a pass, `turn` groups after the tile's first. Inlined, because GCC
/// drops calls of what only prefetches.
[[gnu::always_inline]] inline void AskForNext(const ByteRun& run, int turn) {
  const uint8_t* const next = run.next + run.share * turn;
  for (int64_t at = 0; at < run.share; at += 64) __builtin_prefetch(next + at, 0, 2);
}

/// Of a row of activations as Dots reads it.
template <class Dots>
constexpr int kStepBytes = Dots::kInWords ? 8 : 4;

/// chain = the products of kSteps steps of codes, which follow.
template <class Codes, class Dots, int kSteps, int kRows, int kColumns>
[[gnu::always_inline]] inline void DotSteps(typename Dots::Sum (&chain)[kRows][kColumns],
                                            const uint8_t* octet, int first,
                                            const Simd::CodeTable& table, const uint8_t* x,
                                            int64_t x_stride) {
#pragma GCC unroll 8
  for (int step = 0; step < kSteps; ++step) {
    typename Dots::Weight weight[kColumns];
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      weight[c] =
          Dots::WeightOf(Codes::Load(octet + step / 2 * Codes::kBytes, step % 2, first + c, table));
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const typename Dots::Activation activation =
          Dots::Broadcast(x + kStepBytes<Dots> * step + r * x_stride);
      if (step == 0) {
        Dots::First(chain[r], weight, activation);
      } else {
        Dots::Next(chain[r], weight, activation);
      }
    }
  }
}

/// Chains of a group one after the other, each as long as a Dots::Sum has room for: use(chain, i).
template <class Codes, class Dots, int kGroupSteps, int kRows, int kColumns, class Use>
[[gnu::always_inline]] inline void DotGroup(const ByteRun& run, const Simd::CodeTable& table,
                                            const ByteRunRows& rows, int group, int first,
                                            Use use) {
  constexpr int kSteps = kGroupSteps < Dots::kStepsMax ? kGroupSteps : Dots::kStepsMax;
  constexpr int64_t kBytes = kSteps / 2 * Codes::kBytes;
  const uint8_t* octet = run.codes + kGroupSteps / kSteps * kBytes * group;
  const uint8_t* x = rows.x + kStepBytes<Dots> * kGroupSteps * group;
#pragma GCC unroll 2
  for (int i = 0; i < kGroupSteps / kSteps; ++i, octet += kBytes, x += kStepBytes<Dots> * kSteps) {
    if (kRows == 1 && first == 0) AskForLines<kBytes>(octet);
    typename Dots::Sum chain[kRows][kColumns];
    DotSteps<Codes, Dots, kSteps>(chain, octet, first, table, x, rows.x_stride);
    use(chain, i);
  }
}

/// As in AddGroups: one row goes through all columns of a group before it comes to the next, so
/// that memory has no pause while lines are passed over again.
template <int kRows>
constexpr int kBytePasses = kRows == 1 ? 4 / Simd::kByteColumns<kRows> : 1;

/// below = the activations of a unit times the int8 of its minimums.
template <int kRows, int kColumns>
[[gnu::always_inline]] inline void SumMinimums(Simd::Int (&below)[kRows][kColumns],
                                               const ByteRun& run, const ByteRunRows& rows,
                                               int first) {
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) below[r][c] = Simd::ZeroInt();
  }
  for (int group = 0; group < run.groups; group += 2) {
    Simd::Words pair[kColumns];
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      pair[c] = Simd::LoadBytePairs(run.pairs + 64 * group + 32 * (first + c));
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      Simd::DotInt(below[r], pair, Simd::BroadcastWords(rows.sums + r * rows.sums_stride + group));
    }
  }
}

/// sums += the totals of a unit in the columns from `first` on, times its scales, and what its
/// minimums add.
template <int kRows, int kColumns>
[[gnu::always_inline]] inline void FinishUnit(const ByteRun& run, const ByteRunRows& rows,
                                              int first, const Simd::Int (&total)[kRows][kColumns],
                                              float* sums) {
  Simd::Int below[kRows][kColumns];
  SumMinimums(below, run, rows, first);
#pragma GCC unroll 4
  for (int c = 0; c < kColumns; ++c) {
    const Simd::Float half = Simd::LoadHalves(run.halves + 32 * (first + c));
    const Simd::Float minimum_half = Simd::Mul(
        Simd::LoadHalves(run.minimum_halves + 32 * (first + c)), Simd::Set(run.minimum_factor));
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      Simd::Float part = Simd::Mul(half, Simd::ToFloat(total[r][c]));
      part = Simd::Fma(minimum_half, Simd::ToFloat(below[r][c]), part);
      float* const sum = sums + 64 * r + 16 * (first + c);
      const Simd::Float x_scale = Simd::Broadcast(rows.scales + r * rows.scales_stride);
      Simd::Store(sum, Simd::Fma(x_scale, part, Simd::Load(sum)));
    }
  }
}

/// sum += a group's products in the columns from `first` on, times its scales, and what its
/// minimums add.
template <int kUnitGroups, int kRows, int kColumns>
[[gnu::always_inline]] inline void ScaleGroup(const ByteRun& run, const ByteRunRows& rows,
                                              int group, int first,
                                              const Simd::Int (&total)[kRows][kColumns],
                                              Simd::Float (&sum)[kRows][kColumns]) {
  const int at = 64 * group + 16 * first;
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const Simd::Float x_total = Simd::Broadcast(rows.totals + r * rows.sums_stride + group);
    const Simd::Float x_scale =
        Simd::Broadcast(rows.scales + r * rows.scales_stride + group / kUnitGroups);
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) {
      sum[r][c] = Simd::Fma(Simd::Load(run.minimums + at + 16 * c), x_total, sum[r][c]);
      sum[r][c] = Simd::Fma(Simd::Load(run.scales + at + 16 * c),
                            Simd::Mul(Simd::ToFloat(total[r][c]), x_scale), sum[r][c]);
    }
  }
}

/// sums [kRows][64] += the products of a unit whose scales are f16 times int8.
/// Not inlined, like SumTile, so that tests/disassembly_test.py finds its inner loops.
template <class Codes, int kBits, int kGroupSteps, int kRows>
[[gnu::noinline]] void AddByteUnit(const ByteRun& run, const Simd::CodeTable& table,
                                   const ByteRunRows& rows, float* sums) {
  using Dots = Simd::ByteDots<kBits>;
  constexpr int kColumns = Simd::kByteColumns<kRows>;
  constexpr int kPasses = kBytePasses<kRows>;
  for (int first = 0; first < 4; first += kPasses * kColumns) {
    Simd::Int total[kPasses][kRows][kColumns];
#pragma GCC unroll 16
    for (int i = 0; i < kPasses * kRows * kColumns; ++i) {
      total[i / kColumns / kRows][i / kColumns % kRows][i % kColumns] = Simd::ZeroInt();
    }
    for (int group = 0; group < run.groups; ++group) {
      if (kRows > 1) AskForNext(run, first / kColumns * run.groups + group);
#pragma GCC unroll 4
      for (int pass = 0; pass < kPasses; ++pass) {
        const uint8_t* const factors = run.factors + 256 * group + 64 * (first + pass * kColumns);
        const auto add = [&](const auto& chain, int) __attribute__((always_inline)) {
#pragma GCC unroll 4
          for (int c = 0; c < kColumns; ++c) {
            const Simd::Int factor = Simd::LoadBytes(factors + 64 * c);
#pragma GCC unroll 8
            for (int r = 0; r < kRows; ++r) {
              total[pass][r][c] = Dots::AddTimes(total[pass][r][c], chain[r][c], factor);
            }
          }
        };
        DotGroup<Codes, Dots, kGroupSteps, kRows, kColumns>(run, table, rows, group,
                                                            first + pass * kColumns, add);
      }
    }
#pragma GCC unroll 4
    for (int pass = 0; pass < kPasses; ++pass) {
      FinishUnit(run, rows, first + pass * kColumns, total[pass], sums);
    }
  }
}

/// sums [kRows][64] += the products of groups that have f32 scales.
template <class Codes, int kBits, int kGroupSteps, int kRows>
[[gnu::noinline]] void AddByteGroups(const ByteRun& run, const Simd::CodeTable& table,
                                     const ByteRunRows& rows, float* sums) {
  using Dots = Simd::ByteDots<kBits>;
  constexpr int kColumns = Simd::kByteColumns<kRows>;
  constexpr int kPasses = kBytePasses<kRows>;
  for (int first = 0; first < 4; first += kPasses * kColumns) {
    Simd::Float sum[kPasses][kRows][kColumns];
#pragma GCC unroll 16
    for (int i = 0; i < kPasses * kRows * kColumns; ++i) {
      const int pass = i / kColumns / kRows, r = i / kColumns % kRows, c = i % kColumns;
      sum[pass][r][c] = Simd::Load(sums + 64 * r + 16 * (first + pass * kColumns + c));
    }
    for (int group = 0; group < run.groups; ++group) {
      if (kRows > 1) AskForNext(run, first / kColumns * run.groups + group);
#pragma GCC unroll 4
      for (int pass = 0; pass < kPasses; ++pass) {
        Simd::Int total[kRows][kColumns];
        const auto add = [&](const auto& chain, int i) __attribute__((always_inline)) {
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
            for (int c = 0; c < kColumns; ++c) {
              const Simd::Int products = Dots::TotalOf(chain[r][c]);
              total[r][c] = i == 0 ? products : Simd::AddInt(total[r][c], products);
            }
          }
        };
        DotGroup<Codes, Dots, kGroupSteps, kRows, kColumns>(run, table, rows, group,
                                                            first + pass * kColumns, add);
        ScaleGroup<8 / kGroupSteps>(run, rows, group, first + pass * kColumns, total, sum[pass]);
      }
    }
#pragma GCC unroll 16
    for (int i = 0; i < kPasses * kRows * kColumns; ++i) {
      const int pass = i / kColumns / kRows, r = i / kColumns % kRows, c = i % kColumns;
      Simd::Store(sums + 64 * r + 16 * (first + pass * kColumns + c), sum[pass][r][c]);
    }
  }
}

/// What a type's codes are, and its scales.
template <int kCodeBits, bool kLinearCodes, int kSteps, bool kInt8Scales>
struct ByteType {
  using Codes = Octet<kCodeBits, kLinearCodes>;
  static constexpr int kBits = kLinearCodes ? kCodeBits : 8;  // as bytes
  static constexpr int kGroupSteps = kSteps;
  static constexpr bool kIsUnit = kInt8Scales;
};

/// Of a row of a run in the words that some Dots read.
constexpr int kRowWordsBytes = 2 * kByteBlockInputs;

/// The same rows in `words` [kRows][kRowWordsBytes]: of each four the first and the third, then the
/// others. Once a tile, where broadcasts would widen them for each column anew.
template <int kRows>
ByteRunRows WidenRows(const ByteRunRows& rows, int inputs, uint8_t* words) {
  const __m256i order = _mm256_broadcastsi128_si256(
      _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15));
  for (int r = 0; r < kRows; ++r) {
    for (int i = 0; i < inputs; i += 16) {
      const auto* from = reinterpret_cast<const __m128i*>(rows.x + r * rows.x_stride + i);
      auto* to = reinterpret_cast<__m256i*>(words + kRowWordsBytes * r + 2 * i);
      const __m256i widened = _mm256_cvtepi8_epi16(_mm_loadu_si128(from));
      _mm256_store_si256(to, _mm256_shuffle_epi8(widened, order));
    }
  }
  ByteRunRows in_words = rows;
  in_words.x = words;
  in_words.x_stride = kRowWordsBytes;
  return in_words;
}

/// A run times `count` rows, at most kRows, which ask for as much of the next run as each of
/// `tiles_left` tiles must.
template <class Type, class Codes, int kRows>
void AddByteTile(int count, int tiles_left, ByteRun& run, const Simd::CodeTable& table,
                 const ByteRunRows& rows, float* sums) {
  if constexpr (kRows > 0) {
    if (count != kRows) {
      AddByteTile<Type, Codes, kRows - 1>(count, tiles_left, run, table, rows, sums);
      return;
    }
    constexpr int kTurns = kByteBlockInputs / 4 / Type::kGroupSteps * 4 / Simd::kByteColumns<kRows>;
    // Whole lines, so perhaps the first tiles alone.
    run.share = run.next_bytes > 0 ? run.next_bytes / kTurns / tiles_left / 64 * 64 + 64 : 0;
    if constexpr (Simd::ByteDots<Type::kBits>::kInWords) {
      static_assert(!Type::kIsUnit);  // no type of 8 bits has scales of its own in a unit
      alignas(64) uint8_t words[kRows * kRowWordsBytes];
      const int inputs = run.groups * 4 * Type::kGroupSteps;
      const ByteRunRows in_words = WidenRows<kRows>(rows, inputs, words);
      AddByteGroups<Codes, Type::kBits, Type::kGroupSteps, kRows>(run, table, in_words, sums);
    } else if constexpr (Type::kIsUnit) {
      AddByteUnit<Codes, Type::kBits, Type::kGroupSteps, kRows>(run, table, rows, sums);
    } else {
      AddByteGroups<Codes, Type::kBits, Type::kGroupSteps, kRows>(run, table, rows, sums);
    }
    run.next += kTurns * run.share;
    run.next_bytes -= kTurns * run.share;
  }
}

/// A run times all rows of the job, by way of bytes. Not inlined: compilers touch every page of a
/// frame on entry.
template <class Type>
[[gnu::noinline]] void AddWideByteTiles(const PanelJob& job, ByteRun run,
                                        const Simd::CodeTable& table, ByteRunRows rows,
                                        float* sums) {
  alignas(64) uint8_t wide[kByteBlockInputs * 64];  // 16 KiB
  if (Type::Codes::kBytes != Octet<8, true>::kBytes) {
    WidenCodes<typename Type::Codes>(run.codes, run.groups * Type::kGroupSteps / 2, table, wide);
    run.codes = wide;
  }
  constexpr int kTileRows = Simd::kByteTileRows;
  const int tiles = (job.rows + kTileRows - 1) / kTileRows;
  const ByteRunRows all = rows;
  for (int tile = 0; tile < tiles; ++tile) {
    const int first = job.rows * tile / tiles;
    const int count = job.rows * (tile + 1) / tiles - first;
    rows.x = all.x + first * all.x_stride;
    rows.scales = all.scales + first * all.scales_stride;
    if (Type::kIsUnit) rows.sums = all.sums + first * all.sums_stride;
    if (!Type::kIsUnit) rows.totals = all.totals + first * all.sums_stride;
    AddByteTile<Type, Octet<8, true>, kTileRows>(count, tiles - tile, run, table, rows,
                                                 sums + 64 * first);
  }
}

template <class Type>
void AddByteRun(const PanelJob& job, ByteRun& run, const Simd::CodeTable& table,
                const ByteRunRows& rows, float* sums) {
  if (job.rows > Simd::kByteTileRows) {
    AddWideByteTiles<Type>(job, run, table, rows, sums);
  } else {
    AddByteTile<Type, typename Type::Codes, Simd::kByteTileRows>(job.rows, 1, run, table, rows,
                                                                 sums);
  }
}

/// Of the format's types.
inline void AddByteRunOf(const GroupFormat& format, const PanelJob& job, ByteRun& run,
                         const Simd::CodeTable& table, const ByteRunRows& rows, float* sums) {
  const bool short_groups = format.group_inputs == 16;
  if (format.scales == GroupScales::kHalfTimesInt8) {
    if (format.code_bits == 6)
      return AddByteRun<ByteType<6, true, 4, true>>(job, run, table, rows, sums);
    if (format.code_bits == 5)
      return AddByteRun<ByteType<5, true, 8, true>>(job, run, table, rows, sums);
    if (short_groups) return AddByteRun<ByteType<4, true, 4, true>>(job, run, table, rows, sums);
    return AddByteRun<ByteType<4, true, 8, true>>(job, run, table, rows, sums);
  }
  if (format.code_bits == 5)
    return AddByteRun<ByteType<5, true, 8, false>>(job, run, table, rows, sums);
  if (format.code_bits == 8 && short_groups) {
    return AddByteRun<ByteType<8, true, 4, false>>(job, run, table, rows, sums);
  }
  if (format.code_bits == 8)
    return AddByteRun<ByteType<8, true, 8, false>>(job, run, table, rows, sums);
  if (format.linear) return AddByteRun<ByteType<4, true, 8, false>>(job, run, table, rows, sums);
  AddByteRun<ByteType<4, false, 8, false>>(job, run, table, rows, sums);
}

/// Numbers of a run's header in the forms that its kernels read.
struct ByteRunNumbers {
  alignas(64) uint8_t factors[16 * 256];  // or scales
  alignas(64) float minimums[16 * 64];
  alignas(64) uint8_t pairs[8 * 128];
};

/// out [16][2] = bytes of a beside those of b.
inline void InterleaveBytes(const uint8_t* a, const uint8_t* b, uint8_t* out) {
  const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(a));
  const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b));
  _mm_store_si128(reinterpret_cast<__m128i*>(out), _mm_unpacklo_epi8(first, second));
  _mm_store_si128(reinterpret_cast<__m128i*>(out) + 1, _mm_unpackhi_epi8(first, second));
}

/// Of a unit whose scales are f16 times int8.
inline void ReadUnitHeader(const GroupFormat& format, const uint8_t* header,
                           ByteRunNumbers& numbers, ByteRun& run) {
  constexpr int kHalfBytes = 128;
  run.halves = header;
  const uint8_t* const factors = header + kHalfBytes;
  AskForLines<kHalfBytes>(header);
  for (int group = 0; group < run.groups; ++group) {
    AskForLines<64>(factors + 64 * group);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      // Codes of any width below 8 bits take their factors in the same form.
      Simd::StoreBytes(numbers.factors + 256 * group + 64 * c,
                       Simd::ByteDots<4>::FactorsOf(factors + 64 * group + 16 * c));
    }
  }
  const uint8_t* const minimums = format.has_minimum ? header + format.scale_bytes() : header;
  run.minimum_halves = minimums;
  run.minimum_factor = format.has_minimum ? 1.0f : -static_cast<float>(format.offset());
  for (int group = 0; group < run.groups; group += 2) {
    const uint8_t* const at = minimums + kHalfBytes + 64 * group;
    if (format.has_minimum) AskForLines<128>(at);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      InterleaveBytes(at + 16 * c, at + 64 + 16 * c, numbers.pairs + 64 * group + 32 * c);
    }
  }
  run.factors = numbers.factors;
  run.pairs = numbers.pairs;
}

/// Of units whose scales are one for each group.
inline void ReadGroupHeaders(const GroupFormat& format, const uint8_t* header, int units,
                             ByteRunNumbers& numbers, ByteRun& run) {
  float* const scales = reinterpret_cast<float*>(numbers.factors);
  WidenHeaders(format, header, units, scales, numbers.minimums);
  run.scales = scales;
  run.minimums = numbers.minimums;
  if (format.has_minimum && format.code_bits != 8) return;
  const Simd::Float factor = Simd::Set(-static_cast<float>(format.offset()));
  for (int i = 0; i < 64 * run.groups; i += 16) {
    const Simd::Float below = Simd::Load(scales + i);
    const Simd::Float minimum =
        format.has_minimum ? Simd::Load(numbers.minimums + i) : Simd::Zero();
    Simd::Store(numbers.minimums + i, Simd::Fma(factor, below, minimum));
  }
}

/// sums [rows][64] += x times the panel.
inline void AddBytePanel(const PanelJob& job, float* sums) {
  const GroupFormat& format = *job.groups;
  const Simd::CodeTable table = Simd::LoadTable(format.values.data(), format.offset());
  const ByteRows& x = job.x_bytes;
  ByteRunNumbers numbers;
  const uint8_t* block = job.panel;
  const int64_t inputs = 2 * job.steps;
  for (int64_t input = 0; input < inputs; input += kByteBlockInputs) {
    const int64_t in_block = input % kGroupBlockInputs;
    const int64_t left = inputs - input;
    const int64_t block_left = left + in_block;
    const int64_t block_units =
        (block_left < kGroupBlockInputs ? block_left : kGroupBlockInputs) / format.unit_inputs();
    const int64_t unit = in_block / format.unit_inputs();
    const int units = static_cast<int>((left < kByteBlockInputs ? left : kByteBlockInputs) /
                                       format.unit_inputs());
    const uint8_t* const header = block + unit * format.header_bytes();
    ByteRun run = {};
    run.groups = units * format.groups_per_unit();
    const int64_t headers_bytes = block_units * format.header_bytes();
    run.codes = block + headers_bytes + unit * format.code_bytes();
    const bool ends_block = in_block + kByteBlockInputs >= kGroupBlockInputs;
    const uint8_t* const codes_end = run.codes + units * format.code_bytes();
    run.next = left > kByteBlockInputs ? codes_end : job.next_panel;
    if (job.rows > 1 && run.next != nullptr) {
      run.next_bytes = codes_end - run.codes + (ends_block ? headers_bytes : 0);
    }
    ByteRunRows rows = {.x = job.x + input,
                        .x_stride = job.x_stride_bytes,
                        .scales = x.scales + input / format.unit_inputs(),
                        .scales_stride = x.scales_stride,
                        .totals = nullptr,
                        .sums = nullptr,
                        .sums_stride = x.sums_stride};
    if (format.scales == GroupScales::kHalfTimesInt8) {
      ReadUnitHeader(format, header, numbers, run);
      rows.sums = x.sums + input / format.group_inputs;
    } else {
      ReadGroupHeaders(format, header, units, numbers, run);
      rows.totals = x.totals + input / format.group_inputs;
    }
    AddByteRunOf(format, job, run, table, rows, sums);
    if (in_block + kByteBlockInputs == kGroupBlockInputs)
      block += block_units * format.unit_bytes();
  }
}

}  // namespace
}  // namespace neurogrid
