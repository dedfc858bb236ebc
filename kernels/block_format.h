// GGUF's quantised blocks as they lie on the device: small integers in the tensor core's order, and
// the scales of their groups.
//
// A tile of 16 rows is a run of units. A unit is a header and one or two chunks of 128 inputs:
//
//   header   kHalfTimesByte alone, whose units span two chunks: a scale for each row, then a
//            minimum where the type has them; [8][2] f16, row g beside row g + 8
//   scales   of each group: kHalf [8][groups][2] f16; kHalfTimesByte [8][groups][2] bytes, which
//            are factors plus 128; kFloat [groups][8][2] f32
//   minimums the same again, where the type has them
//   codes    the plane of their low bits, then that of their high bits
//
// A plane gives each lane of a warp its own words, in fours (one bit: in twos): [words / 4][32][4].
// They hold pairs of codes as the operand A of m16n8k16 wants them (mma.cuh): pair 4 s + r is
// register r of step s, and a word holds pair i of its 16 / bits in bits [bits i, bits i + bits) of
// either half.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace neurogrid::kernels {

/// kWide holds rows of any two types side by side.
enum class BlockType {
  kQ4_0,
  kQ4_1,
  kQ5_0,
  kQ5_1,
  kQ8_0,
  kQ2_K,
  kQ3_K,
  kQ4_K,
  kQ5_K,
  kQ6_K,
  kIQ4_NL,
  kWide,
};

enum class BlockScales {
  kHalf,           // an f16 for each group
  kHalfTimesByte,  // an f16 for 256 inputs, times an integer of each group
  kFloat,          // an f32 for each group
};

inline constexpr int kBlockChunkInputs = 128;
inline constexpr int kBlockSteps = kBlockChunkInputs / 16;
/// Slices of K (weights.h), whatever the outputs: with groups a boundary of slices costs nothing
/// beside the scales.
inline constexpr int kBlockSlices = 8;

/// w = scale * value (+ minimum), with value = code - offset.
struct BlockFormat {
  int low_bits;   // 2, 4 or 8
  int high_bits;  // 0, 1 or 2
  int group_inputs;
  BlockScales scales;
  bool has_minimum;
  int offset;
  bool looks_up;  // value = Iq4NlValue(code)

  __host__ __device__ constexpr int groups() const { return kBlockChunkInputs / group_inputs; }
  __host__ __device__ constexpr int chunks_per_unit() const {
    return scales == BlockScales::kHalfTimesByte ? 2 : 1;
  }
  __host__ __device__ constexpr int unit_inputs() const {
    return chunks_per_unit() * kBlockChunkInputs;
  }
  // Bytes for a tile.
  __host__ __device__ constexpr int header_scale_bytes() const {
    return scales == BlockScales::kHalfTimesByte ? 32 : 0;
  }
  __host__ __device__ constexpr int header_bytes() const {
    return header_scale_bytes() * (has_minimum ? 2 : 1);
  }
  __host__ __device__ constexpr int scale_bytes() const {
    return 16 * groups() *
           (scales == BlockScales::kFloat  ? 4
            : scales == BlockScales::kHalf ? 2
                                           : 1);
  }
  __host__ __device__ constexpr int codes_at() const {  // in a chunk
    return scale_bytes() * (has_minimum ? 2 : 1);
  }
  __host__ __device__ static constexpr int plane_bytes(int bits) {
    return 2 * bits * kBlockChunkInputs;
  }
  __host__ __device__ constexpr int chunk_bytes() const {
    return codes_at() + plane_bytes(low_bits) + plane_bytes(high_bits);
  }
  __host__ __device__ constexpr int unit_bytes() const {
    return header_bytes() + chunks_per_unit() * chunk_bytes();
  }
  /// What a kernel holds of one tile at a time: the header, then a chunk.
  __host__ __device__ constexpr int stage_bytes() const { return header_bytes() + chunk_bytes(); }
};

__host__ __device__ constexpr BlockFormat FormatOf(BlockType type) {
  constexpr BlockScales kHalf = BlockScales::kHalf;
  constexpr BlockScales kTimes = BlockScales::kHalfTimesByte;
  switch (type) {
    case BlockType::kQ4_0:
      return {4, 0, 32, kHalf, false, 8, false};
    case BlockType::kQ4_1:
      return {4, 0, 32, kHalf, true, 0, false};
    case BlockType::kQ5_0:
      return {4, 1, 32, kHalf, false, 16, false};
    case BlockType::kQ5_1:
      return {4, 1, 32, kHalf, true, 0, false};
    case BlockType::kQ8_0:
      return {8, 0, 32, kHalf, false, 128, false};
    case BlockType::kQ2_K:
      return {2, 0, 16, kTimes, true, 0, false};
    case BlockType::kQ3_K:
      return {2, 1, 16, kTimes, false, 4, false};
    case BlockType::kQ4_K:
      return {4, 0, 32, kTimes, true, 0, false};
    case BlockType::kQ5_K:
      return {4, 1, 32, kTimes, true, 0, false};
    case BlockType::kQ6_K:
      return {4, 2, 16, kTimes, false, 32, false};
    case BlockType::kIQ4_NL:
      return {4, 0, 32, kHalf, false, 0, true};
    case BlockType::kWide:
      break;
  }
  return {8, 0, 16, BlockScales::kFloat, true, 128, false};
}

/// The sixteen values of IQ4_NL plus 128, four bytes to a word.
__host__ __device__ constexpr uint32_t Iq4NlWord(int word) {
  return word == 0   ? 0x3f2d1801u   // -127, -104, -83, -65
         : word == 1 ? 0x766a5d4fu   // -49, -35, -22, -10
         : word == 2 ? 0xa6998d81u   // 1, 13, 25, 38
                     : 0xf1d9c5b5u;  // 53, 69, 89, 113
}
__host__ __device__ constexpr int Iq4NlValue(int code) {
  return static_cast<int>(Iq4NlWord(code / 4) >> (8 * (code % 4)) & 255) - 128;
}

/// Where a plane holds the bits of row `row` of a tile and input `k` of a chunk.
struct CodePlace {
  int word;
  int shift;
};
__host__ __device__ constexpr CodePlace PlaceOfCode(int bits, int row, int k) {
  const int lane = 4 * (row % 8) + k % 8 / 2;
  const int pair = k / 16 * 4 + k % 16 / 8 * 2 + row / 8;
  const int in_word = 16 / bits;
  const int word = pair / in_word;
  const int width = bits == 1 ? 2 : 4;
  return {word / width * width * 32 + lane * width + word % width,
          bits * (pair % in_word) + 16 * (k % 2)};
}

/// Which of its kind, scale or minimum, belongs to row `row` of a tile and a group of a chunk.
__host__ __device__ constexpr int PlaceOfScale(const BlockFormat& format, int row, int group) {
  return format.scales == BlockScales::kFloat ? 16 * group + 2 * (row % 8) + row / 8
                                              : 2 * (row % 8 * format.groups() + group) + row / 8;
}
/// The same of a header.
__host__ __device__ constexpr int PlaceInHeader(int row) { return 2 * (row % 8) + row / 8; }

}  // namespace neurogrid::kernels
