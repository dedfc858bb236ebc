// One value behind a norm, as every kernel that norms rounds it.
#pragma once

#include "kernels/vec.cuh"

namespace neurogrid::kernels {

template <typename T>
__device__ __forceinline__ T Normed(T x, float factor, float weight, bool rounds_before_weight) {
  float value = __fmul_rn(ToFloat(x), factor);
  if (rounds_before_weight) value = Rounded<T>(value);
  return FromFloat<T>(__fmul_rn(value, weight));
}

/// What x is multiplied with, from the sum of its squares.
__device__ __forceinline__ float NormFactor(float squares, int columns, float epsilon) {
  return 1.0f / sqrtf(squares / static_cast<float>(columns) + epsilon);
}

}  // namespace neurogrid::kernels
