// Groups of small integers in panels of 64 outputs, for kernels_groups.h.
//
// A panel is a row of blocks of 512 inputs, the last perhaps shorter. A block has the headers of
// its units, each of format.unit_inputs() inputs of all 64 outputs, then the codes of its units:
// memory is read in one direction, and a prefetcher sees one stream.
//
//   header    scales    kHalf: [groups][64] f16; kFloat: [groups][64] f32;
//                       kHalfTimesInt8: [64] f16, then [groups][64] int8
//             minimums  the same again, where the format has them
//   codes     [unit inputs / 8] octets of 2 steps; a step is four inputs
//
// An octet of 8-bit codes is [2 steps][4 columns][16][4] bytes: value + 128 of each input of the
// four for output 16 * column + j. One of fewer bits has [2][2][16][4] bytes: the low four bits of
// column 2i in the low half of byte i, those of column 2i + 1 above. The fifth bits follow in
// [16][4] bytes, bit 4 * step + column; or the fifth and sixth in [2][16][4] bytes, from bit
// 2 * column on.
#pragma once

#include <cstdint>

#include "engine/model/block_groups.h"

namespace neurogrid {

inline constexpr int kGroupBlockInputs = 512;

/// Where a unit lies in a panel.
struct UnitPlace {
  uint8_t* header;
  uint8_t* codes;
};
/// Of the unit that begins at `input` in a panel of rows of `inputs`.
UnitPlace PlaceOfUnit(const GroupFormat& format, uint8_t* panel, int64_t inputs, int64_t input);

/// Writes one unit from the blocks of 64 outputs: a block is as long as a unit. Not for kFloat.
void WriteUnit(const GroupFormat& format, const BlockNumbers* numbers, UnitPlace unit);

/// Writes one unit of WideGroupFormat() from outputs of several block types: output n is of type
/// *formats[n], and the unit begins at input firsts[n] of its block.
void WriteWideUnit(const GroupFormat* const* formats, const BlockNumbers* numbers,
                   const int* firsts, UnitPlace unit);

/// out[inputs] = the values of output n of a panel: the bits of the reference dequantisation.
void ReadGroups(const GroupFormat& format, const uint8_t* panel, int n, int64_t inputs, float* out);

}  // namespace neurogrid
