// Device memory and operands for kernel tests: nothing but the CUDA runtime and Catch2, so that the
// same tests run on a GPU.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "common/rng.h"

namespace neurogrid::kernels {

using Bf16 = __nv_bfloat16;

/// Device memory; freed last, so that a read behind a failed kernel says so.
template <typename T>
class Device {
 public:
  explicit Device(size_t count) : count_(count) {
    REQUIRE(cudaMalloc(&data_, count * sizeof(T)) == cudaSuccess);
  }
  explicit Device(const std::vector<T>& values) : Device(values.size()) { Write(values); }
  ~Device() { cudaFree(data_); }
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  T* data() const { return data_; }
  int64_t count() const { return static_cast<int64_t>(count_); }
  void Write(const std::vector<T>& values) {
    REQUIRE(values.size() == count_);
    REQUIRE(cudaMemcpy(data_, values.data(), count_ * sizeof(T), cudaMemcpyHostToDevice) ==
            cudaSuccess);
  }
  std::vector<T> Read() const {
    std::vector<T> values(count_);
    const cudaError_t error =
        cudaMemcpy(values.data(), data_, count_ * sizeof(T), cudaMemcpyDeviceToHost);
    INFO(cudaGetErrorString(error));
    REQUIRE(error == cudaSuccess);
    return values;
  }

 private:
  T* data_ = nullptr;
  size_t count_;
};

/// Roughly normal, deviation about 1, from a seed.
inline std::vector<float> RandomFloats(uint64_t seed, size_t count, float scale = 1) {
  std::vector<float> values(count);
  for (size_t i = 0; i < count; ++i) {
    const uint64_t bits = SplitMix64(seed * 0x100000001b3u + i);
    double sum = -2;
    for (int part = 0; part < 4; ++part) {
      sum += static_cast<double>(bits >> (16 * part) & 0xffff) / 65536;
    }
    values[i] = static_cast<float>(sum * 1.7) * scale;
  }
  return values;
}

inline std::vector<Bf16> ToBf16(const std::vector<float>& values) {
  std::vector<Bf16> rounded;
  for (const float value : values) rounded.push_back(__float2bfloat16(value));
  return rounded;
}
inline std::vector<float> Widen(const std::vector<Bf16>& values) {
  std::vector<float> wide;
  for (const Bf16 value : values) wide.push_back(__bfloat162float(value));
  return wide;
}
inline const std::vector<float>& Widen(const std::vector<float>& values) { return values; }

template <typename T>
std::vector<T> RandomOf(uint64_t seed, size_t count, float scale = 1) {
  if constexpr (sizeof(T) == 2) {
    return ToBf16(RandomFloats(seed, count, scale));
  } else {
    return RandomFloats(seed, count, scale);
  }
}

/// What a y holds before a product, as bytes: the same values in f32 and bf16.
inline std::vector<uint8_t> OldBytes(size_t count, bool f32) {
  const std::vector<float> wide = RandomFloats(4, count);
  const std::vector<Bf16> rounded = ToBf16(wide);
  const auto* from = f32 ? reinterpret_cast<const uint8_t*>(wide.data())
                         : reinterpret_cast<const uint8_t*>(rounded.data());
  return {from, from + count * (f32 ? sizeof(float) : sizeof(Bf16))};
}

/// Bit for bit: NaN equals itself, -0 differs from 0.
template <typename T>
bool SameBits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

/// Half a unit in the last place of T at `x`: the error of rounding to T.
template <typename T>
double HalfUlp(double x) {
  constexpr int kDigits = sizeof(T) == 2 ? 8 : 24;
  int exponent;
  std::frexp(x, &exponent);
  return std::ldexp(0.5, exponent - kDigits);
}

}  // namespace neurogrid::kernels
