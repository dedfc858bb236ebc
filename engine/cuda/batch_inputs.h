// What the kernels need to know of a batch: all of it in one block of device memory, brought by one
// copy before the first kernel. What only some layers need is in it once a layer has asked for it.
#pragma once

#include <memory>
#include <vector>

#include "absl/types/span.h"
#include "engine/batch.h"
#include "engine/cuda/cuda_memory.h"
#include "engine/cuda/sampler_rows.h"
#include "kernels/attention.h"
#include "kernels/sampler.h"
#include "kernels/short_convolution.h"

namespace neurogrid {

/// All numbers that decide where the arrays of a batch lie and how many blocks kernels have: what
/// was queued for one batch serves every other of its shape.
using BatchShape = std::vector<int64_t>;

class BatchInputs {
 public:
  /// Memory for batches of so many rows, pages and edits of logits.
  absl::Status Reserve(int64_t rows, int64_t pages, int64_t edits);

  /// Takes a batch, which lives until the next call. `states_bytes`: of the states of attention.
  /// `parity`: FillSamplerRows.
  void Begin(const Batch& batch, int64_t states_bytes, int parity);
  /// One row a sequence, none of which needs the attention of many rows.
  bool decodes() const { return decodes_; }
  /// Whether some step so far had a short convolution.
  bool convolves() const { return convolves_; }
  /// So few rows that launching their kernels one by one would take longer than they do: of
  /// sequences that decode, or that guess what they will say. A prompt's last rows are as few, but
  /// hardly ever a second time beside the same others: their graphs would push out those in use.
  bool repeats() const {
    return decodes_ || (rows_ > 0 && rows_ <= kRowsRepeated && samples_ == rows_);
  }
  /// As if there were so many rows and samples: the further ones have no effect on any state, and
  /// their results are unspecified. Lists get lengths that many batches share. For batches that
  /// repeat; those that do not decode keep their rows and samples.
  void Widen(int rows, int samples);
  const BatchShape& shape() const { return shape_; }
  /// Memory beside this has moved: no shape up to now comes again.
  void Invalidate() { ++generation_; }
  /// Queues the copies. Their memory grows when a batch needs more than any before: only then does
  /// this allocate. Where `recorded`, a small copy is left to the steps (copy_left).
  absl::Status Send(cudaStream_t stream, bool recorded = false);
  /// Whether the steps of this shape begin with the copy: between two graphs it takes the time of a
  /// change from one to the other (H200: 3.5 us).
  bool copy_left() const { return copied_bytes_ > 0; }
  /// Queues that copy from block `block` of Staging::kBlocks; `block`: this batch's.
  absl::Status Copy(int block, cudaStream_t stream) const;
  int block() const { return staging_.block(); }
  /// Behind the steps that began with it.
  absl::Status Copied(cudaStream_t stream) { return staging_.Sent(stream); }

  const int32_t* tokens() const { return tokens_; }
  const int32_t* positions() const { return positions_; }
  const int32_t* sampled_rows() const { return sampled_rows_; }
  const kernels::SamplerRow* sampler_rows() const { return sampler_rows_; }
  const kernels::LogitEdit* edits() const { return edits_.as<kernels::LogitEdit>(); }
  const SamplerRows& sampler() const { return sampler_; }
  int samples() const { return samples_; }  // of the batch, or as widened
  /// Where the rows and the sequences of a batch are, in layers of one kind.
  struct Table {
    const int64_t* slots = nullptr;  // [rows]  page * 16 + position % 16; -1: nowhere
    const int32_t* pages = nullptr;
  };
  const Table& table(bool windowed) const { return windowed ? window_pages_ : pages_; }

  /// The tiles of layers of this kind, of `group` query heads to each kv head; `state_bytes` is one
  /// state's.
  absl::StatusOr<const kernels::AttentionWorkView*> Attention(int group, int kv_heads, int window,
                                                              int64_t state_bytes,
                                                              cudaStream_t stream);

  struct Convolution {
    const kernels::ConvolutionChunk* chunks = nullptr;
    int chunks_count = 0;
    const kernels::ConvolutionChunk* states = nullptr;
    int states_count = 0;
  };
  absl::StatusOr<const Convolution*> ShortConvolution(cudaStream_t stream);

 private:
  static constexpr int kRowsRepeated = 16;

  class Writer;
  struct Plan {
    int group = 0;
    int kv_heads = 0;
    int window = 0;
    int64_t state_bytes = 0;
    kernels::AttentionWork work;
    bool whole_heads = false;
    kernels::AttentionWorkView view;
  };
  absl::Status Grow(CudaBuffer& buffer, int64_t bytes);
  void Collect();
  void CollectAttention(Plan& plan);
  void CollectConvolution();
  void CollectShape();
  /// Another kind of layer was met in the middle of a batch.
  absl::Status BeginAgain(cudaStream_t stream);
  void LayOut(Writer writer);
  void LayOutAttention(Plan& plan, Writer& writer) const;
  void PlaceRows(const std::vector<int32_t>& pages);

  const Batch* batch_ = nullptr;
  int64_t states_bytes_ = 0;
  int parity_ = 0;
  int rows_ = 0;  // of the batch, or as widened
  int samples_ = 0;
  bool widened_ = false;
  bool decodes_ = false;
  std::vector<std::unique_ptr<Plan>> plans_;  // one for each kind of layer seen
  bool convolves_ = false;                    // a short convolution was seen
  std::vector<kernels::ConvolutionChunk> chunks_, states_;
  std::vector<int64_t> slot_values_;
  std::vector<int32_t> all_pages_;
  SamplerRows sampler_;
  BatchShape shape_;

  int64_t bytes_ = 0;
  int64_t copied_bytes_ = 0;  // of the copy that is left to the steps
  Staging staging_;
  CudaBuffer block_;
  Staging edits_staging_;
  CudaBuffer edits_;        // apart, since their number is no part of the shape
  int64_t generation_ = 0;  // grows when memory does

  const int32_t* tokens_ = nullptr;
  const int32_t* positions_ = nullptr;
  const int32_t* sampled_rows_ = nullptr;
  const kernels::SamplerRow* sampler_rows_ = nullptr;
  Table pages_;
  Table window_pages_;
  Convolution convolution_;
};

}  // namespace neurogrid
