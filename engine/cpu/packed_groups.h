// Groups of small integers in panels of 64 outputs, for kernels_groups.h.
//
// A panel is a row of blocks of 512 inputs, the last perhaps shorter. A block has the headers of
// its units, each of format.unit_inputs() inputs of all 64 outputs, then the codes of its units:
// memory is read in one direction, and a prefetcher sees one stream.
//
//   header    scales    kHalf: [groups][64] f16; kFloat: [groups][64] f32;
//                       kHalfTimesInt8: [64] f16, then [groups][64] int8
//             minimums  the same again, where the format has them
//   codes     [unit inputs / 8] quads of 4 steps; a step is a pair of inputs
//
// A quad of 8-bit codes is [4 steps][2][16][2][2] int8: input p of the pair for outputs 32h + 16i +
// j at [h][j][i][p]. One of fewer bits has [4 steps][32] words: bits [4c, 4c + 4) of word 2j + p
// are the low four bits for output 16c + j, input p of the pair. The fifth bits follow in [32]
// words, bit 4s + c for step s; or the fifth and sixth in [2][32] words, bits [8 (s % 2) + 2c, + 2)
// of word vector s / 2.
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
