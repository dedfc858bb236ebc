#include "engine/model/dequantize.h"

#include <cstring>

#include "common/check.h"
#include "common/unaligned.h"
#include "engine/model/block_groups.h"

namespace neurogrid {
namespace {

/// HalfToFloat without branches, so that the loop over F16 tensors becomes vector code; it takes no
/// subnormal float32 as input, so a flush-to-zero mode cannot change it.
float HalfToFloatStraight(uint16_t half) {
  const uint32_t shifted = static_cast<uint32_t>(half & 0x7fffu) << 13;
  const uint32_t exponent = shifted & 0x0f800000u;
  const uint32_t normal = shifted + (112u << 23);
  const uint32_t special = normal + (112u << 23);  // infinity and NaN
  const float lifted = std::bit_cast<float>(normal + (1u << 23));
  const uint32_t subnormal = std::bit_cast<uint32_t>(lifted - 0x1p-14f);
  const uint32_t magnitude =
      exponent == 0x0f800000u ? special : (exponent == 0 ? subnormal : normal);
  return std::bit_cast<float>(magnitude | (static_cast<uint32_t>(half & 0x8000u) << 16));
}

void PlainF16(const uint8_t* data, int64_t elements, float* out) {
  for (int64_t i = 0; i < elements; ++i) {
    out[i] = HalfToFloatStraight(LoadUnaligned<uint16_t>(data + 2 * i));
  }
}

void PlainBf16(const uint8_t* data, int64_t elements, float* out) {
  for (int64_t i = 0; i < elements; ++i) {
    out[i] = ToFloat(bf16{LoadUnaligned<uint16_t>(data + 2 * i)});
  }
}

void Blocks(DType dtype, const uint8_t* data, int64_t elements, float* out) {
  const DTypeInfo& info = InfoOf(dtype);
  NG_CHECK(elements % info.block_elements == 0);
  const GroupFormat& format = GroupFormatOf(dtype);
  const int groups = info.block_elements / format.group_inputs;
  BlockNumbers numbers;
  for (const float* end = out + elements; out != end; data += info.block_bytes) {
    DecodeBlock(dtype, data, numbers);
    const uint8_t* codes = numbers.codes.data();
    for (int group = 0; group < groups; ++group) {
      const float scale = numbers.ScaleOf(format, group);
      for (int i = 0; i < format.group_inputs; ++i) {
        out[i] = scale * static_cast<float>(format.ValueOf(codes[i]));
      }
      if (format.has_minimum) {
        const float minimum = numbers.MinimumOf(format, group);
        for (int i = 0; i < format.group_inputs; ++i) out[i] += minimum;
      }
      codes += format.group_inputs;
      out += format.group_inputs;
    }
  }
}

}  // namespace

void Dequantize(DType dtype, const void* data, int64_t elements, float* out) {
  const uint8_t* bytes = static_cast<const uint8_t*>(data);
  switch (dtype) {
    case DType::kF32:
      if (elements > 0) std::memcpy(out, bytes, sizeof(float) * static_cast<size_t>(elements));
      return;
    case DType::kF16:
      return PlainF16(bytes, elements, out);
    case DType::kBF16:
      return PlainBf16(bytes, elements, out);
    case DType::kI8:
      break;
    case DType::kQ4_0:
    case DType::kQ4_1:
    case DType::kQ5_0:
    case DType::kQ5_1:
    case DType::kQ8_0:
    case DType::kQ2_K:
    case DType::kQ3_K:
    case DType::kQ4_K:
    case DType::kQ5_K:
    case DType::kQ6_K:
    case DType::kIQ4_NL:
      return Blocks(dtype, bytes, elements, out);
  }
  NG_CHECK(false);
}

}  // namespace neurogrid
