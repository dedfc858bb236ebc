#include "engine/cpu/packed_groups.h"

#include <algorithm>
#include <cstring>

#include "common/check.h"

namespace neurogrid {
namespace {

constexpr int kOutputs = 64;
constexpr int kQuadInputs = 8;
constexpr int kLowBytes = 256;  // the low four bits of a quad

/// Word and column of an output's code for input k of a quad.
struct Place {
  int step, word, column;
};
Place PlaceOf(int n, int k) { return {k / 2, 2 * (n % 16) + k % 2, n / 16}; }

/// Where an output's code of eight bits stands in a quad.
int ByteOf(int n, int k) {
  const int column = n / 16;
  return 128 * (k / 2) + 64 * (column / 2) + 4 * (n % 16) + 2 * (column % 2) + k % 2;
}

/// Where the bits above the fourth of a code stand in a quad: byte offset and shift of a word.
struct HighBits {
  int offset, shift;
};
HighBits HighBitsOf(int code_bits, const Place& place) {
  if (code_bits == 5) return {kLowBytes + 2 * place.word, 4 * place.step + place.column};
  return {kLowBytes + 64 * (place.step / 2) + 2 * place.word,
          8 * (place.step % 2) + 2 * place.column};
}

uint16_t LoadWord(const uint8_t* p) {
  uint16_t word;
  std::memcpy(&word, p, sizeof word);
  return word;
}

void OrWord(uint8_t* p, int bits) {
  const auto word = static_cast<uint16_t>(LoadWord(p) | bits);
  std::memcpy(p, &word, sizeof word);
}

/// codes: [64] pointers to the codes of the quad's 8 inputs.
void WriteQuad(int code_bits, const uint8_t* const* codes, uint8_t* quad) {
  for (int n = 0; n < kOutputs; ++n) {
    for (int k = 0; k < kQuadInputs; ++k) {
      const Place place = PlaceOf(n, k);
      const int code = codes[n][k];
      if (code_bits == 8) {
        quad[ByteOf(n, k)] = static_cast<uint8_t>(code);
        continue;
      }
      OrWord(quad + 64 * place.step + 2 * place.word, (code & 15) << (4 * place.column));
      if (code_bits == 4) continue;
      const HighBits high = HighBitsOf(code_bits, place);
      OrWord(quad + high.offset, (code >> 4) << high.shift);
    }
  }
}

uint8_t ReadCode(int code_bits, const uint8_t* quad, int n, int k) {
  const Place place = PlaceOf(n, k);
  if (code_bits == 8) return quad[ByteOf(n, k)];
  const int low = (LoadWord(quad + 64 * place.step + 2 * place.word) >> (4 * place.column)) & 15;
  if (code_bits == 4) return static_cast<uint8_t>(low);
  const HighBits high = HighBitsOf(code_bits, place);
  const int mask = code_bits == 5 ? 1 : 3;
  return static_cast<uint8_t>(low | ((LoadWord(quad + high.offset) >> high.shift) & mask) << 4);
}

/// Scale, or minimum, of group g for output n, from where the unit keeps them.
float ReadScale(GroupScales kind, const uint8_t* scales, int g, int n) {
  switch (kind) {
    case GroupScales::kHalf:
      return HalfToFloat(LoadWord(scales + 2 * (kOutputs * g + n)));
    case GroupScales::kHalfTimesInt8:
      return HalfToFloat(LoadWord(scales + 2 * n)) *
             static_cast<float>(static_cast<int8_t>(scales[(2 + g) * kOutputs + n]));
    case GroupScales::kFloat:
      float scale;
      std::memcpy(&scale, scales + 4 * (kOutputs * g + n), sizeof scale);
      return scale;
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
  std::memset(unit.codes, 0, static_cast<size_t>(format.code_bytes()));
  uint8_t* quad = unit.codes;
  for (int k = 0; k < format.unit_inputs(); k += kQuadInputs) {
    const uint8_t* codes[kOutputs];
    for (int n = 0; n < kOutputs; ++n) codes[n] = numbers[n].codes.data() + k;
    WriteQuad(format.code_bits, codes, quad);
    quad += int64_t{kOutputs} * format.code_bits;
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
    for (int k = 0; k < wide.unit_inputs(); ++k) {
      const uint8_t code = numbers[n].codes[static_cast<size_t>(firsts[n] + k)];
      unit.codes[8 * kOutputs * (k / kQuadInputs) + ByteOf(n, k % kQuadInputs)] =
          static_cast<uint8_t>(format.ValueOf(code));
    }
  }
}

void ReadGroups(const GroupFormat& format, const uint8_t* panel, int n, int64_t inputs,
                float* out) {
  const int64_t quad_bytes = int64_t{kOutputs} * format.code_bits;
  for (int64_t input = 0; input < inputs; input += format.unit_inputs()) {
    const UnitPlace unit = PlaceOfUnit(format, const_cast<uint8_t*>(panel), inputs, input);
    for (int k = 0; k < format.unit_inputs(); ++k) {
      const uint8_t* quad = unit.codes + k / kQuadInputs * quad_bytes;
      out[k] =
          static_cast<float>(format.ValueOf(ReadCode(format.code_bits, quad, n, k % kQuadInputs)));
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
