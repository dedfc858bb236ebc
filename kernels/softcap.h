// y = cap * tanh(y / cap), one thread an element; bound by memory.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace neurogrid::kernels {

/// y [count], in place.
cudaError_t Softcap(float* y, int64_t count, float cap, cudaStream_t stream);

}  // namespace neurogrid::kernels
