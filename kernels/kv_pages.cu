#include "kernels/kv_pages.h"
#include "kernels/launch.h"
#include "kernels/simt.cuh"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 256;

template <typename T>
__global__ void __launch_bounds__(kThreads)
    RopeAndWriteKvKernel(T* qkv, int query_heads, const float* rotation, const int32_t* positions,
                         const int64_t* slots, KvPages<T> kv) {
  WaitForPredecessor();
  ReleaseSuccessor();
  const int row = static_cast<int>(blockIdx.x);
  const int dim = kv.head_dim;
  const int half = dim / 2;
  const int heads = query_heads + 2 * kv.kv_heads;
  T* values = qkv + static_cast<int64_t>(row) * heads * dim;
  const float* cosines = rotation + static_cast<int64_t>(positions[row]) * dim;
  const float* sines = cosines + half;
  const int64_t slot = slots[row];
  const int64_t page = slot / kPageTokens;
  const int64_t offset = slot % kPageTokens * dim;
  for (int i = static_cast<int>(threadIdx.x); i < heads * half; i += kThreads) {
    const int head = i / half;
    const int j = i % half;
    const T x0 = values[head * dim + j];
    const T x1 = values[head * dim + j + half];
    if (head >= query_heads + kv.kv_heads) {
      T* to = kv.values(page, head - query_heads - kv.kv_heads) + offset;
      to[j] = x0;
      to[j + half] = x1;
      continue;
    }
    const float a = ToFloat(x0);
    const float b = ToFloat(x1);
    const float c = cosines[j];
    const float s = sines[j];
    T* to = head < query_heads ? values + head * dim : kv.keys(page, head - query_heads) + offset;
    to[j] = FromFloat<T>(__fadd_rn(__fmul_rn(a, c), -__fmul_rn(b, s)));
    to[j + half] = FromFloat<T>(__fadd_rn(__fmul_rn(b, c), __fmul_rn(a, s)));
  }
}

}  // namespace

template <typename T>
cudaError_t RopeAndWriteKv(T* qkv, int rows, int query_heads, const float* rotation,
                           const int32_t* positions, const int64_t* slots, const KvPages<T>& kv,
                           cudaStream_t stream) {
  const LaunchShape shape{"RopeAndWriteKv", dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0,
                          stream};
  return Launch(shape, RopeAndWriteKvKernel<T>, qkv, query_heads, rotation, positions, slots, kv);
}

template cudaError_t RopeAndWriteKv(float*, int, int, const float*, const int32_t*, const int64_t*,
                                    const KvPages<float>&, cudaStream_t);
template cudaError_t RopeAndWriteKv(bf16*, int, int, const float*, const int32_t*, const int64_t*,
                                    const KvPages<bf16>&, cudaStream_t);

}  // namespace neurogrid::kernels
