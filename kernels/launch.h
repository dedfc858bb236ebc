// The one way to start a kernel, on a GPU and in the emulator.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <cstddef>
#include <cstdint>

#include "kernels/device_limits.h"

namespace neurogrid::kernels {

struct LaunchShape {
  const char* name;  // of the op, for whoever reads an error
  dim3 grid;
  dim3 block;
  size_t shared_bytes;  // dynamic
  cudaStream_t stream;
  bool overlaps = true;  // with its predecessor, where kernels can
};

/// Kernels that this process has queued, for whoever measures.
inline std::atomic<int64_t>& LaunchesQueued() {
  static std::atomic<int64_t> count{0};
  return count;
}

/// Queues the kernel. From sm_90 on it may start while its predecessor still runs unless the shape
/// says otherwise, so every kernel calls WaitForPredecessor (simt.cuh) before it touches anything
/// but weights.
template <typename... Parameters, typename... Arguments>
cudaError_t Launch(const LaunchShape& shape, void (*kernel)(Parameters...),
                   const Arguments&... arguments) {
  LaunchesQueued().fetch_add(1, std::memory_order_relaxed);
#if defined(NG_SIMT)
  return simt::EnqueueKernel({shape.name, shape.grid, shape.block, shape.shared_bytes},
                             shape.stream, [=] { kernel(static_cast<Parameters>(arguments)...); });
#else
  constexpr size_t kSharedWithoutAsking = 48 * 1024;
  if (shape.shared_bytes > kSharedWithoutAsking) {
    const cudaError_t error = cudaFuncSetAttribute(
        kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shape.shared_bytes));
    if (error != cudaSuccess) return error;
    // Kernels that share memory and cache in different ways wait for each other to end.
    cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout,
                         cudaSharedmemCarveoutMaxShared);
  }
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = shape.block;
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = shape.stream;
  config.attrs = &attribute;
  config.numAttrs = shape.overlaps && OverlapsLaunches() ? 1 : 0;
  return cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
#endif
}

}  // namespace neurogrid::kernels
