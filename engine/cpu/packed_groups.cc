#include "engine/cpu/packed_groups.h"

#include <algorithm>
#include <cstring>

#include "common/check.h"
#include "common/unaligned.h"

namespace neurogrid {
namespace {

constexpr int kOutputs = 64;
constexpr int kColumn = 16;  // outputs
constexpr int kOctetInputs = 8;
constexpr int kStepInputs = 4;
constexpr int kLowBytes = 256;  // the low four bits of an octet
constexpr int kTopBit = 0x80;   // what + 128 changes in eight bits

/// Where the bits above the fourth of a code stand in an octet: offset of a four, shift of its
/// bytes.
struct HighBits {
  int offset, shift;
};
HighBits HighBitsOf(int code_bits, int step, int column) {
  if (code_bits == 5) return {kLowBytes, 4 * step + column};
  return {kLowBytes + 4 * kColumn * step, 2 * column};
}

/// The same byte four times.
constexpr uint32_t Fours(uint32_t byte) { return byte * 0x01010101u; }

/// Of four inputs: `codes` [64] points at the first of each output.
template <int kBits>
void WriteStep(const uint8_t* const* codes, int step, uint8_t* octet) {
  for (int j = 0; j < kColumn; ++j) {
    uint32_t four[4];
    for (int column = 0; column < 4; ++column) {
      four[column] = LoadUnaligned<uint32_t>(codes[kColumn * column + j] + kStepInputs * step);
    }
    if constexpr (kBits == 8) {
      for (int column = 0; column < 4; ++column) {
        StoreUnaligned<uint32_t>(octet + 4 * (kColumn * (4 * step + column) + j),
                                 four[column] ^ Fours(kTopBit));
      }
      continue;
    }
    for (int half = 0; half < 2; ++half) {
      StoreUnaligned<uint32_t>(octet + 4 * (kColumn * (2 * step + half) + j),
                               (four[2 * half] & Fours(15)) | (four[2 * half + 1] & Fours(15))
                                                                  << 4);
    }
    if constexpr (kBits == 4) continue;
    // Fifth bits of both steps share a four.
    uint8_t* const high = octet + HighBitsOf(kBits, step, 0).offset + 4 * j;
    uint32_t bits = kBits == 5 && step == 1 ? LoadUnaligned<uint32_t>(high) : 0;
    for (int column = 0; column < 4; ++column) {
      bits |= (four[column] >> 4 & Fours(kBits == 5 ? 1 : 3))
              << HighBitsOf(kBits, step, column).shift;
    }
    StoreUnaligned<uint32_t>(high, bits);
  }
}

/// `codes` [64] points at the octet's inputs of each output.
template <int kBits>
void WriteOctet(const uint8_t* const* codes, uint8_t* octet) {
  for (int step = 0; step < 2; ++step) WriteStep<kBits>(codes, step, octet);
}
void WriteOctet(int code_bits, const uint8_t* const* codes, uint8_t* octet) {
  switch (code_bits) {
    case 4:
      return WriteOctet<4>(codes, octet);
    case 5:
      return WriteOctet<5>(codes, octet);
    case 6:
      return WriteOctet<6>(codes, octet);
    default:
      return WriteOctet<8>(codes, octet);
  }
}

uint8_t ReadCode(int code_bits, const uint8_t* octet, int n, int k) {
  const int step = k / kStepInputs;
  const int column = n / kColumn;
  const int byte = 4 * (n % kColumn) + k % kStepInputs;
  if (code_bits == 8) return octet[4 * kColumn * (4 * step + column) + byte] ^ kTopBit;
  const int both = octet[4 * kColumn * (2 * step + column / 2) + byte];
  const int low = (both >> (4 * (column % 2))) & 15;
  if (code_bits == 4) return static_cast<uint8_t>(low);
  const HighBits high = HighBitsOf(code_bits, step, column);
  const int mask = code_bits == 5 ? 1 : 3;
  return static_cast<uint8_t>(low | ((octet[high.offset + byte] >> high.shift) & mask) << 4);
}

/// Scale, or minimum, of group g for output n, from where the unit keeps them.
float ReadScale(GroupScales kind, const uint8_t* scales, int g, int n) {
  switch (kind) {
    case GroupScales::kHalf:
      return HalfToFloat(LoadUnaligned<uint16_t>(scales + 2 * (kOutputs * g + n)));
    case GroupScales::kHalfTimesInt8:
      return HalfToFloat(LoadUnaligned<uint16_t>(scales + 2 * n)) *
             static_cast<float>(static_cast<int8_t>(scales[(2 + g) * kOutputs + n]));
    case GroupScales::kFloat:
      return LoadUnaligned<float>(scales + 4 * (kOutputs * g + n));
  }
  NG_CHECK(false);
}

/// An f16 for each output and, with factors, an int8 for each group too.
void WriteScales(const GroupFormat& format, const BlockNumbers* numbers,
                 uint16_t BlockNumbers::*half, std::array<int8_t, 16> BlockNumbers::*factors,
                 uint8_t* out) {
  for (int n = 0; n < kOutputs; ++n) std::memcpy(out + 2 * n, &(numbers[n].*half), 2);
  if (format.scales == GroupScales::kHalf) return;
  for (int g = 0; g < format.groups_per_unit(); ++g) {
    for (int n = 0; n < kOutputs; ++n) {
      out[(2 + g) * kOutputs + n] =
          static_cast<uint8_t>((numbers[n].*factors)[static_cast<size_t>(g)]);
    }
  }
}

}  // namespace

UnitPlace PlaceOfUnit(const GroupFormat& format, uint8_t* panel, int64_t inputs, int64_t input) {
  const int64_t block = input / kGroupBlockInputs * kGroupBlockInputs;
  const int64_t units = std::min<int64_t>(kGroupBlockInputs, inputs - block) / format.unit_inputs();
  const int64_t unit = (input - block) / format.unit_inputs();
  uint8_t* const headers = panel + block / format.unit_inputs() * format.unit_bytes();
  return {headers + unit * format.header_bytes(),
          headers + units * format.header_bytes() + unit * format.code_bytes()};
}

void WriteUnit(const GroupFormat& format, const BlockNumbers* numbers, UnitPlace unit) {
  WriteScales(format, numbers, &BlockNumbers::scale, &BlockNumbers::scale_factors, unit.header);
  if (format.has_minimum) {
    WriteScales(format, numbers, &BlockNumbers::minimum, &BlockNumbers::minimum_factors,
                unit.header + format.scale_bytes());
  }
  uint8_t* octet = unit.codes;
  for (int k = 0; k < format.unit_inputs(); k += kOctetInputs) {
    const uint8_t* codes[kOutputs];
    for (int n = 0; n < kOutputs; ++n) codes[n] = numbers[n].codes.data() + k;
    WriteOctet(format.code_bits, codes, octet);
    octet += int64_t{kOutputs} * format.code_bits;
  }
}

void WriteWideUnit(const GroupFormat* const* formats, const BlockNumbers* numbers,
                   const int* firsts, UnitPlace unit) {
  const GroupFormat& wide = WideGroupFormat();
  for (int n = 0; n < kOutputs; ++n) {
    const GroupFormat& format = *formats[n];
    for (int g = 0; g < wide.groups_per_unit(); ++g) {
      const int group = (firsts[n] + wide.group_inputs * g) / format.group_inputs;
      const float scale = numbers[n].ScaleOf(format, group);
      const float minimum = format.has_minimum ? numbers[n].MinimumOf(format, group) : 0;
      uint8_t* const at = unit.header + 4 * (kOutputs * g + n);
      std::memcpy(at, &scale, sizeof scale);
      std::memcpy(at + wide.scale_bytes(), &minimum, sizeof minimum);
    }
  }
  uint8_t* octet = unit.codes;
  for (int k = 0; k < wide.unit_inputs(); k += kOctetInputs) {
    uint8_t values[kOutputs][kOctetInputs];
    const uint8_t* codes[kOutputs];
    for (int n = 0; n < kOutputs; ++n) {
      for (int i = 0; i < kOctetInputs; ++i) {
        const uint8_t code = numbers[n].codes[static_cast<size_t>(firsts[n] + k + i)];
        values[n][i] = static_cast<uint8_t>(formats[n]->ValueOf(code));
      }
      codes[n] = values[n];
    }
    WriteOctet(wide.code_bits, codes, octet);
    octet += int64_t{kOutputs} * wide.code_bits;
  }
}

void ReadGroups(const GroupFormat& format, const uint8_t* panel, int n, int64_t inputs,
                float* out) {
  const int64_t octet_bytes = int64_t{kOutputs} * format.code_bits;
  for (int64_t input = 0; input < inputs; input += format.unit_inputs()) {
    const UnitPlace unit = PlaceOfUnit(format, const_cast<uint8_t*>(panel), inputs, input);
    for (int k = 0; k < format.unit_inputs(); ++k) {
      const uint8_t* octet = unit.codes + k / kOctetInputs * octet_bytes;
      const uint8_t code = ReadCode(format.code_bits, octet, n, k % kOctetInputs);
      out[k] = static_cast<float>(format.ValueOf(code));
    }
    for (int g = 0; g < format.groups_per_unit(); ++g) {
      const float scale = ReadScale(format.scales, unit.header, g, n);
      for (int i = 0; i < format.group_inputs; ++i) out[i] = scale * out[i];
      if (format.has_minimum) {
        const float minimum = ReadScale(format.scales, unit.header + format.scale_bytes(), g, n);
        for (int i = 0; i < format.group_inputs; ++i) out[i] += minimum;
      }
      out += format.group_inputs;
    }
  }
}

}  // namespace neurogrid
