// What kernels that norm share, so that all round and add alike.
#pragma once

#include <type_traits>

#include "kernels/simt.cuh"
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

/// The order of a row's sum of squares: thread t of so many adds the pieces of 16 bytes t, t +
/// threads, ..., then the lanes of a warp add up, then the warps.
template <typename T>
__host__ __device__ constexpr int NormThreads(int columns) {
  const int pieces = (columns + Vec<T>::kCount - 1) / Vec<T>::kCount;
  return pieces <= 128 ? 128 : pieces <= 256 ? 256 : pieces <= 512 ? 512 : 1024;
}
/// Calls run with that number as a type.
template <typename T, typename Run>
cudaError_t ForNormThreads(int columns, Run run) {
  switch (NormThreads<T>(columns)) {
    case 128:
      return run(std::integral_constant<int, 128>());
    case 256:
      return run(std::integral_constant<int, 256>());
    case 512:
      return run(std::integral_constant<int, 512>());
    default:
      return run(std::integral_constant<int, 1024>());
  }
}
inline constexpr int kNormWarpsMax = 1024 / kWarpThreads;

template <typename T>
__device__ __forceinline__ float AddSquares(float sum, const Vec<T>& piece) {
#pragma unroll
  for (int i = 0; i < Vec<T>::kCount; ++i) {
    const float value = ToFloat(piece.at[i]);
    sum = fmaf(value, value, sum);
  }
  return sum;
}

}  // namespace neurogrid::kernels
