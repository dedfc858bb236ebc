// Attention of a batch's rows over their sequences' pages.
#pragma once

#include <cstdint>

#include "common/buffer.h"
#include "common/status.h"
#include "common/tensor.h"
#include "engine/batch.h"
#include "engine/cpu/cpu_context.h"
#include "engine/cpu/kv_pages.h"

namespace neurogrid {

struct AttentionParameters {
  int query_heads = 0;  // a multiple of kv_heads; head h reads kv head h * kv_heads / query_heads
  float scale = 0;      // of the scores; positive
  float softcap = 0;    // c > 0: scores become c * tanh(score / c)
  int window = 0;       // keys visible to a query, itself included; 0: all before it
};

/// Scores of each thread, and states of splits that several threads share.
class AttentionScratch {
 public:
  AttentionScratch() = default;
  /// InvalidArgument for heads that Attention does not take, ResourceExhausted without memory.
  static absl::StatusOr<AttentionScratch> Allocate(int threads, int query_heads, int head_dim,
                                                   int positions_max);
  static int64_t BytesFor(int threads, int query_heads, int head_dim, int positions_max);
  int64_t bytes() const { return static_cast<int64_t>(buffer_.bytes()); }

  int threads() const { return threads_; }
  /// One running softmax state of a worker ...
  float* worker_state(int worker) const { return buffer_.as<float>() + worker * worker_floats_; }
  /// ... and its space for scores, probabilities and one split's state.
  float* work(int worker) const { return worker_state(worker) + state_floats_; }
  /// States of splits that wait to be merged.
  float* states() const { return worker_state(threads_); }
  int64_t states_floats() const { return states_floats_; }

 private:
  Buffer buffer_;
  int threads_ = 0;
  int64_t worker_floats_ = 0;
  int64_t state_floats_ = 0;
  int64_t states_floats_ = 0;
};

/// out[r, h] = sum over visible j of softmax_j(scale * <q[r, h], k[j]>) v[j]
///
///   out  [rows, query_heads * head_dim]      dtype of the pages
///   qkv  [rows, at least query_heads * head_dim]  q first; dtype of the pages
///
/// Keys and values of the batch's own rows must be in their pages already. Positions are taken in
/// splits of 256 from position 0: in a split all scores, their maximum, exponentials (f32, then
/// rounded to the dtype of the pages), their sum and one chain of products with v; split states
/// merge in order of position. A row's bits depend on its query and its sequence's keys and values
/// alone: not on the rest of the batch, the chunking of its prompt, page numbers, threads or
/// instruction set. Stale tokens in pages are never read into a result, and no page before that of
/// the first visible key is touched: its entry in the table may be -1. Milakov and Gimelshein 2018,
/// Online normalizer calculation.
void Attention(const CpuContext& cpu, Tensor out, ConstTensor qkv, const KvLayer& layer,
               const Batch& batch, const AttentionParameters& parameters,
               const AttentionScratch& scratch);

}  // namespace neurogrid
