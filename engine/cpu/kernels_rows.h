// Kernels over one row: norm, quantisation of activations, rotation, sums for the sampler.
#pragma once

#include <bit>
#include <cmath>

#include "engine/cpu/kernels.h"
#include "engine/cpu/kernels_math.h"
#include "engine/cpu/packed_groups.h"

namespace neurogrid {
namespace {

inline float WidenBf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof(value));
  return value;
}

template <bool kBf16>
void RmsNormRow(uint8_t* y, const uint8_t* x, const float* w, int64_t count, float epsilon,
                bool rounds_before_weight) {
  constexpr int64_t kSize = kBf16 ? 2 : 4;
  Simd::Float squares = Simd::Zero();
  for (int64_t i = 0; i < count; i += 16) {
    const Simd::Float v = LoadSome(x + i * kSize, kBf16, count - i);
    squares = Simd::Fma(v, v, squares);
  }
  const float mean = SumOfLanes(squares) / static_cast<float>(count);
  const Simd::Float factor = Simd::Set(1.0f / std::sqrt(mean + epsilon));
  for (int64_t i = 0; i < count; i += 16) {
    Simd::Float v = Simd::Mul(LoadSome(x + i * kSize, kBf16, count - i), factor);
    if (kBf16 && rounds_before_weight) {
      uint16_t rounded[16];
      Simd::StoreBf16(rounded, v);
      v = Simd::LoadBf16(rounded);
    }
    const Simd::Float weight = LoadSome(reinterpret_cast<const uint8_t*>(w + i), false, count - i);
    StoreSome(y + i * kSize, kBf16, Simd::Mul(v, weight), count - i);
  }
}

void RmsNormBf16(uint16_t* y, const uint16_t* x, const float* w, int64_t count, float epsilon,
                 bool rounds_before_weight) {
  RmsNormRow<true>(reinterpret_cast<uint8_t*>(y), reinterpret_cast<const uint8_t*>(x), w, count,
                   epsilon, rounds_before_weight);
}

void RmsNormF32(float* y, const float* x, const float* w, int64_t count, float epsilon) {
  RmsNormRow<false>(reinterpret_cast<uint8_t*>(y), reinterpret_cast<const uint8_t*>(x), w, count,
                    epsilon, false);
}

/// Bits of the largest |x|. Among magnitudes, the order of the bits is the order of the values,
/// infinity and NaN on top.
inline uint16_t LargestMagnitude(const uint16_t* x, int64_t count) {
  uint16_t largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t magnitude = x[i] & 0x7fff;
    largest = magnitude > largest ? magnitude : largest;
  }
  return largest;
}

constexpr uint16_t kInfinityBits = 0x7f80;

float QuantizeRow(const uint16_t* x, int64_t count, int16_t* q) {
  const uint16_t largest = LargestMagnitude(x, count);
  const bool finite = largest < kInfinityBits;
  // Denormals count as zeros, as everywhere.
  const float inverse = finite && largest >= 0x80 ? 32767.0f / WidenBf16(largest) : 0;
  const Simd::Float bound = Simd::Set(32767.0f);
  const Simd::Float minus_bound = Simd::Set(-32767.0f);
  for (int64_t i = 0; i < count; i += 16) {
    Simd::Float v = LoadSome(reinterpret_cast<const uint8_t*>(x + i), true, count - i);
    v = finite ? Simd::Mul(v, Simd::Set(inverse)) : Simd::Zero();
    Simd::StoreInt16(q + i, Simd::Min(bound, Simd::Max(minus_bound, v)));
  }
  return finite ? WidenBf16(largest) / 32767.0f : __builtin_nanf("");
}

/// x = H x / sqrt(16 * kVectors) for the Hadamard matrix H of that size.
template <int kVectors>
void TransformBlock(float* x) {
  const Simd::Float factor = Simd::Set(1.0f / std::sqrt(16.0f * kVectors));
  Simd::Float v[kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) {
    v[i] = Simd::Mul(Simd::Load(x + 16 * i), factor);
    v[i] = Simd::Butterfly<2>(Simd::Butterfly<1>(v[i]));
    v[i] = Simd::Butterfly<8>(Simd::Butterfly<4>(v[i]));
  }
#pragma GCC unroll 4
  for (int distance = 1; distance < kVectors; distance *= 2) {
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) {
      if ((i & distance) != 0) continue;
      const Simd::Float upper = v[i + distance];
      v[i + distance] = Simd::Sub(v[i], upper);
      v[i] = Simd::Add(v[i], upper);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) Simd::Store(x + 16 * i, v[i]);
}

/// One group of SpreadInputs.
void SpreadGroup(float* x, int64_t size) {
  static_assert(kA8GroupInputs == 128);
  if ((size & 128) != 0) TransformBlock<8>(x);
  if ((size & 64) != 0) TransformBlock<4>(x);
  x += size & 64;
  if ((size & 32) != 0) TransformBlock<2>(x);
  x += size & 32;
  if ((size & 16) != 0) TransformBlock<1>(x);
}

void SpreadInputs(float* x, int64_t count) {
  for (int64_t first = 0; first < count; first += kA8GroupInputs) {
    SpreadGroup(x + first, count - first < kA8GroupInputs ? count - first : kA8GroupInputs);
  }
}

void QuantizeGroups(const uint16_t* x, int64_t count, int8_t* q, float* scales, int32_t* starts) {
  const Simd::Float bound = Simd::Set(127.0f);
  const Simd::Float minus_bound = Simd::Set(-127.0f);
  alignas(64) float spread[kA8GroupInputs];
  for (int64_t first = 0; first < count; first += kA8GroupInputs) {
    const int64_t size = count - first < kA8GroupInputs ? count - first : kA8GroupInputs;
    for (int64_t i = 0; i < size; i += 16) {
      const uint8_t* const from = reinterpret_cast<const uint8_t*>(x + first + i);
      Simd::Store(spread + i, LoadSome(from, true, size - i));
    }
    SpreadGroup(spread, size);
    Simd::Float most = Simd::Zero();
    Simd::Float poison = Simd::Zero();  // a NaN where a value is not finite
    for (int64_t i = 0; i < size; i += 16) {
      const Simd::Float v = Simd::Load(spread + i);
      most = Simd::Max(most, Simd::Max(v, Simd::Sub(Simd::Zero(), v)));
      poison = Simd::Fma(v, Simd::Zero(), poison);
    }
    const float largest = MaxOfLanes(most);
    const bool finite = SumOfLanes(poison) == 0;
    const float scale = finite ? largest / 127.0f : __builtin_nanf("");
    // A scale that is denormal is zero, and so are then the integers.
    const Simd::Float inverse = Simd::Set(scale > 0 ? 127.0f / largest : 0);
    Simd::Float sum = Simd::Zero();
    for (int64_t i = 0; i < size; i += 16) {
      const Simd::Float v = finite ? Simd::Mul(Simd::Load(spread + i), inverse) : Simd::Zero();
      const Simd::Float whole = Simd::Round(Simd::Min(bound, Simd::Max(minus_bound, v)));
      Simd::StoreInt8(q + first + i, whole);
      sum = Simd::Add(sum, whole);
    }
    *scales++ = scale;
    *starts++ = -128 * static_cast<int32_t>(SumOfLanes(sum));
  }
}

void QuantizeBlocks(const uint16_t* x, int64_t count, uint8_t* q, float* scales,
                    int32_t* sums_of_16, int32_t* sums_of_32) {
  for (int64_t first = 0; first < count; first += kGroupBlockInputs) {
    const int64_t left = count - first;
    const int size = static_cast<int>(left < kGroupBlockInputs ? left : kGroupBlockInputs);
    Simd::Float most = Simd::Zero();
    Simd::Float poison = Simd::Zero();  // a NaN where a value is not finite
    for (int i = 0; i < size; i += 16) {
      const Simd::Float v = Simd::LoadBf16(x + first + i);
      most = Simd::Max(most, Simd::Max(v, Simd::Sub(Simd::Zero(), v)));
      poison = Simd::Fma(v, Simd::Zero(), poison);
    }
    const bool finite = SumOfLanes(poison) == 0;
    const auto largest = static_cast<int>(std::bit_cast<uint32_t>(MaxOfLanes(most)) >> 16);
    // Exponent + 127 of the power of two. Numbers of eight significant bits below it are at most
    // 2^15 - 2^7 = 32640 times the scale; where one is that, the next power is taken.
    const int exponent = (largest + 1) / 128 + 1;
    const int above = exponent < 27 ? 27 : exponent;
    const Simd::Float inverse = Simd::Set(std::bit_cast<float>((2 * 127 + 15 - above) << 23));
    *scales++ = finite ? std::bit_cast<float>((above - 15) << 23) : __builtin_nanf("");
    for (int i = 0; i < size; i += 32) {
      // Sums stay below 2^24, so they are exact.
      int32_t sums[2];
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const int64_t at = first + i + 16 * half;
        const Simd::Float v = finite ? Simd::LoadBf16(x + at) : Simd::Zero();
        const Simd::Float rounded = Simd::Round(Simd::Mul(v, inverse));
        Simd::StoreSplit(q + 2 * at, rounded);
        sums[half] = static_cast<int32_t>(SumOfLanes(rounded));
      }
      *sums_of_16++ = sums[0];
      *sums_of_16++ = sums[1];
      *sums_of_32++ = sums[0] + sums[1];
    }
  }
}

void QuantizeUnits(const uint16_t* x, int64_t count, int64_t unit_inputs, int8_t* q, float* scales,
                   int16_t* sums_of_16, int16_t* sums_of_32) {
  for (int64_t first = 0; first < count; first += unit_inputs) {
    const int64_t end = count - first < unit_inputs ? count : first + unit_inputs;
    const uint16_t largest = LargestMagnitude(x + first, end - first);
    const bool finite = largest < kInfinityBits;
    // Denormals count as zeros, as everywhere; so does what has a denormal scale.
    const float scale = WidenBf16(largest) / 127.0f;
    const Simd::Float inverse = Simd::Set(finite && scale > 0 ? 127.0f / WidenBf16(largest) : 0);
    *scales++ = finite ? scale : __builtin_nanf("");
    for (int64_t at = first; at < end; at += 32) {
      int16_t sums[2];
#pragma GCC unroll 2
      for (int half = 0; half < 2; ++half) {
        const Simd::Float v = finite ? Simd::LoadBf16(x + at + 16 * half) : Simd::Zero();
        const Simd::Float rounded = Simd::Round(Simd::Mul(v, inverse));
        Simd::StoreInt8(q + at + 16 * half, rounded);
        sums[half] = static_cast<int16_t>(SumOfLanes(rounded));
      }
      *sums_of_16++ = sums[0];
      *sums_of_16++ = sums[1];
      *sums_of_32++ = static_cast<int16_t>(sums[0] + sums[1]);
    }
  }
}

void RotateBf16(uint16_t* x, const float* cosines, const float* sines, int half) {
  uint8_t* first = reinterpret_cast<uint8_t*>(x);
  uint8_t* second = reinterpret_cast<uint8_t*>(x + half);
  for (int j = 0; j < half; j += 16) {
    const int count = half - j < 16 ? half - j : 16;
    const Simd::Float a = LoadSome(first + 2 * j, true, count);
    const Simd::Float b = LoadSome(second + 2 * j, true, count);
    const Simd::Float c = LoadSome(reinterpret_cast<const uint8_t*>(cosines + j), false, count);
    const Simd::Float s = LoadSome(reinterpret_cast<const uint8_t*>(sines + j), false, count);
    StoreSome(first + 2 * j, true, Simd::Sub(Simd::Mul(a, c), Simd::Mul(b, s)), count);
    StoreSome(second + 2 * j, true, Simd::Add(Simd::Mul(b, c), Simd::Mul(a, s)), count);
  }
}

void RotateF32(float* x, const float* cosines, const float* sines, int half) {
  for (int j = 0; j < half; ++j) {
    const float a = x[j];
    const float b = x[j + half];
    x[j] = a * cosines[j] - b * sines[j];
    x[j + half] = b * cosines[j] + a * sines[j];
  }
}

void Softcap(float* y, int64_t count, float cap) {
  const Simd::Float c = Simd::Set(cap);
  for (int64_t i = 0; i < count; i += 16) {
    uint8_t* p = reinterpret_cast<uint8_t*>(y + i);
    const Simd::Float v = LoadSome(p, false, count - i);
    StoreSome(p, false, Simd::Mul(c, Tanh(Simd::Div(v, c))), count - i);
  }
}

double SumExponentials(const float* values, int64_t count, float maximum, float scale) {
  const Simd::Float shift = Simd::Set(maximum);
  const Simd::Float factor = Simd::Set(scale);
  double lanes[16] = {};
  // 4,096 values at a time in f32: 256 additions a lane lose 2^-16 of the sum at most.
  for (int64_t block = 0; block < count; block += 4096) {
    const int64_t end = count - block < 4096 ? count : block + 4096;
    Simd::Float sum = Simd::Zero();
    for (int64_t i = block; i < end; i += 16) {
      const Simd::Float v = LoadSome(reinterpret_cast<const uint8_t*>(values + i), false, end - i);
      const Simd::Float e = Exp(Simd::Mul(Simd::Sub(v, shift), factor));
      const int lanes_left = end - i < 16 ? static_cast<int>(end - i) : 16;
      sum = Simd::Add(sum, lanes_left < 16 ? Simd::KeepLanes(e, 0, lanes_left, Simd::Zero()) : e);
    }
    float part[16];
    Simd::Store(part, sum);
    for (int i = 0; i < 16; ++i) lanes[i] += static_cast<double>(part[i]);
  }
  double total = 0;
  for (const double lane : lanes) total += lane;
  return total;
}

float SumMemory(const uint8_t* data, int64_t bytes) {
  Simd::Float sums[4] = {Simd::Zero(), Simd::Zero(), Simd::Zero(), Simd::Zero()};
  for (int64_t i = 0; i < bytes; i += 256) {
#pragma GCC unroll 4
    for (int c = 0; c < 4; ++c) {
      sums[c] = Simd::Add(sums[c], Simd::Load(reinterpret_cast<const float*>(data + i) + 16 * c));
    }
  }
  return SumOfLanes(Simd::Add(Simd::Add(sums[0], sums[1]), Simd::Add(sums[2], sums[3])));
}

constexpr int kPeakChains = 3 * Simd::kTileRows / 2;
constexpr int64_t kPeakOperations = int64_t{kPeakChains} * 16 * 4;  // 16 lanes of two multiply-adds

float ChainDots(int64_t rounds) {
  constexpr uint16_t kOnes[32] = {0x3f80, 0x3f80};
  const Simd::Pairs weight = Simd::LoadPairs(kOnes);
  const Simd::Pair activation = Simd::BroadcastPair(kOnes + 16);
  Simd::Float sums[kPeakChains];
  for (Simd::Float& sum : sums) sum = Simd::Zero();
  for (int64_t i = 0; i < rounds; ++i) {
#pragma GCC unroll 16
    for (int c = 0; c < kPeakChains; ++c) sums[c] = Simd::Dot(sums[c], weight, activation);
  }
  Simd::Float total = Simd::Zero();
  for (const Simd::Float& sum : sums) total = Simd::Add(total, sum);
  return SumOfLanes(total);
}

}  // namespace
}  // namespace neurogrid
