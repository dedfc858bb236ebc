#include "engine/cuda/packed_blocks.h"

#include <array>
#include <cstring>

#include "common/check.h"
#include "common/unaligned.h"
#include "engine/model/block_groups.h"

namespace neurogrid {
namespace {

using kernels::BlockFormat;
using kernels::BlockScales;
using kernels::BlockType;
using kernels::CodePlace;
using kernels::kBlockChunkInputs;

/// PlaceOfCode for one row of a tile.
using RowPlaces = std::array<CodePlace, kBlockChunkInputs>;

template <int kBits>
const RowPlaces& PlacesOf(int in_tile) {
  static const std::array<RowPlaces, 16> places = [] {
    std::array<RowPlaces, 16> all;
    for (int row = 0; row < 16; ++row) {
      for (int k = 0; k < kBlockChunkInputs; ++k) {
        all[static_cast<size_t>(row)][static_cast<size_t>(k)] = kernels::PlaceOfCode(kBits, row, k);
      }
    }
    return all;
  }();
  return places[static_cast<size_t>(in_tile)];
}

/// Ors bits [first_bit, first_bit + kBits) of `count` codes into a plane, from input `k` on.
template <int kBits>
void OrPlane(const uint8_t* codes, int count, int first_bit, int in_tile, int k, uint8_t* plane) {
  // Codes of 8 bits come as two's complement and lie there plus 128.
  constexpr uint8_t kFlipped = kBits == 8 ? 0x80 : 0;
  const CodePlace* places = PlacesOf<kBits>(in_tile).data() + k;
  for (int i = 0; i < count; ++i) {
    const auto bits =
        static_cast<uint32_t>((codes[i] ^ kFlipped) >> first_bit) & ((1u << kBits) - 1);
    uint8_t* at = plane + 4 * places[i].word;
    StoreUnaligned(at, LoadUnaligned<uint32_t>(at) | bits << places[i].shift);
  }
}

void OrCodes(int bits, const uint8_t* codes, int count, int first_bit, int in_tile, int k,
             uint8_t* plane) {
  switch (bits) {
    case 0:
      return;
    case 1:
      return OrPlane<1>(codes, count, first_bit, in_tile, k, plane);
    case 2:
      return OrPlane<2>(codes, count, first_bit, in_tile, k, plane);
    case 4:
      return OrPlane<4>(codes, count, first_bit, in_tile, k, plane);
    case 8:
      return OrPlane<8>(codes, count, first_bit, in_tile, k, plane);
    default:
      NG_CHECK(false);
  }
}

/// One row of a chunk, and of the header before it.
struct Place {
  const BlockFormat& format;
  int in_tile;
  uint8_t* header;
  uint8_t* chunk;

  /// `minimum`: 0 for the scale, 1 for the minimum.
  void PutHalf(int minimum, int group, uint16_t half) const {
    if (format.scales == BlockScales::kHalfTimesByte) {
      std::memcpy(
          header + minimum * format.header_scale_bytes() + 2 * kernels::PlaceInHeader(in_tile),
          &half, sizeof(half));
    } else {
      std::memcpy(OfGroup(minimum, group, 2), &half, sizeof(half));
    }
  }
  void PutFactor(int minimum, int group, int factor) const {
    *OfGroup(minimum, group, 1) = static_cast<uint8_t>(factor + 128);
  }
  void PutFloat(int minimum, int group, float value) const {
    std::memcpy(OfGroup(minimum, group, 4), &value, sizeof(value));
  }
  /// Codes of inputs [k, k + count) of the chunk.
  void PutCodes(const uint8_t* codes, int count, int k) const {
    uint8_t* low = chunk + format.codes_at();
    OrCodes(format.low_bits, codes, count, 0, in_tile, k, low);
    OrCodes(format.high_bits, codes, count, format.low_bits, in_tile, k,
            low + BlockFormat::plane_bytes(format.low_bits));
  }

 private:
  uint8_t* OfGroup(int minimum, int group, int bytes) const {
    return chunk + minimum * format.scale_bytes() +
           bytes * kernels::PlaceOfScale(format, in_tile, group);
  }
};

/// Inputs [first, first + count) of a decoded block, as inputs [k, ...) of a chunk of its own type.
void PutOwn(const Place& place, const BlockNumbers& numbers, int first, int count, int k) {
  const BlockFormat& format = place.format;
  const int kinds = format.has_minimum ? 2 : 1;
  for (int kind = 0; kind < kinds; ++kind) {
    const uint16_t half = kind == 0 ? numbers.scale : numbers.minimum;
    place.PutHalf(kind, k / format.group_inputs, half);
    if (format.scales == BlockScales::kHalf) continue;
    const auto& factors = kind == 0 ? numbers.scale_factors : numbers.minimum_factors;
    for (int group = 0; group < count / format.group_inputs; ++group) {
      const auto from = static_cast<size_t>(first / format.group_inputs + group);
      place.PutFactor(kind, k / format.group_inputs + group, factors[from]);
    }
  }
  place.PutCodes(numbers.codes.data() + first, count, k);
}

/// The same in a chunk of kWide.
void PutWide(const Place& place, const GroupFormat& own, const BlockNumbers& numbers, int first,
             int count, int k) {
  const int group_inputs = place.format.group_inputs;
  for (int i = 0; i < count; i += group_inputs) {
    const int from = (first + i) / own.group_inputs;
    const int group = (k + i) / group_inputs;
    place.PutFloat(0, group, numbers.ScaleOf(own, from));
    if (own.has_minimum) place.PutFloat(1, group, numbers.MinimumOf(own, from));
  }
  std::array<uint8_t, kBlockChunkInputs> values;
  for (int i = 0; i < count; ++i) {
    const uint8_t code = numbers.codes[static_cast<size_t>(first + i)];
    values[static_cast<size_t>(i)] = static_cast<uint8_t>(own.ValueOf(code));
  }
  place.PutCodes(values.data(), count, k);
}

}  // namespace

BlockType BlockTypeOf(DType dtype) {
  switch (dtype) {
    case DType::kQ4_0:
      return BlockType::kQ4_0;
    case DType::kQ4_1:
      return BlockType::kQ4_1;
    case DType::kQ5_0:
      return BlockType::kQ5_0;
    case DType::kQ5_1:
      return BlockType::kQ5_1;
    case DType::kQ8_0:
      return BlockType::kQ8_0;
    case DType::kQ2_K:
      return BlockType::kQ2_K;
    case DType::kQ3_K:
      return BlockType::kQ3_K;
    case DType::kQ4_K:
      return BlockType::kQ4_K;
    case DType::kQ5_K:
      return BlockType::kQ5_K;
    case DType::kQ6_K:
      return BlockType::kQ6_K;
    case DType::kIQ4_NL:
      return BlockType::kIQ4_NL;
    case DType::kF32:
    case DType::kF16:
    case DType::kBF16:
    case DType::kI8:
      break;
  }
  NG_CHECK(false);
}

void PackBlocks(BlockType type, DType dtype, const uint8_t* blocks, int64_t inputs, int in_tile,
                uint8_t* tile) {
  const BlockFormat format = kernels::FormatOf(type);
  const DTypeInfo& info = InfoOf(dtype);
  const GroupFormat& own = GroupFormatOf(dtype);
  NG_CHECK(inputs % info.block_elements == 0);
  BlockNumbers numbers;
  for (int64_t k = 0; k < inputs; k += info.block_elements, blocks += info.block_bytes) {
    DecodeBlock(dtype, blocks, numbers);
    const int count = std::min<int>(info.block_elements, kBlockChunkInputs);
    for (int first = 0; first < info.block_elements; first += count) {
      const int64_t chunk = (k + first) / kBlockChunkInputs;
      uint8_t* header = tile + chunk / format.chunks_per_unit() * format.unit_bytes();
      const Place place{
          format, in_tile, header,
          header + format.header_bytes() + chunk % format.chunks_per_unit() * format.chunk_bytes()};
      const auto in_chunk = static_cast<int>((k + first) % kBlockChunkInputs);
      if (type == BlockType::kWide) {
        PutWide(place, own, numbers, first, count, in_chunk);
      } else {
        PutOwn(place, numbers, first, count, in_chunk);
      }
    }
  }
}

}  // namespace neurogrid
