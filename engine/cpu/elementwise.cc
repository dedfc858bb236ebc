#include "engine/cpu/elementwise.h"

#include <algorithm>
#include <cmath>

#include "common/check.h"
#include "engine/cpu/kernels.h"

namespace neurogrid {
namespace {

constexpr int64_t kRowsPerChunk = 16;

template <typename Each>
void ForRows(const CpuContext& cpu, int64_t rows, Each each) {
  cpu.pool->ParallelFor((rows + kRowsPerChunk - 1) / kRowsPerChunk, [&](int64_t chunk, int) {
    const int64_t end = std::min(rows, (chunk + 1) * kRowsPerChunk);
    for (int64_t row = chunk * kRowsPerChunk; row < end; ++row) each(row);
  });
}

float TableValue(const ConstTensor& table, int64_t index) {
  switch (table.dtype) {
    case DType::kBF16:
      return ToFloat(table.as<bf16>()[index]);
    case DType::kF16:
      return HalfToFloat(table.as<uint16_t>()[index]);
    default:
      return table.as<float>()[index];
  }
}

}  // namespace

void RmsNorm(const CpuContext& cpu, Tensor y, ConstTensor x, const float* w, float epsilon,
             bool rounds_before_weight) {
  NG_CHECK(x.shape.rank() == 2 && y.shape == x.shape && y.dtype == x.dtype);
  NG_CHECK(x.dtype == DType::kBF16 || x.dtype == DType::kF32);
  const int64_t columns = x.shape[1];
  ForRows(cpu, x.shape[0], [&](int64_t row) {
    RmsNormValues(cpu, y, row * columns, x, row * columns, w, columns, epsilon,
                  rounds_before_weight);
  });
}

void RmsNormValues(const CpuContext& cpu, Tensor y, int64_t y_first, ConstTensor x, int64_t x_first,
                   const float* w, int64_t columns, float epsilon, bool rounds_before_weight) {
  const Kernels& kernels = KernelsFor(cpu.instructions);
  if (x.dtype == DType::kBF16) {
    kernels.rms_norm_bf16(y.as<uint16_t>() + y_first, x.as<uint16_t>() + x_first, w, columns,
                          epsilon, rounds_before_weight);
  } else {
    kernels.rms_norm_f32(y.as<float>() + y_first, x.as<float>() + x_first, w, columns, epsilon);
  }
}

void EmbedTokens(const CpuContext& cpu, Tensor y, ConstTensor table,
                 absl::Span<const int32_t> tokens, float scale) {
  NG_CHECK(table.shape.rank() == 2);
  NG_CHECK(table.dtype == DType::kF32 || table.dtype == DType::kF16 || table.dtype == DType::kBF16);
  NG_CHECK(y.dtype == DType::kF32 || y.dtype == DType::kBF16);
  const int64_t columns = table.shape[1];
  NG_CHECK(y.shape == Shape({static_cast<int64_t>(tokens.size()), columns}));
  ForRows(cpu, y.shape[0], [&](int64_t row) {
    const int64_t token = tokens[static_cast<size_t>(row)];
    NG_CHECK(token >= 0 && token < table.shape[0]);
    for (int64_t c = 0; c < columns; ++c) {
      const float value = TableValue(table, token * columns + c) * scale;
      if (y.dtype == DType::kBF16) {
        y.as<bf16>()[row * columns + c] = ToBf16(value);
      } else {
        y.as<float>()[row * columns + c] = value;
      }
    }
  });
}

RowMaximum MaximumOf(absl::Span<const float> values) {
  RowMaximum maximum = {-INFINITY, 0, false};
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i] > maximum.value) {
      maximum.value = values[i];
      maximum.index = static_cast<int64_t>(i);
    }
    maximum.has_nan |= std::isnan(values[i]);
  }
  return maximum;
}

double SumOfExponentials(InstructionSet instructions, absl::Span<const float> values, float maximum,
                         float inverse_temperature) {
  return KernelsFor(instructions)
      .sum_of_exponentials(values.data(), static_cast<int64_t>(values.size()), maximum,
                           inverse_temperature);
}

}  // namespace neurogrid
