// The layouts are those of models.md 3.5.
#include "engine/model/block_groups.h"

#include <cstring>

#include "common/check.h"
#include "common/unaligned.h"

namespace neurogrid {
namespace {

constexpr int kPanelOutputs = 64;

/// Codes count up from `first`.
constexpr GroupFormat Linear(int code_bits, int group_inputs, GroupScales scales, bool has_minimum,
                             int first) {
  GroupFormat format{code_bits, group_inputs, scales, has_minimum, {}};
  if (code_bits == 8) return format;
  for (int code = 0; code < 64; ++code) {
    format.values[static_cast<size_t>(code)] = static_cast<int8_t>(first + code % (1 << code_bits));
  }
  return format;
}

constexpr GroupFormat IQ4_NL() {
  constexpr int8_t kValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                  1,    13,   25,  38,  53,  69,  89,  113};
  GroupFormat format{.code_bits = 4, .linear = false};
  for (size_t code = 0; code < 64; ++code) {
    format.values[code] = kValues[code % 16];
  }
  return format;
}

constexpr GroupScales kHalf = GroupScales::kHalf;
constexpr GroupScales kTimes = GroupScales::kHalfTimesInt8;
constexpr GroupFormat kQ4_0 = Linear(4, 32, kHalf, false, -8);
constexpr GroupFormat kQ4_1 = Linear(4, 32, kHalf, true, 0);
constexpr GroupFormat kQ5_0 = Linear(5, 32, kHalf, false, -16);
constexpr GroupFormat kQ5_1 = Linear(5, 32, kHalf, true, 0);
constexpr GroupFormat kQ8_0 = Linear(8, 32, kHalf, false, 0);
constexpr GroupFormat kQ2_K = Linear(4, 16, kTimes, true, 0);
constexpr GroupFormat kQ3_K = Linear(4, 16, kTimes, false, -4);
constexpr GroupFormat kQ4_K = Linear(4, 32, kTimes, true, 0);
constexpr GroupFormat kQ5_K = Linear(5, 32, kTimes, true, 0);
constexpr GroupFormat kQ6_K = Linear(6, 16, kTimes, false, -32);
constexpr GroupFormat kIQ4_NL = IQ4_NL();
constexpr GroupFormat kWide = Linear(8, 16, GroupScales::kFloat, true, 0);

uint16_t LoadHalf(const uint8_t* bytes) { return LoadUnaligned<uint16_t>(bytes); }

constexpr uint16_t kHalfSign = 0x8000;

// Codes are taken out eight at a time: a word holds those of eight neighbours, a byte each.
constexpr size_t kWord = 8;

/// The same byte eight times.
constexpr uint64_t Everywhere(uint64_t byte) { return byte * 0x0101010101010101u; }

/// Bits [shift, shift + count of ones in mask) of each byte.
uint64_t BitsOf(uint64_t word, size_t shift, uint64_t mask) {
  return (word >> shift) & Everywhere(mask);
}

/// Bit i of a byte in byte i of a word.
uint64_t SpreadBits(uint64_t bits) {
  const uint64_t own = Everywhere(bits) & 0x8040201008040201u;
  return BitsOf(own + Everywhere(0x7f), 7, 1);
}

// Each function below takes one block apart.

/// Types of 32 elements: d, m if there is one, fifth bits, then nibbles.
template <bool kMinimum, bool kFifthBits>
void DecodeNibbles(const uint8_t* block, BlockNumbers& out) {
  out.scale = LoadHalf(block);
  block += 2;
  if constexpr (kMinimum) {
    out.minimum = LoadHalf(block);
    block += 2;
  }
  uint32_t high = 0;
  if constexpr (kFifthBits) {
    high = LoadUnaligned<uint32_t>(block);
    block += 4;
  }
  for (size_t j = 0; j < 16; j += kWord) {
    const uint64_t both = LoadUnaligned<uint64_t>(block + j);
    StoreUnaligned<uint64_t>(&out.codes[j], BitsOf(both, 0, 15) | SpreadBits((high >> j) & 255)
                                                                      << 4);
    StoreUnaligned<uint64_t>(&out.codes[j + 16],
                             BitsOf(both, 4, 15) | SpreadBits((high >> (j + 16)) & 255) << 4);
  }
}

void DecodeQ8_0(const uint8_t* block, BlockNumbers& out) {
  out.scale = LoadHalf(block);
  std::memcpy(out.codes.data(), block + 2, 32);
}

void DecodeQ2_K(const uint8_t* block, BlockNumbers& out) {
  out.scale = LoadHalf(block + 80);
  out.minimum = LoadHalf(block + 82) ^ kHalfSign;  // subtracted
  for (size_t group = 0; group < 16; ++group) {
    out.scale_factors[group] = static_cast<int8_t>(block[group] & 15);
    out.minimum_factors[group] = static_cast<int8_t>(block[group] >> 4);
    const uint8_t* q = block + 16 + 32 * (group / 8) + 16 * (group % 2);
    const size_t shift = 2 * (group / 2 % 4);
    for (size_t l = 0; l < 16; l += kWord) {
      StoreUnaligned<uint64_t>(&out.codes[16 * group + l],
                               BitsOf(LoadUnaligned<uint64_t>(q + l), shift, 3));
    }
  }
}

void DecodeQ3_K(const uint8_t* block, BlockNumbers& out) {
  const uint8_t* packed = block + 96;
  out.scale = LoadHalf(block + 108);
  for (size_t group = 0; group < 16; ++group) {
    const size_t k = group % 4;
    const int nibbles = packed[k + 4 * (group / 4 % 2)];
    const int low = group < 8 ? nibbles & 15 : nibbles >> 4;
    const int high = (packed[8 + k] >> (2 * (group / 4))) & 3;
    out.scale_factors[group] = static_cast<int8_t>((low | high << 4) - 32);
    const size_t first = 16 * (group % 2);
    const uint8_t* q = block + 32 + 32 * (group / 8) + first;
    const size_t shift = 2 * (group / 2 % 4);
    for (size_t l = 0; l < 16; l += kWord) {
      const uint64_t bits =
          BitsOf(LoadUnaligned<uint64_t>(block + first + l), group / 2, 1);  // without it, 4 less
      StoreUnaligned<uint64_t>(&out.codes[16 * group + l],
                               BitsOf(LoadUnaligned<uint64_t>(q + l), shift, 3) | bits << 2);
    }
  }
}

/// Q4_K and Q5_K: eight runs of 32; `high` holds the fifth bits, or is null.
void DecodeQ45_K(const uint8_t* block, const uint8_t* high, const uint8_t* qs, BlockNumbers& out) {
  out.scale = LoadHalf(block);
  out.minimum = LoadHalf(block + 2) ^ kHalfSign;  // subtracted
  const uint8_t* packed = block + 4;
  for (size_t run = 0; run < 8; ++run) {
    int scale = packed[run] & 63;
    int minimum = packed[run + 4] & 63;
    if (run >= 4) {
      scale = (packed[run + 4] & 15) | (packed[run - 4] >> 6) << 4;
      minimum = (packed[run + 4] >> 4) | (packed[run] >> 6) << 4;
    }
    out.scale_factors[run] = static_cast<int8_t>(scale);
    out.minimum_factors[run] = static_cast<int8_t>(minimum);
    const uint8_t* q = qs + 32 * (run / 2);
    const size_t shift = 4 * (run % 2);
    for (size_t l = 0; l < 32; l += kWord) {
      const uint64_t fifth =
          high == nullptr ? 0 : BitsOf(LoadUnaligned<uint64_t>(high + l), run, 1);
      StoreUnaligned<uint64_t>(&out.codes[32 * run + l],
                               BitsOf(LoadUnaligned<uint64_t>(q + l), shift, 15) | fifth << 4);
    }
  }
}

void DecodeQ6_K(const uint8_t* block, BlockNumbers& out) {
  out.scale = LoadHalf(block + 208);
  std::memcpy(out.scale_factors.data(), block + 192, 16);
  for (size_t run = 0; run < 8; ++run) {  // 32 values each; four runs make a half
    const uint8_t* low = block + 64 * (run / 4) + 32 * (run % 2);
    const uint8_t* high = block + 128 + 32 * (run / 4);
    const size_t low_shift = 4 * (run % 4 / 2);
    const size_t high_shift = 2 * (run % 4);
    for (size_t l = 0; l < 32; l += kWord) {
      StoreUnaligned<uint64_t>(&out.codes[32 * run + l],
                               BitsOf(LoadUnaligned<uint64_t>(low + l), low_shift, 15) |
                                   BitsOf(LoadUnaligned<uint64_t>(high + l), high_shift, 3) << 4);
    }
  }
}

}  // namespace

int64_t GroupFormat::scale_bytes() const {
  switch (scales) {
    case GroupScales::kHalf:
      return 2 * kPanelOutputs * groups_per_unit();
    case GroupScales::kHalfTimesInt8:
      return (2 + groups_per_unit()) * kPanelOutputs;
    case GroupScales::kFloat:
      return 4 * kPanelOutputs * groups_per_unit();
  }
  NG_CHECK(false);
}

bool IsBlockType(DType dtype) { return InfoOf(dtype).block_elements > 1; }

const GroupFormat& GroupFormatOf(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
      return kQ4_0;
    case DType::kQ4_1:
      return kQ4_1;
    case DType::kQ5_0:
      return kQ5_0;
    case DType::kQ5_1:
      return kQ5_1;
    case DType::kQ8_0:
      return kQ8_0;
    case DType::kQ2_K:
      return kQ2_K;
    case DType::kQ3_K:
      return kQ3_K;
    case DType::kQ4_K:
      return kQ4_K;
    case DType::kQ5_K:
      return kQ5_K;
    case DType::kQ6_K:
      return kQ6_K;
    case DType::kIQ4_NL:
      return kIQ4_NL;
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kI8:
      break;
  }
  NG_CHECK(false);
}

const GroupFormat& WideGroupFormat() { return kWide; }

float BlockNumbers::ScaleOf(const GroupFormat& format, int group) const {
  const float half = HalfToFloat(scale);
  if (format.scales == GroupScales::kHalf) return half;
  return half * static_cast<float>(scale_factors[static_cast<size_t>(group)]);
}

float BlockNumbers::MinimumOf(const GroupFormat& format, int group) const {
  const float half = HalfToFloat(minimum);
  if (format.scales == GroupScales::kHalf) return half;
  return half * static_cast<float>(minimum_factors[static_cast<size_t>(group)]);
}

void DecodeBlock(DType dtype, const uint8_t* block, BlockNumbers& numbers) {
  switch (dtype) {
    case DType::kQ4_0:
    case DType::kIQ4_NL:
      return DecodeNibbles<false, false>(block, numbers);
    case DType::kQ4_1:
      return DecodeNibbles<true, false>(block, numbers);
    case DType::kQ5_0:
      return DecodeNibbles<false, true>(block, numbers);
    case DType::kQ5_1:
      return DecodeNibbles<true, true>(block, numbers);
    case DType::kQ8_0:
      return DecodeQ8_0(block, numbers);
    case DType::kQ2_K:
      return DecodeQ2_K(block, numbers);
    case DType::kQ3_K:
      return DecodeQ3_K(block, numbers);
    case DType::kQ4_K:
      return DecodeQ45_K(block, nullptr, block + 16, numbers);
    case DType::kQ5_K:
      return DecodeQ45_K(block, block + 16, block + 48, numbers);
    case DType::kQ6_K:
      return DecodeQ6_K(block, numbers);
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kI8:
      break;
  }
  NG_CHECK(false);
}

int64_t StoredPanelBytes(DType dtype, int64_t inputs) {
  if (!IsBlockType(dtype)) return 2 * kPanelOutputs * inputs;
  const GroupFormat& format = GroupFormatOf(dtype);
  NG_CHECK(inputs % format.unit_inputs() == 0);
  return inputs / format.unit_inputs() * format.unit_bytes();
}

namespace {

/// A unit of a tile: a scale, and a minimum where there is one, for each row and group, and the
/// codes.
int64_t TileBytes(const GroupFormat& format, int code_bits, int64_t inputs) {
  constexpr int64_t kRows = 16;
  const bool factors = format.scales == GroupScales::kHalfTimesInt8;
  const int64_t unit = factors ? 256 : 128;
  const int64_t groups = unit / format.group_inputs;
  const int64_t scales = kRows * (factors                               ? 2 + groups
                                  : format.scales == GroupScales::kHalf ? 2 * groups
                                                                        : 4 * groups);
  const int64_t unit_bytes = scales * (format.has_minimum ? 2 : 1) + kRows * unit * code_bits / 8;
  return (inputs + unit - 1) / unit * unit_bytes;
}

}  // namespace

int64_t StoredTileBytes(DType dtype, int64_t inputs) {
  const GroupFormat& format = GroupFormatOf(dtype);
  // Panels keep codes in four bits at least; tiles do not.
  const int bits = dtype == DType::kQ2_K ? 2 : dtype == DType::kQ3_K ? 3 : format.code_bits;
  return TileBytes(format, bits, inputs);
}

int64_t WideTileBytes(int64_t inputs) {
  const GroupFormat& wide = WideGroupFormat();
  return TileBytes(wide, wide.code_bits, inputs);
}

}  // namespace neurogrid
