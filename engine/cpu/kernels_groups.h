// A panel of integers in groups (packed_groups.h) times rows of bf16 activations.
//
// The integers have at most eight significant bits, so they are bf16 numbers, and the dot product
// instruction takes them beside the activations as these are: each group of inputs is one chain of
// exact products summed in f32, and its scale enters once. For each block of 512 inputs,
//
//   sum = fma(minimum, sum of the group's activations, sum)  for every group, then
//   sum = fma(scale, chain, sum)                             for every group,
//
// in the order of the groups. A tile of few rows turns codes into bf16 in registers as it streams
// the panel; with more rows, codes become bf16 once and wait in L2. The bits are the same.
#pragma once

#include "engine/cpu/kernels.h"
#include "engine/cpu/kernels_math.h"
#include "engine/cpu/packed_groups.h"

namespace neurogrid {
namespace {

constexpr int kGroupBlockGroups = kGroupBlockInputs / 16;
constexpr int kInRegisterTileRows = 4;  // beside the sums there is room for tables

/// Rows up to which codes are looked up for each tile anew: dearer ones pay off sooner once
/// widened, those of four bits never.
constexpr int InRegisterRowsMax(int code_bits) {
  if (!Simd::kLooksUpInRegisters) return 0;
  return code_bits == 4 ? kPanelRowsMax : code_bits == 8 ? 24 : 32;
}

/// Groups side by side.
struct GroupRun {
  const uint8_t* codes;
  int groups;
  int quads_per_group;
  const float* scales;    // [groups][64]
  const float* minimums;  // the same, or null
};

/// Four steps of a panel: pairs of all 64 outputs, sixteen in each of four columns.
template <int kBits>
struct PackedQuad {
  static constexpr int64_t kBytes = 64 * kBits;
  template <int kRows>
  static constexpr int kColumns = 4;
  using Table = Simd::CodeTable;
  static auto Bits(const uint8_t* quad, int step, int column, const Table& table) {
    if constexpr (kBits == 8) {
      return Simd::PairsOfBytes(quad + 128 * step + 64 * (column / 2), column % 2 != 0);
    } else {
      const Simd::Codes low = Simd::ShiftCodes(Simd::LoadCodes(quad + 64 * step), 4 * column);
      if constexpr (kBits == 4) return Simd::LookUp<4>(low, table);
      // Their place in the word above, less the place they take in the code.
      const int shift = kBits == 5 ? 4 * step + column - 4 : 8 * (step % 2) + 2 * column - 4;
      const uint8_t* above = quad + 256 + (kBits == 5 ? 0 : 64 * (step / 2));
      const Simd::Codes high = Simd::ShiftCodes(Simd::LoadCodes(above), shift);
      return Simd::LookUp<kBits>(Simd::JoinCodes(low, high), table);
    }
  }
  static auto Load(const uint8_t* quad, int step, int column, const Table& table) {
    return Bits(quad, step, column, table);
  }
};

/// The same after codes have become bf16.
struct WideQuad {
  static constexpr int64_t kBytes = 1024;
  // Chains and sums side by side in registers.
  template <int kRows>
  static constexpr int kColumns = Simd::kLooksUpInRegisters ? 2 : 1;
  using Table = Simd::CodeTable;
  static Simd::Pairs Load(const uint8_t* quad, int step, int column, const Table&) {
    return Simd::LoadPairs(quad + 256 * step + 64 * column);
  }
};

/// sums [kRows][64] += the groups of a run.
template <class Quad, int kRows>
void AddGroups(const GroupRun& run, const Simd::CodeTable& table, const uint8_t* x,
               int64_t x_stride, float* sums) {
  constexpr int kColumns = Quad::template kColumns<kRows>;
  for (int first = 0; first < 4; first += kColumns) {
    Simd::Float sum[kRows][kColumns];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) sum[r][c] = Simd::Load(sums + 64 * r + 16 * (first + c));
    }
    const uint8_t* a = x;
    const uint8_t* quad = run.codes;
    const float* scales = run.scales + 16 * first;
    for (int group = 0; group < run.groups; ++group, scales += 64) {
      Simd::Float chain[kRows][kColumns];
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
        for (int c = 0; c < kColumns; ++c) chain[r][c] = Simd::Zero();
      }
      for (int q = 0; q < run.quads_per_group; ++q, quad += Quad::kBytes, a += 16) {
#pragma GCC unroll 4
        for (int step = 0; step < 4; ++step) {
          Simd::Pairs weight[kColumns];
#pragma GCC unroll 4
          for (int c = 0; c < kColumns; ++c) {
            weight[c] = Quad::Load(quad, step, first + c, table);
          }
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) {
            const Simd::Pair activation = Simd::BroadcastPair(a + 4 * step + r * x_stride);
#pragma GCC unroll 4
            for (int c = 0; c < kColumns; ++c) {
              chain[r][c] = Simd::Dot(chain[r][c], weight[c], activation);
            }
          }
        }
      }
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) {
        const Simd::Float scale = Simd::Load(scales + 16 * c);
#pragma GCC unroll 8
        for (int r = 0; r < kRows; ++r) sum[r][c] = Simd::Fma(scale, chain[r][c], sum[r][c]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) Simd::Store(sums + 64 * r + 16 * (first + c), sum[r][c]);
    }
  }
}

/// sums [kRows][64] += minimum times the sum of the activations, for every group of a run.
template <int kRows>
void AddMinimums(const GroupRun& run, const float* x_sums, int64_t x_sums_stride, float* sums) {
  constexpr int kColumns = Simd::kTileColumns<kRows>;
  for (int first = 0; first < 4; first += kColumns) {
    Simd::Float sum[kRows][kColumns];
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) sum[r][c] = Simd::Load(sums + 64 * r + 16 * (first + c));
    }
    for (int group = 0; group < run.groups; ++group) {
      const float* minimums = run.minimums + 64 * group + 16 * first;
      Simd::Float minimum[kColumns];
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) minimum[c] = Simd::Load(minimums + 16 * c);
#pragma GCC unroll 8
      for (int r = 0; r < kRows; ++r) {
        const Simd::Float x_sum = Simd::Broadcast(x_sums + r * x_sums_stride + group);
#pragma GCC unroll 4
        for (int c = 0; c < kColumns; ++c) sum[r][c] = Simd::Fma(minimum[c], x_sum, sum[r][c]);
      }
    }
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 4
      for (int c = 0; c < kColumns; ++c) Simd::Store(sums + 64 * r + 16 * (first + c), sum[r][c]);
    }
  }
}

template <class Quad, int kRows>
void AddGroupsOf(int rows, const GroupRun& run, const Simd::CodeTable& table, const uint8_t* x,
                 int64_t x_stride, const float* x_sums, int64_t x_sums_stride, float* sums) {
  if constexpr (kRows > 0) {
    if (rows == kRows) {
      if (run.minimums != nullptr) AddMinimums<kRows>(run, x_sums, x_sums_stride, sums);
      AddGroups<Quad, kRows>(run, table, x, x_stride, sums);
    } else {
      AddGroupsOf<Quad, kRows - 1>(rows, run, table, x, x_stride, x_sums, x_sums_stride, sums);
    }
  }
}

/// Writes out [groups of the units][64]: what the units' headers keep at `kept` as f32, times
/// `factor`.
inline void WidenScales(const GroupFormat& format, const uint8_t* kept, int units, float factor,
                        float* out) {
  const int groups = format.groups_per_unit();
  for (int unit = 0; unit < units; ++unit, kept += format.header_bytes()) {
    for (int g = 0; g < groups; ++g, out += 64) {
      for (int n = 0; n < 64; n += 16) {
        Simd::Float scale;
        if (format.scales == GroupScales::kFloat) {
          scale = Simd::Load(reinterpret_cast<const float*>(kept) + 64 * g + n);
        } else if (format.scales == GroupScales::kHalf) {
          scale = Simd::LoadHalves(kept + 2 * (64 * g + n));
        } else {
          scale =
              Simd::Mul(Simd::LoadHalves(kept + 2 * n), Simd::LoadInt8(kept + 64 * (2 + g) + n));
        }
        Simd::Store(out + n, Simd::Mul(scale, Simd::Set(factor)));
      }
    }
  }
}

/// Writes out [steps][64][2] bf16.
template <int kBits>
void WidenCodes(const uint8_t* quad, int quads, const Simd::CodeTable& table, uint8_t* out) {
  for (int q = 0; q < quads; ++q, quad += PackedQuad<kBits>::kBytes, out += WideQuad::kBytes) {
#pragma GCC unroll 4
    for (int step = 0; step < 4; ++step) {
#pragma GCC unroll 4
      for (int c = 0; c < 4; ++c) {
        Simd::StorePairs(out + 256 * step + 64 * c, PackedQuad<kBits>::Bits(quad, step, c, table));
      }
    }
  }
}

/// A block times all rows of the job. `wide`: space for its codes as bf16.
template <int kBits>
void AddBlock(const PanelJob& job, GroupRun run, const Simd::CodeTable& table, int64_t input,
              uint8_t* wide, float* sums) {
  const bool in_registers = job.rows <= InRegisterRowsMax(kBits);
  if (!in_registers) {
    WidenCodes<kBits>(run.codes, run.groups * run.quads_per_group, table, wide);
    run.codes = wide;
  }
  const int height = in_registers ? kInRegisterTileRows : Simd::kTileRows;
  const int tiles = (job.rows + height - 1) / height;
  for (int tile = 0; tile < tiles; ++tile) {
    const int first = job.rows * tile / tiles;
    const int rows = job.rows * (tile + 1) / tiles - first;
    const uint8_t* x = job.x + first * job.x_stride_bytes + 2 * input;
    const float* x_sums = job.x_sums == nullptr ? nullptr
                                                : job.x_sums + first * job.x_sums_stride +
                                                      input / job.groups->group_inputs;
    if constexpr (Simd::kLooksUpInRegisters) {
      if (in_registers) {
        AddGroupsOf<PackedQuad<kBits>, kInRegisterTileRows>(
            rows, run, table, x, job.x_stride_bytes, x_sums, job.x_sums_stride, sums + 64 * first);
        continue;
      }
    }
    AddGroupsOf<WideQuad, Simd::kTileRows>(rows, run, table, x, job.x_stride_bytes, x_sums,
                                           job.x_sums_stride, sums + 64 * first);
  }
}

/// sums [rows][64] += x times the panel.
void AddGroupedPanel(const PanelJob& job, float* sums) {
  alignas(64) uint8_t wide[kGroupBlockInputs * 128];  // 64 KiB
  alignas(64) float scales[kGroupBlockGroups * 64];
  alignas(64) float minimums[kGroupBlockGroups * 64];
  const GroupFormat& format = *job.groups;
  const Simd::CodeTable table = Simd::LoadTable(format.values.data(), format.bf16_values.data());
  GroupRun run = {};
  run.quads_per_group = format.group_inputs / 8;
  run.scales = scales;
  run.minimums = format.has_minimum ? minimums : nullptr;
  const float code_unit = format.code_bits == 8 ? Simd::kByteUnit : 1.0f;
  const uint8_t* block = job.panel;
  const int64_t inputs = 2 * job.steps;
  for (int64_t input = 0; input < inputs; input += kGroupBlockInputs) {
    const int64_t left = inputs - input;
    const int units = static_cast<int>((left < kGroupBlockInputs ? left : kGroupBlockInputs) /
                                       format.unit_inputs());
    run.groups = units * format.groups_per_unit();
    run.codes = block + units * format.header_bytes();
    WidenScales(format, block, units, code_unit, scales);
    if (format.has_minimum) {
      WidenScales(format, block + format.scale_bytes(), units, 1, minimums);
    }
    switch (format.code_bits) {
      case 4:
        AddBlock<4>(job, run, table, input, wide, sums);
        break;
      case 5:
        AddBlock<5>(job, run, table, input, wide, sums);
        break;
      case 6:
        AddBlock<6>(job, run, table, input, wide, sums);
        break;
      default:
        AddBlock<8>(job, run, table, input, wide, sums);
    }
    block += units * format.unit_bytes();
  }
}

}  // namespace
}  // namespace neurogrid
