// Weights of a test, packed as kernels/weights.h says, and their values in f64.
#pragma once

#include <algorithm>
#include <optional>

#include "kernels/weights.h"
#include "tests/kernels/device.h"

namespace neurogrid::kernels {

/// A matrix [outputs, inputs], or a gate and an up of that shape one after the other.
class PackedWeights {
 public:
  PackedWeights(WeightFormat format, int outputs, int inputs, const std::vector<float>& values,
                const std::vector<float>& bias = {}, bool gated = false)
      : inputs_(static_cast<size_t>(inputs)) {
    view_.format = format;
    view_.outputs = outputs;
    view_.inputs = inputs;
    view_.gated = gated;
    const auto packed = static_cast<size_t>(view_.packed_outputs());
    const auto stride = static_cast<size_t>(view_.stride());
    std::vector<uint8_t> bytes(packed * stride *
                               static_cast<size_t>(Weights::ElementBytes(format)));
    std::vector<float> scales(packed);
    std::vector<float> packed_bias(packed);
    const size_t parts = gated ? 2 : 1;
    for (size_t part = 0; part < parts; ++part) {
      for (int n = 0; n < outputs; ++n) {
        const size_t source = part * static_cast<size_t>(outputs) + static_cast<size_t>(n);
        const auto row = static_cast<size_t>(Weights::PackedRow(gated, part == 1, n));
        PackRow(&values[source * inputs_], bytes.data(), row * stride, &scales[row]);
        if (!bias.empty()) packed_bias[row] = bias[source];
      }
    }
    data_.emplace(bytes);
    scales_.emplace(scales);
    bias_.emplace(packed_bias);
    view_.data = data_->data();
    view_.scales = format == WeightFormat::kInt8 ? scales_->data() : nullptr;
    view_.bias = bias.empty() ? nullptr : bias_->data();
  }

  const Weights& view() const { return view_; }
  /// What the kernel multiplies with; rows of the up follow those of the gate.
  double value(size_t row, size_t k) const { return exact_[row * inputs_ + k]; }

 private:
  void PackRow(const float* row, uint8_t* bytes, size_t first, float* scale) {
    float largest = 0;
    for (size_t k = 0; k < inputs_; ++k) largest = std::max(largest, std::abs(row[k]));
    *scale = largest / 127;
    for (size_t k = 0; k < inputs_; ++k) {
      switch (view_.format) {
        case WeightFormat::kF32:
          std::memcpy(bytes + (first + k) * 4, &row[k], 4);
          exact_.push_back(double{row[k]});
          break;
        case WeightFormat::kBf16: {
          const Bf16 rounded = __float2bfloat16(row[k]);
          std::memcpy(bytes + (first + k) * 2, &rounded, 2);
          exact_.push_back(double{__bfloat162float(rounded)});
          break;
        }
        case WeightFormat::kInt8: {
          const auto q = static_cast<int8_t>(std::nearbyint(row[k] / *scale));
          const auto place = static_cast<size_t>(Weights::Int8Place(static_cast<int>(k)));
          bytes[first + place] = static_cast<uint8_t>(q);
          exact_.push_back(q * double{*scale});
          break;
        }
        case WeightFormat::kBlocks:
          FAIL("packed_blocks.h has them");
      }
    }
  }

  Weights view_;
  size_t inputs_;
  std::vector<double> exact_;
  std::optional<Device<uint8_t>> data_;
  std::optional<Device<float>> scales_;
  std::optional<Device<float>> bias_;
};

}  // namespace neurogrid::kernels
