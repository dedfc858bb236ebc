// y[r, c] = scale * table[tokens[r], c]. A thread an element of few rows,
// a block a row of many; bound by latency, then memory.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/weights.h"

namespace neurogrid::kernels {

/// `tokens` [rows] lies on the device, ids below the rows of the table.
///   y  [rows, columns], T: float or bf16
template <typename T>
cudaError_t Embed(T* y, const Weights& table, const int32_t* tokens, int rows, float scale,
                  cudaStream_t stream);

}  // namespace neurogrid::kernels
