// The memory's own speed, for judging everything else: a kernel that only reads and one that
// copies, and numbers to do it with.
//
// 256 threads a block, 16 bytes a load, eight loads under way in each thread; bound by memory
// alone.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace neurogrid::kernels {

/// Blocks of each launch: eight a multiprocessor of the first device.
int BandwidthBlocks();

/// sums[b] = exclusive or over the words of data that block b of BandwidthBlocks() reads; over all
/// blocks, that of data. `bytes` is a multiple of 16.
cudaError_t ReadAll(uint32_t* sums, const void* data, int64_t bytes, cudaStream_t stream);

/// to = from; `bytes` is a multiple of 16.
cudaError_t CopyAll(void* to, const void* from, int64_t bytes, cudaStream_t stream);

/// values[i] = deviation * a number drawn from a nearly normal distribution by (seed, i): the sum
/// of four uniform ones. Zeros would make any product faster than it is.
cudaError_t FillNormal(__nv_bfloat16* values, int64_t count, float deviation, uint32_t seed,
                       cudaStream_t stream);

}  // namespace neurogrid::kernels
