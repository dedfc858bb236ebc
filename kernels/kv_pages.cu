#include "kernels/kv_pages.cuh"
#include "kernels/launch.h"

namespace neurogrid::kernels {
namespace {

constexpr int kHeadsPerBlock = 8;  // at a time
constexpr int kRowsMany = 512;

/// Where in the pages head `head` of keys, then of values, of a slot lies.
template <typename T>
__device__ __forceinline__ T* PlaceOf(const KvPages<T>& kv, int64_t slot, int head) {
  const int64_t page = slot / kPageTokens;
  const bool is_value = head >= kv.kv_heads;
  T* tile = is_value ? kv.values(page, head - kv.kv_heads) : kv.keys(page, head);
  return tile + slot % kPageTokens * kv.head_dim;
}

/// A warp has kHeads heads of a row, all on their way before the first is rotated.
template <typename T, int kPairs, int kHeads>
__global__ void __launch_bounds__(kHeadsPerBlock* kWarpThreads)
    RopeAndWriteKvKernel(T* qkv, int query_heads, HeadNorms norms, const float* rotation,
                         const int32_t* positions, const int64_t* slots, KvPages<T> kv) {
  ReleaseSuccessor();
  const int64_t row = blockIdx.x;
  const int first = static_cast<int>(blockIdx.y) * kHeads * kHeadsPerBlock +
                    static_cast<int>(threadIdx.x) / kWarpThreads;
  const int heads = query_heads + 2 * kv.kv_heads;
  const int64_t slot = slots[row];
  const int last = slot < 0 ? query_heads : heads;  // rows without a slot are queries alone
  if (first >= last) return WaitForPredecessor();   // whole warps
  const int dim = kv.head_dim;
  const HeadAngles<kPairs> angles(rotation + static_cast<int64_t>(positions[row]) * dim, dim);
  HeadPairs<T, kPairs> pairs[kHeads];
  const HeadWeights<kPairs> of_queries(norms.query_weight, dim);
  const HeadWeights<kPairs> of_keys(norms.key_weight, dim);
  T* values = qkv + row * heads * dim;

  WaitForPredecessor();
#pragma unroll
  for (int i = 0; i < kHeads; ++i) {
    const int head = first + i * kHeadsPerBlock;
    if (head < last) pairs[i] = HeadPairs<T, kPairs>(values + head * dim, dim);
  }
#pragma unroll
  for (int i = 0; i < kHeads; ++i) {
    const int head = first + i * kHeadsPerBlock;
    if (head >= last) continue;
    const bool is_query = head < query_heads;
    const bool is_value = head >= query_heads + kv.kv_heads;
    if (is_query && norms.query_weight != nullptr) pairs[i].Norm(of_queries, norms, dim);
    if (!is_query && !is_value && norms.key_weight != nullptr) pairs[i].Norm(of_keys, norms, dim);
    if (!is_value) pairs[i].Rotate(angles, dim);
    T* to = is_query ? values + head * dim : PlaceOf(kv, slot, head - query_heads);
    pairs[i].ForEach(dim, [&](int column, T x) { to[column] = x; });
  }
}

}  // namespace

template <typename T>
cudaError_t RopeAndWriteKv(T* qkv, int rows, int query_heads, const HeadNorms& norms,
                           const float* rotation, const int32_t* positions, const int64_t* slots,
                           const KvPages<T>& kv, cudaStream_t stream) {
  const int heads = query_heads + 2 * kv.kv_heads;
  const auto launch = [&](int heads_of_warp, auto* kernel) {
    const int per_block = heads_of_warp * kHeadsPerBlock;
    const LaunchShape shape{"RopeAndWriteKv",
                            dim3(static_cast<unsigned>(rows),
                                 static_cast<unsigned>((heads + per_block - 1) / per_block)),
                            dim3(kHeadsPerBlock * kWarpThreads), 0, stream};
    return Launch(shape, kernel, qkv, query_heads, norms, rotation, positions, slots, kv);
  };
  // Few rows wait for one head's way, many for the number of warps.
  const bool many = rows >= kRowsMany;
  if (kv.head_dim <= 64) {
    return many ? launch(6, RopeAndWriteKvKernel<T, 1, 6>)
                : launch(1, RopeAndWriteKvKernel<T, 1, 1>);
  }
  if (kv.head_dim <= 128) {
    return many ? launch(3, RopeAndWriteKvKernel<T, 2, 3>)
                : launch(1, RopeAndWriteKvKernel<T, 2, 1>);
  }
  if (kv.head_dim <= 256) return launch(1, RopeAndWriteKvKernel<T, 4, 1>);
  return cudaErrorInvalidValue;
}

template cudaError_t RopeAndWriteKv(float*, int, int, const HeadNorms&, const float*,
                                    const int32_t*, const int64_t*, const KvPages<float>&,
                                    cudaStream_t);
template cudaError_t RopeAndWriteKv(bf16*, int, int, const HeadNorms&, const float*, const int32_t*,
                                    const int64_t*, const KvPages<bf16>&, cudaStream_t);

}  // namespace neurogrid::kernels
