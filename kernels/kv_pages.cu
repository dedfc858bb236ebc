#include "kernels/kv_pages.h"
#include "kernels/launch.h"
#include "kernels/norm.cuh"
#include "kernels/simt.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kHeadsPerBlock = 8;

/// Where in the pages head `head` of keys, then of values, of a slot lies.
template <typename T>
__device__ __forceinline__ T* PlaceOf(const KvPages<T>& kv, int64_t slot, int head) {
  const int64_t page = slot / kPageTokens;
  const bool is_value = head >= kv.kv_heads;
  T* tile = is_value ? kv.values(page, head - kv.kv_heads) : kv.keys(page, head);
  return tile + slot % kPageTokens * kv.head_dim;
}

/// A lane holds pairs j = lane, lane + 32, ...: kPairs of them are enough for half a head.
template <typename T, int kPairs>
__global__ void __launch_bounds__(kHeadsPerBlock* kWarpThreads)
    RopeAndWriteKvKernel(T* qkv, int query_heads, HeadNorms norms, const float* rotation,
                         const int32_t* positions, const int64_t* slots, KvPages<T> kv) {
  ReleaseSuccessor();
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpThreads;
  const int64_t row = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y) * kHeadsPerBlock + thread / kWarpThreads;
  const int heads = query_heads + 2 * kv.kv_heads;
  if (head >= heads) return WaitForPredecessor();  // whole warps
  const bool is_query = head < query_heads;
  const bool is_value = head >= query_heads + kv.kv_heads;
  const int dim = kv.head_dim;
  const int half = dim / 2;

  const float* weight = is_value ? nullptr : is_query ? norms.query_weight : norms.key_weight;
  const float* cosines = rotation + static_cast<int64_t>(positions[row]) * dim;
  const int64_t slot = slots[row];
  if (slot < 0 && !is_query) return WaitForPredecessor();
  float w[kPairs][2];
  float cosine[kPairs];
  float sine[kPairs];
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    const int j = lane + p * kWarpThreads;
    if (j >= half) continue;
    cosine[p] = cosines[j];
    sine[p] = cosines[j + half];
    w[p][0] = weight == nullptr ? 1.0f : weight[j];
    w[p][1] = weight == nullptr ? 1.0f : weight[j + half];
  }
  T* values = qkv + (row * heads + head) * dim;
  T* to = is_query ? values : PlaceOf(kv, slot, head - query_heads);

  WaitForPredecessor();
  T x[kPairs][2];
  float squares = 0;
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    const int j = lane + p * kWarpThreads;
    if (j >= half) continue;
    x[p][0] = values[j];
    x[p][1] = values[j + half];
    squares = fmaf(ToFloat(x[p][0]), ToFloat(x[p][0]), squares);
    squares = fmaf(ToFloat(x[p][1]), ToFloat(x[p][1]), squares);
  }
  float factor = 1;
  if (weight != nullptr) factor = NormFactor(WarpSum(squares), dim, norms.epsilon);
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    const int j = lane + p * kWarpThreads;
    if (j >= half) continue;
    if (weight != nullptr) {
      x[p][0] = Normed(x[p][0], factor, w[p][0], norms.rounds_before_weight);
      x[p][1] = Normed(x[p][1], factor, w[p][1], norms.rounds_before_weight);
    }
    if (!is_value) {
      const float a = ToFloat(x[p][0]);
      const float b = ToFloat(x[p][1]);
      x[p][0] = FromFloat<T>(__fadd_rn(__fmul_rn(a, cosine[p]), -__fmul_rn(b, sine[p])));
      x[p][1] = FromFloat<T>(__fadd_rn(__fmul_rn(b, cosine[p]), __fmul_rn(a, sine[p])));
    }
    to[j] = x[p][0];
    to[j + half] = x[p][1];
  }
}

}  // namespace

template <typename T>
cudaError_t RopeAndWriteKv(T* qkv, int rows, int query_heads, const HeadNorms& norms,
                           const float* rotation, const int32_t* positions, const int64_t* slots,
                           const KvPages<T>& kv, cudaStream_t stream) {
  const int heads = query_heads + 2 * kv.kv_heads;
  const auto blocks = static_cast<unsigned>((heads + kHeadsPerBlock - 1) / kHeadsPerBlock);
  const LaunchShape shape{"RopeAndWriteKv", dim3(static_cast<unsigned>(rows), blocks),
                          dim3(kHeadsPerBlock * kWarpThreads), 0, stream};
  const auto launch = [&](auto* kernel) {
    return Launch(shape, kernel, qkv, query_heads, norms, rotation, positions, slots, kv);
  };
  if (kv.head_dim <= 64) return launch(RopeAndWriteKvKernel<T, 1>);
  if (kv.head_dim <= 128) return launch(RopeAndWriteKvKernel<T, 2>);
  if (kv.head_dim <= 256) return launch(RopeAndWriteKvKernel<T, 4>);
  return cudaErrorInvalidValue;
}

template cudaError_t RopeAndWriteKv(float*, int, int, const HeadNorms&, const float*,
                                    const int32_t*, const int64_t*, const KvPages<float>&,
                                    cudaStream_t);
template cudaError_t RopeAndWriteKv(bf16*, int, int, const HeadNorms&, const float*, const int32_t*,
                                    const int64_t*, const KvPages<bf16>&, cudaStream_t);

}  // namespace neurogrid::kernels
