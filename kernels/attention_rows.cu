// One block for each row and head, with the same splits: the reference in f32, and for bf16 what a
// GPU without its tensor cores (before sm_80) can do.
#include "kernels/attention.h"
#include "kernels/launch.h"
#include "kernels/online_softmax.cuh"
#include "kernels/simt.cuh"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 128;

struct RowAttentionShared {
  BlockScratch<float> scratch;
  float query[kHeadDimMax];
  float probabilities[kSplitTokens];
};

/// The score of one position, minus infinity where it is not visible.
template <typename T>
__device__ __forceinline__ float ScoreOf(const AttentionOperands<T>& o, const AttentionTile& tile,
                                         const float* query, int kv_head, int token) {
  const int position = tile.first_position;
  if (token > position || (o.window > 0 && token <= position - o.window)) return MinusInfinity();
  const int64_t page = o.pages[tile.first_page + token / kPageTokens];
  const T* key = o.kv.keys(page, kv_head) + token % kPageTokens * o.kv.head_dim;
  float score = 0;
  for (int c = 0; c < o.kv.head_dim; ++c) score = fmaf(query[c], ToFloat(key[c]), score);
  score *= o.scale;
  return o.softcap > 0 ? o.softcap * tanhf(score / o.softcap) : score;
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    AttendRowsKernel(AttentionOperands<T> o, const AttentionTile* tiles, int tiles_count,
                     const int32_t* live) {
  WaitForPredecessor();
  ReleaseSuccessor();
  if (static_cast<int>(blockIdx.x) >= (live == nullptr ? tiles_count : *live)) return;
  RowAttentionShared& shared = SharedObject<RowAttentionShared>();
  AttentionTile tile = tiles[blockIdx.x];
  if (static_cast<int>(blockIdx.z) >= tile.queries) return;
  tile.first_row += static_cast<int>(blockIdx.z);
  tile.first_position += static_cast<int>(blockIdx.z);
  const int head = static_cast<int>(blockIdx.y);
  const int kv_head = head / (o.query_heads / o.kv.kv_heads);
  const int head_dim = o.kv.head_dim;
  const int thread = static_cast<int>(threadIdx.x);
  const T* query = o.qkv + static_cast<int64_t>(tile.first_row) * o.qkv_stride + head * head_dim;
  for (int c = thread; c < head_dim; c += kThreads) shared.query[c] = ToFloat(query[c]);
  __syncthreads();
  SoftmaxPart total = NoKeys();
  float outputs[kHeadDimMax / kThreads] = {};
  for (int split = 0; split < tile.splits; ++split) {
    const int start = (tile.first_split + split) * kSplitTokens;
    const float s0 = ScoreOf(o, tile, shared.query, kv_head, start + thread);
    const float s1 = ScoreOf(o, tile, shared.query, kv_head, start + thread + kThreads);
    const float maximum = BlockMax<kThreads>(fmaxf(s0, s1), shared.scratch);
    const float base = maximum == MinusInfinity() ? 0.0f : maximum;
    const float p0 = exp2f(__fmul_rn(s0 - base, kLog2E));
    const float p1 = exp2f(__fmul_rn(s1 - base, kLog2E));
    shared.probabilities[thread] = p0;
    shared.probabilities[thread + kThreads] = p1;
    const float sum = BlockSum<kThreads>(p0 + p1, shared.scratch);
    const MergeFactors factors = Merge(total, {__fmul_rn(maximum, kLog2E), sum});
    const int last = tile.first_position + 1 - start;
    const int first = o.window > 0 ? tile.first_position - o.window + 1 - start : 0;
    for (int i = 0; i < kHeadDimMax / kThreads; ++i) {
      const int c = thread + i * kThreads;
      if (c >= head_dim) continue;
      float output = 0;
      for (int t = first > 0 ? first : 0; t < last && t < kSplitTokens; ++t) {
        const int64_t page = o.pages[tile.first_page + (start + t) / kPageTokens];
        const T* values = o.kv.values(page, kv_head) + t % kPageTokens * head_dim;
        output = fmaf(shared.probabilities[t], ToFloat(values[c]), output);
      }
      outputs[i] = MergeOutput(outputs[i], output, factors);
    }  // the next split writes probabilities behind the barriers of its maximum
  }
  const int64_t row = static_cast<int64_t>(tile.first_row) * o.query_heads + head;
  for (int i = 0; i < kHeadDimMax / kThreads; ++i) {
    const int c = thread + i * kThreads;
    if (c < head_dim) o.out[row * head_dim + c] = FromFloat<T>(Finished(outputs[i], total.sum));
  }
}

template <typename T>
cudaError_t Attend(const AttentionOperands<T>& o, const AttentionWorkView& work,
                   cudaStream_t stream) {
  if (o.kv.kv_heads <= 0 || o.query_heads % o.kv.kv_heads != 0 || o.kv.head_dim > kHeadDimMax) {
    return cudaErrorInvalidValue;
  }
  const auto attend = [&](const AttentionTile* tiles, int count, int rows_max,
                          const int32_t* live) {
    if (count == 0) return cudaSuccess;
    const int queries_max = rows_max / (o.query_heads / o.kv.kv_heads);
    return Launch({"Attention, rows",
                   dim3(static_cast<unsigned>(count), static_cast<unsigned>(o.query_heads),
                        static_cast<unsigned>(queries_max)),
                   dim3(kThreads), 0, stream},
                  AttendRowsKernel<T>, o, tiles, count, live);
  };
  const bool counted = work.live != nullptr;
  const cudaError_t error = attend(work.few_tiles, work.few_tiles_count, kFewTileRows,
                                   counted ? &work.live->few_tiles : nullptr);
  if (error != cudaSuccess) return error;
  return attend(work.more_tiles, work.more_tiles_count, kMoreTileRows,
                counted ? &work.live->more_tiles : nullptr);
}

}  // namespace

cudaError_t Attention(const AttentionOperands<float>& o, const AttentionWorkView& work,
                      cudaStream_t stream) {
  return Attend(o, work, stream);
}

cudaError_t AttendRows(const AttentionOperands<__nv_bfloat16>& o, const AttentionWorkView& work,
                       cudaStream_t stream) {
  return Attend(o, work, stream);
}

}  // namespace neurogrid::kernels
