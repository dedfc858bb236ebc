#include "kernels/elementwise.h"
#include "kernels/launch.h"
#include "kernels/simt.cuh"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlocksMax = 4096;

/// The elements of this thread: ThreadIndex(), then every GridThreads()-th.
__device__ __forceinline__ int64_t ThreadIndex() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}
__device__ __forceinline__ int64_t GridThreads() {
  return static_cast<int64_t>(gridDim.x) * kThreads;
}

template <typename T>
__global__ void AddKernel(T* y, const T* x, int64_t count) {
  WaitForPredecessor();
  ReleaseSuccessor();
  for (int64_t i = ThreadIndex(); i < count; i += GridThreads()) {
    y[i] = FromFloat<T>(ToFloat(y[i]) + ToFloat(x[i]));
  }
}

__global__ void SoftcapKernel(float* y, int64_t count, float cap) {
  WaitForPredecessor();
  ReleaseSuccessor();
  for (int64_t i = ThreadIndex(); i < count; i += GridThreads()) y[i] = cap * tanhf(y[i] / cap);
}

__global__ void GatherRowsKernel(uint32_t* y, const uint32_t* x, const int32_t* rows,
                                 int64_t row_words) {
  WaitForPredecessor();
  ReleaseSuccessor();
  const int64_t from = rows[blockIdx.x] * row_words;
  const int64_t to = static_cast<int64_t>(blockIdx.x) * row_words;
  for (int64_t i = threadIdx.x; i < row_words; i += kThreads) y[to + i] = x[from + i];
}

LaunchShape ShapeFor(const char* name, int64_t count, cudaStream_t stream) {
  const int64_t blocks = (count + kThreads - 1) / kThreads;
  return {name, dim3(static_cast<unsigned>(blocks < kBlocksMax ? blocks : kBlocksMax)),
          dim3(kThreads), 0, stream};
}

}  // namespace

template <typename T>
cudaError_t Add(T* y, const T* x, int64_t count, cudaStream_t stream) {
  return Launch(ShapeFor("Add", count, stream), AddKernel<T>, y, x, count);
}
template cudaError_t Add(float*, const float*, int64_t, cudaStream_t);
template cudaError_t Add(bf16*, const bf16*, int64_t, cudaStream_t);

cudaError_t Softcap(float* y, int64_t count, float cap, cudaStream_t stream) {
  return Launch(ShapeFor("Softcap", count, stream), SoftcapKernel, y, count, cap);
}

cudaError_t GatherRows(void* y, const void* x, const int32_t* rows, int count, int64_t row_bytes,
                       cudaStream_t stream) {
  const LaunchShape shape{"GatherRows", dim3(static_cast<unsigned>(count)), dim3(kThreads), 0,
                          stream};
  return Launch(shape, GatherRowsKernel, static_cast<uint32_t*>(y), static_cast<const uint32_t*>(x),
                rows, row_bytes / 4);
}

}  // namespace neurogrid::kernels
