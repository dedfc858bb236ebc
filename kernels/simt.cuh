// What kernels share: shared memory, the order of reductions, overlap with their neighbours.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace neurogrid::kernels {

inline constexpr unsigned kFullMask = 0xffffffffu;
inline constexpr int kWarpThreads = 32;

/// The block's dynamic shared memory, 128-byte aligned.
template <typename T>
__device__ __forceinline__ T* SharedMemory() {
#if defined(NG_SIMT)
  return static_cast<T*>(simt::DynamicSharedMemory());
#else
  extern __shared__ __align__(128) unsigned char shared_memory[];
  return reinterpret_cast<T*>(shared_memory);
#endif
}

/// One T in static shared memory. T is a type of the kernel's own: two uses of one T are one place.
template <typename T>
__device__ __forceinline__ T& SharedObject() {
#if defined(NG_SIMT)
  return *simt::StaticShared<T>();
#else
  __shared__ __align__(16) unsigned char object[sizeof(T)];
  return *reinterpret_cast<T*>(object);
#endif
}

/// Until it returns, the kernels before this one may still be writing: weights may be read before,
/// and the inputs of a step, which copies bring that nothing overlaps (pinned_copy.h). Every thread
/// of every kernel calls it, so that none can end before its predecessor has.
__device__ __forceinline__ void WaitForPredecessor() {
#if defined(NG_SIMT) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900)
  cudaGridDependencySynchronize();
#endif
}
/// Lets the next kernel start up to its own WaitForPredecessor: first in a kernel, or where what
/// the next one would do then is of more use (matmul_few_rows.cuh).
__device__ __forceinline__ void ReleaseSuccessor() {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 900
  cudaTriggerProgrammaticLaunchCompletion();
#endif
}

/// The sum of all lanes, in every lane, as a butterfly: lane i takes the sum of its half first.
template <typename T>
__device__ __forceinline__ T WarpSum(T value) {
#pragma unroll
  for (int bits = kWarpThreads / 2; bits > 0; bits /= 2) {
    value += __shfl_xor_sync(kFullMask, value, bits);
  }
  return value;
}

template <typename T>
__device__ __forceinline__ T WarpMax(T value) {
#pragma unroll
  for (int bits = kWarpThreads / 2; bits > 0; bits /= 2) {
    const T other = __shfl_xor_sync(kFullMask, value, bits);
    value = other > value ? other : value;
  }
  return value;
}

/// Space for one reduction over a block at a time.
template <typename T>
struct BlockScratch {
  T warps[32];
};

/// The sum over the block in every thread: warps first, then their sums in order of warp. All
/// threads of the block call it; `kThreads` is their number.
template <int kThreads, typename T>
__device__ __forceinline__ T BlockSum(T value, BlockScratch<T>& scratch) {
  const int thread = static_cast<int>(threadIdx.x);
  value = WarpSum(value);
  if (thread % kWarpThreads == 0) scratch.warps[thread / kWarpThreads] = value;
  __syncthreads();
  T sum = scratch.warps[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / kWarpThreads; ++warp) sum += scratch.warps[warp];
  __syncthreads();
  return sum;
}

template <int kThreads, typename T>
__device__ __forceinline__ T BlockMax(T value, BlockScratch<T>& scratch) {
  const int thread = static_cast<int>(threadIdx.x);
  value = WarpMax(value);
  if (thread % kWarpThreads == 0) scratch.warps[thread / kWarpThreads] = value;
  __syncthreads();
  T largest = scratch.warps[0];
#pragma unroll
  for (int warp = 1; warp < kThreads / kWarpThreads; ++warp) {
    largest = scratch.warps[warp] > largest ? scratch.warps[warp] : largest;
  }
  __syncthreads();
  return largest;
}

}  // namespace neurogrid::kernels
