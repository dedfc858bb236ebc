#include "kernels/kv_pages.cuh"
#include "kernels/launch.h"

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

template <typename T, int kPairs>
__global__ void __launch_bounds__(kHeadsPerBlock* kWarpThreads)
    RopeAndWriteKvKernel(T* qkv, int query_heads, HeadNorms norms, const float* rotation,
                         const int32_t* positions, const int64_t* slots, KvPages<T> kv) {
  ReleaseSuccessor();
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t row = blockIdx.x;
  const int head = static_cast<int>(blockIdx.y) * kHeadsPerBlock + thread / kWarpThreads;
  const int heads = query_heads + 2 * kv.kv_heads;
  if (head >= heads) return WaitForPredecessor();  // whole warps
  const bool is_query = head < query_heads;
  const bool is_value = head >= query_heads + kv.kv_heads;
  const int dim = kv.head_dim;
  const float* weight = is_value ? nullptr : is_query ? norms.query_weight : norms.key_weight;
  const int64_t slot = slots[row];
  if (slot < 0 && !is_query) return WaitForPredecessor();
  const HeadAngles<kPairs> angles(rotation + static_cast<int64_t>(positions[row]) * dim, dim);
  const HeadWeights<kPairs> weights(weight, dim);
  T* values = qkv + (row * heads + head) * dim;
  T* to = is_query ? values : PlaceOf(kv, slot, head - query_heads);

  WaitForPredecessor();
  HeadPairs<T, kPairs> pairs(values, dim);
  if (weight != nullptr) pairs.Norm(weights, norms, dim);
  if (!is_value) pairs.Rotate(angles, dim);
  pairs.ForEach(dim, [&](int column, T x) { to[column] = x; });
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
