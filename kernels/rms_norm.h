// norm(x)[r, c] = w[c] * x[r, c] / sqrt(mean over c of x[r, c]^2 + epsilon), sums in f32.
//
// One block a row, a thread for each 16 bytes of it up to 1024; weights are there before the
// predecessor has ended. A single row is bound by latency, many by memory. The sum of a row has one
// order for any number of rows: thread t adds pieces t, t + threads, ..., then the lanes of a warp,
// then the warps add up. Rows of a whole number of 16-byte pieces start at multiples of 16 bytes.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace neurogrid::kernels {

struct NormParameters {
  const float* weight;  // [columns], an offset of (1 + w) norms already added
  float epsilon;
  bool rounds_before_weight;  // the quotient is rounded to T before the weight
};

/// y[r] = norm(x[r]), or norm(x[sources[r]]).   T: float or __nv_bfloat16
///   y        [rows, columns]; may be x without sources
///   x        [rows or any, columns]
///   sources  [rows] an input of the step; or null
template <typename T>
cudaError_t RmsNorm(T* y, const T* x, const int32_t* sources, int rows, int columns,
                    const NormParameters& norm, cudaStream_t stream);

/// y += norm(x), the norm rounded to T before the sum is; then z = next(y), unless z is null.
///   y, x, z  [rows, columns]
template <typename T>
cudaError_t RmsNormAdd(T* y, const T* x, const NormParameters& norm, T* z,
                       const NormParameters& next, int rows, int columns, cudaStream_t stream);

}  // namespace neurogrid::kernels
