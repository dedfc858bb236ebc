// A panel of integers in groups (packed_groups.h) times rows of 16-bit integers.
//
// Activations are integers of 16 bits times a power of two for each kGroupBlockInputs inputs of a
// row (Kernels::quantize_blocks), so the products of a group add up exactly in int32, in any order.
// For each block of a row,
//
//   part = fma(minimum, sum of the group's activations, part), where there are minimums, and
//   part = fma(scale, sum of the group's products, part)
//
// in the order of the groups; then sum = fma(the block's power of two, part, sum).
#pragma once

#include "engine/cpu/kernels.h"
#include "engine/cpu/kernels_math.h"
#include "engine/cpu/packed_groups.h"

namespace neurogrid {
namespace {

constexpr int kGroupBlockGroups = kGroupBlockInputs / 16;

/// Rows from which codes become bytes once, in L2, instead of in registers for each tile anew.
constexpr int WideRowsMin(int code_bits) {
  return code_bits == 4 ? Simd::kWideRowsMinOf4 : Simd::kWideRowsMin;
}

/// Blocks are asked for Simd::kGroupAheadBytes ahead, line after line: instructions between the
/// loads let a processor look ahead less than memory wants, and loads out of turn mislead its
/// prefetcher, as many lines at once do too.
template <int64_t kBytes>
[[gnu::always_inline]] inline void AskForLines(const uint8_t* p) {
#pragma GCC unroll 8
  for (int64_t at = 0; at < kBytes; at += 64) __builtin_prefetch(p + Simd::kGroupAheadBytes + at);
}

/// Columns of sixteen outputs that a tile of so many rows sums side by side in registers.
template <int kRows>
constexpr int kGroupColumns =
    kRows <= Simd::kFewRowsMax ? Simd::kFewRowsColumns : Simd::kGroupColumns;

/// Groups side by side: all those of a block.
struct GroupRun {
  const uint8_t* codes;
  int groups;
  int octets_per_group;
  int offset;  // of codes above the integers they stand for
  // More rows than one leave time for the next block's codes to come into L2: with each group
  // `share` bytes are asked for, from `next` on, then a group further. Into L1, or all of them by
  // the first tile, gains half as much. Null and 0: nothing.
  const uint8_t* next;
  int64_t share;          // of each tile and pass
  const float* scales;    // [groups][64]
  const float* minimums;  // the same, or null
};

/// Some rows of activations beside a block.
struct GroupRows {
  const uint8_t* x;
  int64_t x_stride;
  const int32_t* sums;  // [groups] of a row; null where neither offset nor minimums want them
  int64_t sums_stride;
  const float* scales;  // one of a row
  int64_t scales_stride;
};

/// Two steps of a panel: fours of all 64 outputs, sixteen in each of four columns.
template <int kBits, bool kLinear>
struct Octet {
  static constexpr int64_t kBytes = 64 * kBits;
  static Simd::Bytes Load(const uint8_t* octet, int step, int column,
                          const Simd::CodeTable& table) {
    if constexpr (kBits == 8) {
      return Simd::LoadBytes(octet + 256 * step + 64 * column);
    } else {
      const Simd::Bytes both = Simd::LoadBytes(octet + 128 * step + 64 * (column / 2));
      const Simd::Bytes low = Simd::MaskBytes(Simd::ShiftBytes(both, 4 * (column % 2)), 0x0f);
      if constexpr (!kLinear) return Simd::LookUp(low, table);
      if constexpr (kBits == 4) return low;
      // From their place in the byte to bit 4.
      const int shift = kBits == 5 ? 4 * step + column - 4 : 2 * column - 4;
      const uint8_t* above = octet + 256 + (kBits == 5 ? 0 : 64 * step);
      return Simd::OrMasked(low, Simd::ShiftBytes(Simd::LoadBytes(above), shift),
                            kBits == 5 ? 0x10 : 0x30);
    }
  }
};

/// What a pass asks for beside a group. Inlined, because GCC drops calls of what only prefetches.
template <class Codes>
[[gnu::always_inline]] inline void AskForNext(const GroupRun& run, int group, int pass) {
  const int64_t groups_before = group * run.octets_per_group * Codes::kBytes;
  if (run.share == 0) return;
  const uint8_t* const next = run.next + groups_before + run.share * pass;
  for (int64_t at = 0; at < run.share; at += 64) __builtin_prefetch(next + at, 0, 2);
}

/// part += the products of one group with the columns from `first` on, times its scales, and what
/// its minimums add. Inlined: `part` stays in registers.
template <class Codes, int kRows, int kColumns>
[[gnu::always_inline]] inline void AddGroup(const GroupRun& run, const Simd::CodeTable& table,
                                            const GroupRows& rows, int group, int first,
                                            Simd::Float (&part)[kRows][kColumns]) {
  constexpr int kAtOnce = Simd::kGroupColumnsAtOnce<kColumns>;
  const uint8_t* a = rows.x + int64_t{16} * group * run.octets_per_group;
  const uint8_t* octet = run.codes + Codes::kBytes * group * run.octets_per_group;
  Simd::SplitSum chain[kRows][kColumns / kAtOnce][kAtOnce];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
    const Simd::SplitSum start =
        Simd::StartSum(run.offset == 0 ? 0 : -run.offset * rows.sums[r * rows.sums_stride + group]);
#pragma GCC unroll 4
    for (int c = 0; c < kColumns; ++c) chain[r][c / kAtOnce][c % kAtOnce] = start;
  }
  for (int o = 0; o < run.octets_per_group; ++o, octet += Codes::kBytes, a += 16) {
    if (kRows == 1 && first == 0) AskForLines<Codes::kBytes>(octet);
#pragma GCC unroll 2
    for (int step = 0; step < 2; ++step) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; c += kAtOnce) {
        Simd::Fours weight[kAtOnce];
#pragma GCC unroll 4
        for (int i = 0; i < kAtOnce; ++i) {
          weight[i] = Simd::FoursOf(Codes::Load(octet, step, first + c + i, table));
        }
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) {
          Simd::DotFours(chain[r][c / kAtOnce], weight,
                         Simd::LoadSplit(a + 8 * step + r * rows.x_stride));
        }
      }
    }
  }
  const int64_t at = 64 * group + 16 * first;
  if (run.minimums != nullptr) {
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Simd::Float x_sum =
          Simd::Set(static_cast<float>(rows.sums[r * rows.sums_stride + group]));
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) {
        part[r][c] = Simd::Fma(Simd::Load(run.minimums + at + 16 * c), x_sum, part[r][c]);
      }
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < kColumns; ++c) {
    const Simd::Float scale = Simd::Load(run.scales + at + 16 * c);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Simd::Float total = Simd::ToFloat(Simd::TotalOf(chain[r][c / kAtOnce][c % kAtOnce]));
      part[r][c] = Simd::Fma(scale, total, part[r][c]);
    }
  }
}

/// sums [kRows][64] += the products of a run.
/// Not inlined, like SumTile, so that tests/disassembly_test.py finds its inner loops.
template <class Codes, int kRows>
[[gnu::noinline]] void AddGroups(const GroupRun& run, const Simd::CodeTable& table,
                                 const GroupRows& rows, float* sums) {
  constexpr int kColumns = kGroupColumns<kRows>;
  // One row goes through all columns of a group before it comes to the next, so that memory has no
  // pause while lines are passed over again; more rows keep their parts in registers.
  constexpr int kPasses = kRows == 1 ? 4 / kColumns : 1;
  for (int first = 0; first < 4; first += kPasses * kColumns) {
    Simd::Float part[kPasses][kRows][kColumns];
#pragma GCC unroll 8
    for (int i = 0; i < kPasses * kRows * kColumns; ++i) {
      part[i / kColumns / kRows][i / kColumns % kRows][i % kColumns] = Simd::Zero();
    }
    for (int group = 0; group < run.groups; ++group) {
      if (kRows > 1) AskForNext<Codes>(run, group, first / kColumns);
#pragma GCC unroll 4
      for (int pass = 0; pass < kPasses; ++pass) {
        AddGroup<Codes>(run, table, rows, group, first + pass * kColumns, part[pass]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Simd::Float x_scale = Simd::Set(rows.scales[r * rows.scales_stride]);
#pragma GCC unroll 4
      for (int c = 0; c < kPasses * kColumns; ++c) {
        float* sum = sums + 64 * r + 16 * (first + c);
        const Simd::Float value = part[c / kColumns][r][c % kColumns];
        Simd::Store(sum, Simd::Fma(x_scale, value, Simd::Load(sum)));
      }
    }
  }
}

template <class Codes, int kRows>
void AddGroupsOf(int count, const GroupRun& run, const Simd::CodeTable& table,
                 const GroupRows& rows, float* sums) {
  if constexpr (kRows > 0) {
    if (count == kRows) {
      AddGroups<Codes, kRows>(run, table, rows, sums);
    } else {
      AddGroupsOf<Codes, kRows - 1>(count, run, table, rows, sums);
    }
  }
}

/// Writes out [groups of a unit][64]: what its header keeps at `kept`, as f32.
template <GroupScales kKind>
void WidenUnitScales(const uint8_t* kept, int groups, float* out) {
  constexpr int64_t kSize = kKind == GroupScales::kFloat ? 4 : kKind == GroupScales::kHalf ? 2 : 1;
  Simd::Float halves[4];
  if constexpr (kKind == GroupScales::kHalfTimesInt8) {
    AskForLines<128>(kept);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) halves[c] = Simd::LoadHalves(kept + 32 * c);
    kept += 128;
  }
  for (int g = 0; g < groups; ++g) {
    AskForLines<64 * kSize>(kept + 64 * kSize * g);
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      const int at = 64 * g + 16 * c;
      Simd::Float scale;
      if constexpr (kKind == GroupScales::kFloat) {
        scale = Simd::Load(reinterpret_cast<const float*>(kept) + at);
      } else if constexpr (kKind == GroupScales::kHalf) {
        scale = Simd::LoadHalves(kept + 2 * at);
      } else {
        scale = Simd::Mul(halves[c], Simd::LoadInt8(kept + at));
      }
      Simd::Store(out + at, scale);
    }
  }
}

/// The same of all units, and of minimums where there are any: line after line of memory.
template <GroupScales kKind>
void WidenHeadersOf(const GroupFormat& format, const uint8_t* header, int units, float* scales,
                    float* minimums) {
  const int64_t scale_bytes = format.scale_bytes();
  const int64_t header_bytes = format.header_bytes();
  const int groups = format.groups_per_unit();
  for (int unit = 0; unit < units; ++unit, header += header_bytes) {
    WidenUnitScales<kKind>(header, groups, scales + 64 * unit * groups);
    if (!format.has_minimum) continue;
    WidenUnitScales<kKind>(header + scale_bytes, groups, minimums + 64 * unit * groups);
  }
}

inline void WidenHeaders(const GroupFormat& format, const uint8_t* header, int units, float* scales,
                         float* minimums) {
  switch (format.scales) {
    case GroupScales::kHalf:
      return WidenHeadersOf<GroupScales::kHalf>(format, header, units, scales, minimums);
    case GroupScales::kHalfTimesInt8:
      return WidenHeadersOf<GroupScales::kHalfTimesInt8>(format, header, units, scales, minimums);
    case GroupScales::kFloat:
      return WidenHeadersOf<GroupScales::kFloat>(format, header, units, scales, minimums);
  }
}

/// Writes codes as Octet<8> reads them, each as much above its value as before.
template <class Codes>
void WidenCodes(const uint8_t* octet, int octets, const Simd::CodeTable& table, uint8_t* out) {
  for (int o = 0; o < octets; ++o, octet += Codes::kBytes, out += Octet<8, true>::kBytes) {
#pragma GCC unroll 2
    for (int step = 0; step < 2; ++step) {
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        Simd::StoreBytes(out + 256 * step + 64 * c, Codes::Load(octet, step, c, table));
      }
    }
  }
}

/// A block times all rows of the job.
template <class Codes>
void AddTiles(const PanelJob& job, GroupRun run, const Simd::CodeTable& table, int64_t input,
              float* sums) {
  const GroupedRows& x = job.x_blocks;
  const int64_t group = input / job.groups->group_inputs;
  const int tiles = (job.rows + Simd::kGroupTileRows - 1) / Simd::kGroupTileRows;
  constexpr int kPasses = 4 / Simd::kGroupColumns;
  if (run.next != nullptr) {
    // Each tile and pass asks for as much, so that memory has all the time there is.
    run.share = (run.octets_per_group * Codes::kBytes / (kPasses * tiles) + 63) / 64 * 64;
  }
  for (int tile = 0; tile < tiles; ++tile) {
    const int first = job.rows * tile / tiles;
    const int count = job.rows * (tile + 1) / tiles - first;
    const GroupRows rows = {
        .x = job.x + first * job.x_stride_bytes + 2 * input,
        .x_stride = job.x_stride_bytes,
        .sums = x.sums + first * x.sums_stride + group,
        .sums_stride = x.sums_stride,
        .scales = x.scales + first * x.scales_stride + input / kGroupBlockInputs,
        .scales_stride = x.scales_stride};
    AddGroupsOf<Codes, Simd::kGroupTileRows>(count, run, table, rows, sums + 64 * first);
    run.next += kPasses * run.share;
  }
}

/// The same by way of bytes. Not inlined: compilers touch every page of a frame on entry, which
/// costs a job of one row a tenth of its time.
template <class Codes>
[[gnu::noinline]] void AddWideTiles(const PanelJob& job, GroupRun run, const Simd::CodeTable& table,
                                    int64_t input, float* sums) {
  alignas(64) uint8_t wide[kGroupBlockInputs * 64];  // 32 KiB
  WidenCodes<Codes>(run.codes, run.groups * run.octets_per_group, table, wide);
  run.codes = wide;
  run.next = nullptr;
  AddTiles<Octet<8, true>>(job, run, table, input, sums);
}

template <int kBits, bool kLinear = true>
void AddBlock(const PanelJob& job, const GroupRun& run, const Simd::CodeTable& table, int64_t input,
              float* sums) {
  using Codes = Octet<kBits, kLinear>;
  if (kBits != 8 && job.rows >= WideRowsMin(kBits)) {
    AddWideTiles<Codes>(job, run, table, input, sums);
  } else {
    AddTiles<Codes>(job, run, table, input, sums);
  }
}

/// sums [rows][64] += x times the panel.
void AddGroupedPanel(const PanelJob& job, float* sums) {
  alignas(64) float scales[kGroupBlockGroups * 64];
  alignas(64) float minimums[kGroupBlockGroups * 64];
  const GroupFormat& format = *job.groups;
  const Simd::CodeTable table = Simd::LoadTable(format.values.data(), format.offset());
  GroupRun run = {};
  run.octets_per_group = format.group_inputs / 8;
  run.offset = format.offset();
  run.scales = scales;
  run.minimums = format.has_minimum ? minimums : nullptr;
  const uint8_t* block = job.panel;
  const int64_t inputs = 2 * job.steps;
  for (int64_t input = 0; input < inputs; input += kGroupBlockInputs) {
    const int64_t left = inputs - input;
    const int units = static_cast<int>((left < kGroupBlockInputs ? left : kGroupBlockInputs) /
                                       format.unit_inputs());
    run.groups = units * format.groups_per_unit();
    run.codes = block + units * format.header_bytes();
    WidenHeaders(format, block, units, scales, minimums);
    const int64_t block_bytes = units * format.unit_bytes();
    const uint8_t* const next = left > kGroupBlockInputs ? block + block_bytes : job.next_panel;
    const bool next_is_as_long = left >= 2 * kGroupBlockInputs || left == kGroupBlockInputs;
    run.next = nullptr;
    if (job.rows > 1 && next != nullptr && next_is_as_long) {
      run.next = next + units * format.header_bytes();
    }
    switch (format.code_bits) {
      case 4:
        if (format.linear) {
          AddBlock<4>(job, run, table, input, sums);
        } else {
          AddBlock<4, false>(job, run, table, input, sums);
        }
        break;
      case 5:
        AddBlock<5>(job, run, table, input, sums);
        break;
      case 6:
        AddBlock<6>(job, run, table, input, sums);
        break;
      default:
        AddBlock<8>(job, run, table, input, sums);
    }
    block += block_bytes;
  }
}

}  // namespace
}  // namespace neurogrid
