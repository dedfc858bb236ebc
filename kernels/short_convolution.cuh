// What the kernels that convolve share, so that all round and add alike.
#pragma once

#include "kernels/simt.cuh"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {

/// g of B and U.
template <typename T>
__device__ __forceinline__ T GatedProduct(T b, T u) {
  return FromFloat<T>(__fmul_rn(ToFloat(b), ToFloat(u)));
}

/// z with one more tap: from the oldest product to the newest.
template <typename T>
__device__ __forceinline__ float AddTap(float z, float tap, T product) {
  return fmaf(tap, ToFloat(product), z);
}

/// The result, of C and z.
template <typename T>
__device__ __forceinline__ T Gated(T c, float z) {
  return FromFloat<T>(__fmul_rn(ToFloat(c), Rounded<T>(z)));
}

}  // namespace neurogrid::kernels
