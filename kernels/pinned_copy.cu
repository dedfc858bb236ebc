#include "kernels/launch.h"
#include "kernels/pinned_copy.h"
#include "kernels/simt.cuh"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kPieceBytes = 16;

/// Releases its successor by its end alone, when what it wrote is there for all.
__global__ void __launch_bounds__(kThreads)
    PinnedCopyKernel(uint8_t* to, const uint8_t* pinned, int64_t bytes) {
  const int64_t at =
      (int64_t{blockIdx.x} * kThreads + static_cast<int64_t>(threadIdx.x)) * kPieceBytes;
  WaitForPredecessor();
  if (at + kPieceBytes <= bytes) {
    StoreVec(to + at, LoadVec(pinned + at));
  } else {
    for (int64_t i = at; i < bytes; ++i) to[i] = pinned[i];
  }
  __threadfence();
}

}  // namespace

cudaError_t CopyPinned(void* to, const void* pinned, int64_t bytes, cudaStream_t stream) {
  if (bytes <= 0) return cudaSuccess;
  constexpr int64_t kBlockBytes = int64_t{kThreads} * kPieceBytes;
  LaunchShape shape{"CopyPinned",
                    dim3(static_cast<unsigned>((bytes + kBlockBytes - 1) / kBlockBytes)),
                    dim3(kThreads), 0, stream};
  shape.overlaps = false;
  return Launch(shape, PinnedCopyKernel, static_cast<uint8_t*>(to),
                static_cast<const uint8_t*>(pinned), bytes);
}

}  // namespace neurogrid::kernels
