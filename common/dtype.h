// Element types of tensors in memory and in files, and the two-byte float conversions.
#pragma once

#include <bit>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace neurogrid {

/// Plain element types, then the block types of GGUF (models.md 3.5; one block is several
/// elements).
enum class DType : uint8_t {
  kF32,
  kF16,
  kBF16,
  kI8,
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
};

struct DTypeInfo {
  absl::string_view name;
  int block_elements;  // 1 for plain types
  int block_bytes;
};

const DTypeInfo& InfoOf(DType dtype);

/// Bytes of `elements` elements; elements must be a multiple of the block.
int64_t BytesOf(DType dtype, int64_t elements);

/// bfloat16: the upper half of an IEEE float32.
struct bf16 {
  uint16_t bits = 0;
};

inline float ToFloat(bf16 value) {
  return std::bit_cast<float>(static_cast<uint32_t>(value.bits) << 16);
}

/// Rounds to nearest, ties to even; NaN stays NaN.
inline bf16 ToBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return {static_cast<uint16_t>((bits >> 16) | 0x40)};
  return {static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}

/// IEEE binary16 to float32, exact, subnormals included.
float HalfToFloat(uint16_t half);

}  // namespace neurogrid
