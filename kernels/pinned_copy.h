// Small pieces of pinned host memory to the device, as a kernel that reads them over the bus: in a
// stream of kernels a copy engine's part costs the time of changing to it and back (H200, between
// two graphs: 9.8 us, the kernel 4.0).
//
// 16 bytes a thread, all of them under way at once; bound by one way over the bus and back.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace neurogrid::kernels {

inline constexpr int64_t kPinnedCopyBytesMax = 64 * 1024;  // more is a copy engine's

/// Whether CopyPinned takes this: both aligned to 16 bytes, and not too much.
inline bool PinnedCopyTakes(const void* to, const void* pinned, int64_t bytes) {
  return (reinterpret_cast<uintptr_t>(to) | reinterpret_cast<uintptr_t>(pinned)) % 16 == 0 &&
         bytes <= kPinnedCopyBytesMax;
}

/// to = pinned, where PinnedCopyTakes says so. Starts when all kernels before it have ended, and
/// none behind it starts before it has, so those may read `to` at once.
cudaError_t CopyPinned(void* to, const void* pinned, int64_t bytes, cudaStream_t stream);

}  // namespace neurogrid::kernels
