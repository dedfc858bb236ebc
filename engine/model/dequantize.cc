#include "engine/model/dequantize.h"

#include <cstring>

#include "common/check.h"

namespace neurogrid {
namespace {

template <typename T>
T LoadAs(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

float LoadHalf(const uint8_t* bytes) { return HalfToFloat(LoadAs<uint16_t>(bytes)); }

int Low(uint8_t byte) { return byte & 15; }
int High(uint8_t byte) { return byte >> 4; }

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
    out[i] = HalfToFloatStraight(LoadAs<uint16_t>(data + 2 * i));
  }
}

void PlainBf16(const uint8_t* data, int64_t elements, float* out) {
  for (int64_t i = 0; i < elements; ++i) {
    out[i] = ToFloat(bf16{LoadAs<uint16_t>(data + 2 * i)});
  }
}

// Each function below turns one block into its 32 or 256 values.

void BlockQ4_0(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  const uint8_t* qs = block + 2;
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>(Low(qs[j]) - 8);
    out[j + 16] = d * static_cast<float>(High(qs[j]) - 8);
  }
}

void BlockQ4_1(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  const float m = LoadHalf(block + 2);
  const uint8_t* qs = block + 4;
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>(Low(qs[j])) + m;
    out[j + 16] = d * static_cast<float>(High(qs[j])) + m;
  }
}

/// The fifth bit of element j, in its place.
int FifthBit(uint32_t qh, int j) { return static_cast<int>((qh >> j) & 1u) << 4; }

void BlockQ5_0(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  const uint32_t qh = LoadAs<uint32_t>(block + 2);
  const uint8_t* qs = block + 6;
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>((Low(qs[j]) | FifthBit(qh, j)) - 16);
    out[j + 16] = d * static_cast<float>((High(qs[j]) | FifthBit(qh, j + 16)) - 16);
  }
}

void BlockQ5_1(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  const float m = LoadHalf(block + 2);
  const uint32_t qh = LoadAs<uint32_t>(block + 4);
  const uint8_t* qs = block + 8;
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>(Low(qs[j]) | FifthBit(qh, j)) + m;
    out[j + 16] = d * static_cast<float>(High(qs[j]) | FifthBit(qh, j + 16)) + m;
  }
}

void BlockQ8_0(const uint8_t* block, float* out) {
  const float d = LoadHalf(block);
  const uint8_t* qs = block + 2;
  for (int j = 0; j < 32; ++j) out[j] = d * static_cast<float>(static_cast<int8_t>(qs[j]));
}

void BlockIQ4_NL(const uint8_t* block, float* out) {
  static constexpr int8_t kValues[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};
  const float d = LoadHalf(block);
  const uint8_t* qs = block + 2;
  for (int j = 0; j < 16; ++j) {
    out[j] = d * static_cast<float>(kValues[Low(qs[j])]);
    out[j + 16] = d * static_cast<float>(kValues[High(qs[j])]);
  }
}

void BlockQ2_K(const uint8_t* block, float* out) {
  const uint8_t* scales = block;
  const uint8_t* qs = block + 16;
  const float d = LoadHalf(block + 80);
  const float dmin = LoadHalf(block + 82);
  for (int group = 0; group < 16; ++group) {  // 16 values each
    const uint8_t* q = qs + 32 * (group / 8) + 16 * (group % 2);
    const int shift = 2 * (group / 2 % 4);
    const float scale = d * static_cast<float>(Low(scales[group]));
    const float minimum = dmin * static_cast<float>(High(scales[group]));
    for (int l = 0; l < 16; ++l) {
      out[16 * group + l] = scale * static_cast<float>((q[l] >> shift) & 3) - minimum;
    }
  }
}

void BlockQ3_K(const uint8_t* block, float* out) {
  const uint8_t* high_mask = block;
  const uint8_t* qs = block + 32;
  const uint8_t* packed = block + 96;
  const float d = LoadHalf(block + 108);
  for (int group = 0; group < 16; ++group) {  // 16 values each
    const int k = group % 4;
    const uint8_t nibbles = packed[k + 4 * (group / 4 % 2)];
    const int low = group < 8 ? Low(nibbles) : High(nibbles);
    const int high = (packed[8 + k] >> (2 * (group / 4))) & 3;
    const float scale = d * static_cast<float>((low | high << 4) - 32);
    const int first = 16 * (group % 2);
    const uint8_t* q = qs + 32 * (group / 8) + first;
    const int shift = 2 * (group / 2 % 4);
    for (int l = 0; l < 16; ++l) {
      const int offset = (high_mask[first + l] >> (group / 2)) & 1 ? 0 : 4;
      out[16 * group + l] = scale * static_cast<float>(((q[l] >> shift) & 3) - offset);
    }
  }
}

/// Scale and minimum number i of Q4_K and Q5_K: 6 bits each, packed in 12 bytes.
void ScaleAndMinimum(const uint8_t* packed, int i, int* scale, int* minimum) {
  if (i < 4) {
    *scale = packed[i] & 63;
    *minimum = packed[i + 4] & 63;
  } else {
    *scale = (packed[i + 4] & 15) | (packed[i - 4] >> 6) << 4;
    *minimum = (packed[i + 4] >> 4) | (packed[i] >> 6) << 4;
  }
}

/// Q4_K and Q5_K: eight runs of 32; `qh` holds the fifth bits, or is null.
void BlockQ45_K(const uint8_t* block, const uint8_t* qh, const uint8_t* qs, float* out) {
  const float d = LoadHalf(block);
  const float dmin = LoadHalf(block + 2);
  for (int run = 0; run < 8; ++run) {
    int scale = 0;
    int minimum = 0;
    ScaleAndMinimum(block + 4, run, &scale, &minimum);
    const float step = d * static_cast<float>(scale);
    const float base = dmin * static_cast<float>(minimum);
    const uint8_t* q = qs + 32 * (run / 2);
    const int shift = 4 * (run % 2);
    for (int l = 0; l < 32; ++l) {
      int value = (q[l] >> shift) & 15;
      if (qh != nullptr) value += ((qh[l] >> run) & 1) << 4;
      out[32 * run + l] = step * static_cast<float>(value) - base;
    }
  }
}

void BlockQ4_K(const uint8_t* block, float* out) { BlockQ45_K(block, nullptr, block + 16, out); }
void BlockQ5_K(const uint8_t* block, float* out) { BlockQ45_K(block, block + 16, block + 48, out); }

void BlockQ6_K(const uint8_t* block, float* out) {
  const float d = LoadHalf(block + 208);
  for (int run = 0; run < 8; ++run) {  // 32 values each; four runs make a half
    const uint8_t* ql = block + 64 * (run / 4) + 32 * (run % 2);
    const uint8_t* qh = block + 128 + 32 * (run / 4);
    const uint8_t* scales = block + 192 + 2 * run;
    const int low_shift = 4 * (run % 4 / 2);
    const int high_shift = 2 * (run % 4);
    for (int l = 0; l < 32; ++l) {
      const int value = ((ql[l] >> low_shift) & 15) | ((qh[l] >> high_shift) & 3) << 4;
      const float scale = d * static_cast<float>(static_cast<int8_t>(scales[l / 16]));
      out[32 * run + l] = scale * static_cast<float>(value - 32);
    }
  }
}

template <void (*kBlock)(const uint8_t*, float*)>
void Blocks(DType dtype, const uint8_t* data, int64_t elements, float* out) {
  const DTypeInfo& info = InfoOf(dtype);
  NG_CHECK(elements % info.block_elements == 0);
  for (int64_t done = 0; done < elements; done += info.block_elements) {
    kBlock(data, out + done);
    data += info.block_bytes;
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
      return Blocks<BlockQ4_0>(dtype, bytes, elements, out);
    case DType::kQ4_1:
      return Blocks<BlockQ4_1>(dtype, bytes, elements, out);
    case DType::kQ5_0:
      return Blocks<BlockQ5_0>(dtype, bytes, elements, out);
    case DType::kQ5_1:
      return Blocks<BlockQ5_1>(dtype, bytes, elements, out);
    case DType::kQ8_0:
      return Blocks<BlockQ8_0>(dtype, bytes, elements, out);
    case DType::kQ2_K:
      return Blocks<BlockQ2_K>(dtype, bytes, elements, out);
    case DType::kQ3_K:
      return Blocks<BlockQ3_K>(dtype, bytes, elements, out);
    case DType::kQ4_K:
      return Blocks<BlockQ4_K>(dtype, bytes, elements, out);
    case DType::kQ5_K:
      return Blocks<BlockQ5_K>(dtype, bytes, elements, out);
    case DType::kQ6_K:
      return Blocks<BlockQ6_K>(dtype, bytes, elements, out);
    case DType::kIQ4_NL:
      return Blocks<BlockIQ4_NL>(dtype, bytes, elements, out);
  }
  NG_CHECK(false);
}

}  // namespace neurogrid
