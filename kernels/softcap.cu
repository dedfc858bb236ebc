#include "kernels/launch.h"
#include "kernels/simt.cuh"
#include "kernels/softcap.h"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 256;

__global__ void SoftcapKernel(float* y, int64_t count, float cap) {
  ReleaseSuccessor();
  WaitForPredecessor();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i < count) y[i] = cap * tanhf(y[i] / cap);
}

}  // namespace

cudaError_t Softcap(float* y, int64_t count, float cap, cudaStream_t stream) {
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  const LaunchShape shape{"Softcap", dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0,
                          stream};
  return Launch(shape, SoftcapKernel, y, count, cap);
}

}  // namespace neurogrid::kernels
