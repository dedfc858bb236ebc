// What the kernels need to know of a batch, on the device: each array is made and copied when the
// first op of a step asks for it, and serves all layers.
#pragma once

#include <memory>
#include <vector>

#include "engine/batch.h"
#include "engine/cuda/cuda_memory.h"
#include "kernels/attention.h"
#include "kernels/short_convolution.h"

namespace neurogrid {

class BatchInputs {
 public:
  /// `batch` lives until the next call. Everything that was asked of the last one has been read.
  void Begin(const Batch& batch, StepInputs& inputs, cudaStream_t stream);

  const int32_t* positions() const { return positions_; }
  /// Where the rows and the sequences of a batch are, in layers of one kind.
  struct Table {
    const int64_t* slots = nullptr;  // page * 16 + position % 16, for each row
    const int32_t* pages = nullptr;
  };
  const Table& table(bool windowed) const { return windowed ? window_pages_ : pages_; }

  /// The tiles of layers of this kind.
  const kernels::AttentionWorkView& Attention(int group, int window, int64_t states_max);

  struct Convolution {
    const kernels::ConvolutionChunk* chunks = nullptr;
    int chunks_count = 0;
    const kernels::ConvolutionChunk* states = nullptr;
    int states_count = 0;
  };
  const Convolution& ShortConvolution();

  const absl::Status& status() const { return status_; }

 private:
  struct Plan {
    int group = 0;
    int window = 0;
    bool made = false;  // for this batch
    kernels::AttentionWork work;
    kernels::AttentionWorkView view;
  };
  void Make(Plan& plan, int64_t states_max);
  Table Place(const std::vector<int32_t>& pages);
  template <typename T>
  const T* Put(const std::vector<T>& values) {
    return inputs_->Put(values, stream_, status_);
  }

  const Batch* batch_ = nullptr;
  StepInputs* inputs_ = nullptr;
  cudaStream_t stream_ = nullptr;
  absl::Status status_;
  const int32_t* positions_ = nullptr;
  Table pages_;
  Table window_pages_;
  std::vector<int64_t> slot_values_;
  std::vector<std::unique_ptr<Plan>> plans_;  // one for each kind of layer seen
  std::vector<kernels::ConvolutionChunk> chunks_, states_;
  Convolution convolution_;
  bool convolution_made_ = false;
};

}  // namespace neurogrid
