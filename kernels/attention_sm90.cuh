// What the kernels of attention with wgmma share.
#pragma once

#include "kernels/attention.cuh"
#include "kernels/wgmma.cuh"

namespace neurogrid::kernels {

inline constexpr int kWarpgroupThreads = 128;
inline constexpr int kBarrierBytes = 8;

/// Piece of 16 bytes of a row of 128 of an operand of wgmma.
__device__ __forceinline__ int SwizzledByte(int row, int piece) {
  return row * 128 + ((piece ^ (row & 7)) << 4);
}

}  // namespace neurogrid::kernels
