// y[r, c] = scale * table[tokens[r], c]. A thread an element of few rows,
// a block a row of many; bound by latency, then memory.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/weights.h"

namespace neurogrid::kernels {

/// `tokens` [rows] and `drawn` lie on the device: ids below the rows of the table, or in tokens
/// -1 - i for the id drawn[i], which may be null where none is.
///   y  [rows, columns], T: float or bf16
template <typename T>
cudaError_t Embed(T* y, const Weights& table, const int32_t* tokens, const int32_t* drawn, int rows,
                  float scale, cudaStream_t stream);

}  // namespace neurogrid::kernels
