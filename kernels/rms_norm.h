// y[r, c] = w[c] * x[r, c] / sqrt(mean over c of x[r, c]^2 + epsilon), sums in f32.
//
// Rows: one block a row, 256 threads. Heads: one warp a head. x is read twice, the second time from
// L2; bound by memory. The sum of a row has one order for any number of rows: thread t adds columns
// t, t + threads, ..., then the lanes of a warp, then the warps add up.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace neurogrid::kernels {

struct NormParameters {
  const float* weight;  // [columns], an offset of (1 + w) norms already added
  float epsilon;
  bool rounds_before_weight;  // the quotient is rounded to T before the weight
};

/// y, x [rows, columns], y may be x. T: float or __nv_bfloat16.
template <typename T>
cudaError_t RmsNorm(T* y, const T* x, int rows, int columns, const NormParameters& norm,
                    cudaStream_t stream);

/// In place over `heads` heads of head_dim columns in each row, from column `first_column` on.
///   x  [rows, columns]
template <typename T>
cudaError_t RmsNormHeads(T* x, int rows, int columns, int first_column, int heads, int head_dim,
                         const NormParameters& norm, cudaStream_t stream);

}  // namespace neurogrid::kernels
