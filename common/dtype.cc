#include "common/dtype.h"

#include <iterator>

#include "common/check.h"

namespace neurogrid {

const DTypeInfo& InfoOf(DType dtype) {
  static constexpr DTypeInfo kInfos[] = {
      {"F32", 1, 4},      {"F16", 1, 2},      {"BF16", 1, 2},     {"I8", 1, 1},
      {"Q4_0", 32, 18},   {"Q4_1", 32, 20},   {"Q5_0", 32, 22},   {"Q5_1", 32, 24},
      {"Q8_0", 32, 34},   {"Q2_K", 256, 84},  {"Q3_K", 256, 110}, {"Q4_K", 256, 144},
      {"Q5_K", 256, 176}, {"Q6_K", 256, 210}, {"IQ4_NL", 32, 18},
  };
  static_assert(std::size(kInfos) == static_cast<size_t>(DType::kIQ4_NL) + 1);
  return kInfos[static_cast<size_t>(dtype)];
}

int64_t BytesOf(DType dtype, int64_t elements) {
  const DTypeInfo& info = InfoOf(dtype);
  NG_CHECK(elements % info.block_elements == 0);
  return elements / info.block_elements * info.block_bytes;
}

float HalfToFloat(uint16_t half) {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000u) << 16;
  const uint32_t exponent = (half >> 10) & 0x1fu;
  uint32_t mantissa = half & 0x3ffu;
  if (exponent == 0x1f) return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0)
    return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  // Subnormal: mantissa * 2^-24, which float32 holds exactly.
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
  return sign ? -magnitude : magnitude;
}

}  // namespace neurogrid
