// Stands in for CUDA's header of the same name where kernels run on the host.
#pragma once

#include <cuda_runtime.h>

#include <cmath>
#include <cstdint>

struct __half {
  uint16_t bits;
};
struct __half2 {
  __half x;
  __half y;
};

inline float __half2float(__half value) {
  const int exponent = value.bits >> 10 & 31;
  const auto fraction = static_cast<float>(value.bits & 1023);
  const float sign = value.bits >> 15 != 0 ? -1.0f : 1.0f;
  if (exponent == 31) return fraction == 0 ? sign * INFINITY : NAN;
  if (exponent == 0) return sign * std::ldexp(fraction, -24);
  return sign * std::ldexp(1024 + fraction, exponent - 25);
}
inline float2 __half22float2(__half2 value) {
  return {__half2float(value.x), __half2float(value.y)};
}
