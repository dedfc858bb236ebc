// What GGUF's block types have in common: small integers, and a scale for each group of them.
#pragma once

#include <array>
#include <cstdint>

#include "common/dtype.h"

namespace neurogrid {

/// How scales are kept, and how many inputs one unit of a panel spans.
enum class GroupScales {
  kHalf,           // an f16 for each group; units of 32 inputs
  kHalfTimesInt8,  // an f16 for 256 inputs, times an int8 of each group; units of 256 inputs
  kFloat,          // an f32 for each group; units of 32 inputs
};

/// A weight of integers in groups along a row: w = scale * ValueOf(code) (+ minimum), in float32,
/// product by product. A scale of kHalfTimesInt8 is exact in float32: 11 bits times 8.
struct GroupFormat {
  int code_bits = 8;      // 4, 5, 6 or 8 as packed
  int group_inputs = 32;  // 16 or 32
  GroupScales scales = GroupScales::kHalf;
  bool has_minimum = false;  // kept as its scale is; added
  // Of each code, repeated to the table's end. Unused with 8 bits: the code is the value.
  std::array<int8_t, 64> values = {};
  bool linear = true;  // values of fewer than 8 bits count up from -offset()

  int unit_inputs() const { return scales == GroupScales::kHalfTimesInt8 ? 256 : 32; }
  int groups_per_unit() const { return unit_inputs() / group_inputs; }
  int ValueOf(uint8_t code) const {
    return code_bits == 8 ? static_cast<int8_t>(code) : values[code & 63];
  }
  /// How much is added to values, so that the CPU's kernels see unsigned bytes.
  int offset() const { return linear && code_bits != 8 ? -values[0] : 128; }

  // A unit of a panel of 64 outputs in memory: a header of scales and minimums, and codes
  // (packed_groups.h).
  int64_t scale_bytes() const;  // of the scales alone; minimums take as much
  int64_t header_bytes() const { return scale_bytes() * (has_minimum ? 2 : 1); }
  int64_t code_bytes() const { return int64_t{8} * unit_inputs() * code_bits; }
  int64_t unit_bytes() const { return header_bytes() + code_bytes(); }
};

bool IsBlockType(DType dtype);

/// Of a block type.
const GroupFormat& GroupFormatOf(DType dtype);

/// Holds values of any two block types side by side: 8-bit codes, f32 scale and minimum for each 16
/// inputs.
const GroupFormat& WideGroupFormat();

/// The numbers of one block. The scale of group g is half(scale) * scale_factors[g], its minimum
/// half(minimum) * minimum_factors[g]; without factors where the format has none.
struct BlockNumbers {
  std::array<uint8_t, 256> codes;
  uint16_t scale = 0;
  uint16_t minimum = 0;
  std::array<int8_t, 16> scale_factors;
  std::array<int8_t, 16> minimum_factors;

  float ScaleOf(const GroupFormat& format, int group) const;
  float MinimumOf(const GroupFormat& format, int group) const;
};

/// `block` lies at any address.
void DecodeBlock(DType dtype, const uint8_t* block, BlockNumbers& numbers);

/// Bytes of a panel of 64 outputs that holds rows of `dtype`: block types in their groups, others
/// in bf16.
int64_t StoredPanelBytes(DType dtype, int64_t inputs);

/// Bytes of a tile of 16 outputs of a block type as a GPU holds it (kernels/block_format.h).
int64_t StoredTileBytes(DType dtype, int64_t inputs);
/// Of a tile of 16 outputs that holds rows of any two block types.
int64_t WideTileBytes(int64_t inputs);

}  // namespace neurogrid
