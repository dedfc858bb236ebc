// Blocks of a test: random integers and scales, packed as kernels/block_format.h says, and their
// values in f64.
#pragma once

#include <optional>
#include <vector>

#include "kernels/weights.h"
#include "tests/kernels/device.h"

namespace neurogrid::kernels {

inline std::vector<BlockType> BlockTypes() {
  return {BlockType::kQ4_0, BlockType::kQ4_1, BlockType::kQ5_0,   BlockType::kQ5_1,
          BlockType::kQ8_0, BlockType::kQ2_K, BlockType::kQ3_K,   BlockType::kQ4_K,
          BlockType::kQ5_K, BlockType::kQ6_K, BlockType::kIQ4_NL, BlockType::kWide};
}

/// A matrix [outputs, inputs], or a gate and an up of that shape one after the other.
class PackedBlocks {
 public:
  PackedBlocks(BlockType type, int outputs, int inputs, const std::vector<float>& bias = {},
               bool gated = false)
      : format_(FormatOf(type)), inputs_(static_cast<size_t>(inputs)) {
    view_.format = WeightFormat::kBlocks;
    view_.block_type = type;
    view_.outputs = outputs;
    view_.inputs = inputs;
    view_.gated = gated;
    std::vector<uint8_t> bytes(static_cast<size_t>(view_.bytes()));
    std::vector<float> packed_bias(static_cast<size_t>(view_.packed_outputs()));
    const int parts = gated ? 2 : 1;
    for (int part = 0; part < parts; ++part) {
      for (int n = 0; n < outputs; ++n) {
        const int row = Weights::PackedRow(gated, part == 1, n);
        const int source = part * outputs + n;
        for (int k = 0; k < inputs; k += kBlockChunkInputs) PackChunk(source, row, k, bytes);
        if (!bias.empty()) {
          packed_bias[static_cast<size_t>(row)] = bias[static_cast<size_t>(source)];
        }
      }
    }
    data_.emplace(bytes);
    bias_.emplace(packed_bias);
    view_.data = data_->data();
    view_.bias = bias.empty() ? nullptr : bias_->data();
  }

  const Weights& view() const { return view_; }
  /// scale * value + minimum; rows of the up follow those of the gate.
  double value(size_t row, size_t k) const { return exact_[row * inputs_ + k]; }
  /// |scale * value| + |minimum|.
  double magnitude(size_t row, size_t k) const { return magnitudes_[row * inputs_ + k]; }
  /// The value as float32 has it, product by product.
  float rounded(size_t row, size_t k) const { return rounded_[row * inputs_ + k]; }

 private:
  /// Scales of one kind for one row: of the unit, then of each group.
  struct Scales {
    uint16_t half_of_unit;
    float of_group[8];
    uint8_t bytes[8];
    uint16_t halves[8];
  };
  static int Random(uint64_t seed, int below) {
    return static_cast<int>(SplitMix64(seed) % static_cast<uint64_t>(below));
  }
  /// An f16 of about 2^-8 and its value; every bit of the fraction is used.
  static uint16_t RandomHalf(uint64_t seed, bool may_be_negative) {
    const int exponent = 6 + Random(seed, 3);
    const int sign = may_be_negative ? Random(seed + 1, 2) : 0;
    return static_cast<uint16_t>(sign << 15 | exponent << 10 | Random(seed + 2, 1024));
  }
  static double ValueOfHalf(uint16_t half) {
    const double magnitude = std::ldexp(1024 + (half & 1023), (half >> 10 & 31) - 25);
    return half >> 15 != 0 ? -magnitude : magnitude;
  }

  /// `kind`: 0 scales, 1 minimums.
  Scales RandomScales(int row, int k, int kind) const {
    Scales scales{};
    const int unit = k / format_.unit_inputs();
    const auto seed = static_cast<uint64_t>((row * 64 + unit) * 2 + kind) * 1000;
    scales.half_of_unit = RandomHalf(seed, true);
    for (int group = 0; group < format_.groups(); ++group) {
      const uint64_t own =
          seed + static_cast<uint64_t>(10 * (k / kBlockChunkInputs * 8 + group) + 5);
      switch (format_.scales) {
        case BlockScales::kHalf:
          scales.halves[group] = RandomHalf(own, true);
          scales.of_group[group] = static_cast<float>(ValueOfHalf(scales.halves[group]));
          break;
        case BlockScales::kHalfTimesByte:
          scales.bytes[group] = static_cast<uint8_t>(Random(own, 256));
          scales.of_group[group] =
              static_cast<float>(ValueOfHalf(scales.half_of_unit) * (scales.bytes[group] - 128));
          break;
        case BlockScales::kFloat:
          scales.of_group[group] = RandomFloats(own, 1, 0.01f)[0];
          break;
      }
    }
    return scales;
  }

  void WriteScales(const Scales& scales, int in_tile, uint8_t* header, uint8_t* of_groups) const {
    if (format_.scales == BlockScales::kHalfTimesByte) {
      std::memcpy(header + 2 * PlaceInHeader(in_tile), &scales.half_of_unit, 2);
    }
    for (int group = 0; group < format_.groups(); ++group) {
      const int place = PlaceOfScale(format_, in_tile, group);
      switch (format_.scales) {
        case BlockScales::kHalf:
          std::memcpy(of_groups + 2 * place, &scales.halves[group], 2);
          break;
        case BlockScales::kHalfTimesByte:
          of_groups[place] = scales.bytes[group];
          break;
        case BlockScales::kFloat:
          std::memcpy(of_groups + 4 * place, &scales.of_group[group], 4);
          break;
      }
    }
  }

  static void WriteCode(uint8_t* plane, int bits, int in_tile, int k, int code) {
    const CodePlace place = PlaceOfCode(bits, in_tile, k);
    uint32_t word;
    std::memcpy(&word, plane + 4 * place.word, 4);
    word |= (static_cast<uint32_t>(code) & ((1u << bits) - 1)) << place.shift;
    std::memcpy(plane + 4 * place.word, &word, 4);
  }

  void PackChunk(int source, int row, int k, std::vector<uint8_t>& bytes) {
    const int in_tile = row % kTileOutputs;
    const int chunk = k / kBlockChunkInputs;
    uint8_t* header = bytes.data() + row / kTileOutputs * view_.tile_bytes() +
                      chunk / format_.chunks_per_unit() * format_.unit_bytes();
    uint8_t* data =
        header + format_.header_bytes() + chunk % format_.chunks_per_unit() * format_.chunk_bytes();
    const Scales scales = RandomScales(source, k, 0);
    const Scales minimums = RandomScales(source, k, 1);
    WriteScales(scales, in_tile, header, data);
    if (format_.has_minimum) {
      WriteScales(minimums, in_tile, header + format_.header_scale_bytes(),
                  data + format_.scale_bytes());
    }
    uint8_t* low = data + format_.codes_at();
    const int bits = format_.low_bits + format_.high_bits;
    for (int i = 0; i < kBlockChunkInputs && k + i < static_cast<int>(inputs_); ++i) {
      const int code =
          Random(static_cast<uint64_t>(source) << 32 | static_cast<uint64_t>(k + i), 1 << bits);
      WriteCode(low, format_.low_bits, in_tile, i, code);
      if (format_.high_bits > 0) {
        WriteCode(low + BlockFormat::plane_bytes(format_.low_bits), format_.high_bits, in_tile, i,
                  code >> format_.low_bits);
      }
      const int group = i / format_.group_inputs;
      const int value = ValueOf(code);
      const float scale = scales.of_group[group];
      const float minimum = format_.has_minimum ? minimums.of_group[group] : 0;
      exact_.push_back(double{scale} * value + double{minimum});
      magnitudes_.push_back(std::abs(double{scale} * value) + std::abs(double{minimum}));
      const float product = scale * static_cast<float>(value);
      rounded_.push_back(format_.has_minimum ? product + minimum : product);
    }
  }

  int ValueOf(int code) const {
    constexpr int kIq4Nl[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                1,    13,   25,  38,  53,  69,  89,  113};
    if (view_.block_type == BlockType::kIQ4_NL) return kIq4Nl[code];
    return code - format_.offset;
  }

  BlockFormat format_;
  Weights view_;
  size_t inputs_;
  std::vector<double> exact_;
  std::vector<double> magnitudes_;
  std::vector<float> rounded_;
  std::optional<Device<uint8_t>> data_;
  std::optional<Device<float>> bias_;
};

}  // namespace neurogrid::kernels
