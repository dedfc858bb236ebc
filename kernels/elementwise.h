// Ops on single elements and whole rows; bound by memory.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace neurogrid::kernels {

/// y += x, rounded once. T: float or __nv_bfloat16.
template <typename T>
cudaError_t Add(T* y, const T* x, int64_t count, cudaStream_t stream);

/// y = cap * tanh(y / cap)
cudaError_t Softcap(float* y, int64_t count, float cap, cudaStream_t stream);

/// y[i] = x[rows[i]] for rows of `row_bytes`, a multiple of 4. `rows` [count] lies on the device.
cudaError_t GatherRows(void* y, const void* x, const int32_t* rows, int count, int64_t row_bytes,
                       cudaStream_t stream);

}  // namespace neurogrid::kernels
