#include "kernels/bandwidth.h"
#include "kernels/launch.h"
#include "kernels/simt.cuh"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kUnroll = 8;

struct XorScratch {
  uint32_t warps[kThreads / kWarpThreads];
};

__device__ __forceinline__ int64_t FirstIndex() {
  return static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
}
__device__ __forceinline__ int64_t IndexStep() {
  return static_cast<int64_t>(gridDim.x) * kThreads;
}

__device__ __forceinline__ uint32_t Folded(const uint4& v) { return v.x ^ v.y ^ v.z ^ v.w; }

__global__ void __launch_bounds__(kThreads)
    ReadKernel(uint32_t* sums, const uint4* data, int64_t count) {
  ReleaseSuccessor();
  WaitForPredecessor();
  const int64_t step = IndexStep();
  uint32_t sum = 0;
  int64_t i = FirstIndex();
  for (; i + (kUnroll - 1) * step < count; i += kUnroll * step) {
    uint4 v[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) v[u] = data[i + u * step];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) sum ^= Folded(v[u]);
  }
  for (; i < count; i += step) sum ^= Folded(data[i]);
#pragma unroll
  for (int bits = kWarpThreads / 2; bits > 0; bits /= 2) {
    sum ^= __shfl_xor_sync(kFullMask, sum, bits);
  }
  XorScratch& scratch = SharedObject<XorScratch>();
  const int thread = static_cast<int>(threadIdx.x);
  if (thread % kWarpThreads == 0) scratch.warps[thread / kWarpThreads] = sum;
  __syncthreads();
  if (thread == 0) {
    for (int warp = 1; warp < kThreads / kWarpThreads; ++warp) sum ^= scratch.warps[warp];
    sums[blockIdx.x] = sum;
  }
}

__global__ void __launch_bounds__(kThreads)
    CopyKernel(uint4* to, const uint4* from, int64_t count) {
  ReleaseSuccessor();
  WaitForPredecessor();
  const int64_t step = IndexStep();
  int64_t i = FirstIndex();
  for (; i + (kUnroll - 1) * step < count; i += kUnroll * step) {
    uint4 v[kUnroll];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) v[u] = from[i + u * step];
#pragma unroll
    for (int u = 0; u < kUnroll; ++u) to[i + u * step] = v[u];
  }
  for (; i < count; i += step) to[i] = from[i];
}

__device__ __forceinline__ uint32_t Hashed(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ x >> 16;
}

__global__ void __launch_bounds__(kThreads)
    FillKernel(bf16* values, int64_t count, float deviation, uint32_t seed) {
  ReleaseSuccessor();
  WaitForPredecessor();
  constexpr float kRootOf3 = 1.7320508f;  // the sum of four uniform numbers deviates by 1 / root 3
  for (int64_t i = FirstIndex(); i < count; i += IndexStep()) {
    const uint32_t a = Hashed(static_cast<uint32_t>(i) * 2654435761u + seed +
                              static_cast<uint32_t>(i >> 32) * 77u);
    const uint32_t b = Hashed(a + 0x9e3779b9u);
    const uint32_t parts = (a & 0xffffu) + (a >> 16) + (b & 0xffffu) + (b >> 16);
    const float uniform = static_cast<float>(parts) * 0x1p-16f - 2.0f;
    values[i] = FromFloat<bf16>(uniform * kRootOf3 * deviation);
  }
}

LaunchShape Shape(const char* name, cudaStream_t stream) {
  return {name, dim3(static_cast<unsigned>(BandwidthBlocks())), dim3(kThreads), 0, stream};
}

}  // namespace

int BandwidthBlocks() {
  constexpr int kBlocksPerMultiprocessor = 8;
  static const int blocks = [] {
    int count = 0;
    cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, 0);
    return kBlocksPerMultiprocessor * (count > 0 ? count : 1);
  }();
  return blocks;
}

cudaError_t ReadAll(uint32_t* sums, const void* data, int64_t bytes, cudaStream_t stream) {
  return Launch(Shape("ReadAll", stream), ReadKernel, sums, static_cast<const uint4*>(data),
                bytes / 16);
}

cudaError_t CopyAll(void* to, const void* from, int64_t bytes, cudaStream_t stream) {
  return Launch(Shape("CopyAll", stream), CopyKernel, static_cast<uint4*>(to),
                static_cast<const uint4*>(from), bytes / 16);
}

cudaError_t FillNormal(__nv_bfloat16* values, int64_t count, float deviation, uint32_t seed,
                       cudaStream_t stream) {
  return Launch(Shape("FillNormal", stream), FillKernel, values, count, deviation, seed);
}

}  // namespace neurogrid::kernels
