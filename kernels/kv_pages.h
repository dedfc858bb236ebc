// Keys and values of one layer in pages of 16 tokens, and how rows get there.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>

namespace neurogrid::kernels {

inline constexpr int kPageTokens = 16;

/// Page i starts at data + i * page_stride elements. It holds for each kv head a tile of keys
/// [16 tokens][head_dim], then a tile of values of the same shape. head_dim is a multiple of 8.
template <typename T>
struct KvPages {
  T* data;
  int64_t page_stride;
  int kv_heads;
  int head_dim;

  __host__ __device__ int tile() const { return kPageTokens * head_dim; }
  __host__ __device__ T* keys(int64_t page, int kv_head) const {
    return data + page * page_stride + 2 * static_cast<int64_t>(kv_head) * tile();
  }
  __host__ __device__ T* values(int64_t page, int kv_head) const {
    return keys(page, kv_head) + tile();
  }
};

/// Norms of the heads of queries and of keys, over head_dim; a null weight: none.
struct HeadNorms {
  const float* query_weight;  // [head_dim]
  const float* key_weight;    // [head_dim]
  float epsilon;
  bool rounds_before_weight;
};

/// Norms queries and keys (rms_norm.h), rounds them to T, rotates the queries of each row in place
/// and writes its rotated keys and its values to its slot:
///
///   x'[j]         = x[j] cos - x[j + half] sin
///   x'[j + half]  = x[j + half] cos + x[j] sin        half = head_dim / 2
///
///   qkv        [rows, (query_heads + 2 kv_heads) * head_dim]  q, k, v; the keys stay as they were
///   rotation   [positions, 2, half]  cosines, then sines
///   positions  [rows]                an input of the step
///   slots      [rows]                page * 16 + position % 16, below 0: writes nothing; an input
///
/// A warp for each head of a row, its pairs in registers; what it needs besides is there before the
/// predecessor has ended. Bound by latency for few rows, by memory for many. T: float or bf16.
/// InvalidValue for heads of more than 256.
template <typename T>
cudaError_t RopeAndWriteKv(T* qkv, int rows, int query_heads, const HeadNorms& norms,
                           const float* rotation, const int32_t* positions, const int64_t* slots,
                           const KvPages<T>& kv, cudaStream_t stream);

}  // namespace neurogrid::kernels
