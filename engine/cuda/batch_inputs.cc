#include "engine/cuda/batch_inputs.h"

#include <algorithm>
#include <cstring>

#include "kernels/device_limits.h"

namespace neurogrid {

static_assert(kPageTokens == kernels::kPageTokens);

namespace {

/// The next power of two: kernels share work by how much there is, not by the bound.
int RoundedUp(int count) {
  int bound = 1;
  while (bound < count) bound *= 2;
  return bound;
}

template <typename T>
int CountOf(const std::vector<T>& list) {
  return static_cast<int>(list.size());
}

}  // namespace

/// Hands out places in the block; behind its end it only counts.
class BatchInputs::Writer {
 public:
  Writer(uint8_t* host, const uint8_t* device, int64_t room, int64_t& bytes)
      : host_(host), device_(device), room_(room), bytes_(bytes) {
    bytes_ = 0;
  }

  /// `values`, then `filler` up to `count`. Null for nothing.
  template <typename T>
  const T* Put(absl::Span<const T> values, int64_t count, const T& filler) {
    constexpr int64_t kAlignment = 16;
    const int64_t offset = (bytes_ + kAlignment - 1) / kAlignment * kAlignment;
    bytes_ = offset + count * static_cast<int64_t>(sizeof(T));
    if (count == 0) return nullptr;
    if (bytes_ <= room_) {
      T* to = reinterpret_cast<T*>(host_ + offset);
      std::fill(std::copy(values.begin(), values.end(), to), to + count, filler);
    }
    return reinterpret_cast<const T*>(device_ + offset);
  }
  template <typename T>
  const T* Put(const std::vector<T>& values) {
    return Put(absl::MakeConstSpan(values), static_cast<int64_t>(values.size()), T());
  }

 private:
  uint8_t* host_;
  const uint8_t* device_;
  int64_t room_;
  int64_t& bytes_;
};

absl::Status BatchInputs::Reserve(int64_t rows, int64_t pages, int64_t edits) {
  // A row is in some ten lists; a split of 256 tokens is an item in each plan.
  constexpr int64_t kRowBytes = 512;
  constexpr int64_t kPageBytes = 12;
  const int64_t bytes = kRowBytes * rows + kPageBytes * pages;
  NG_RETURN_IF_ERROR(staging_.Reserve(bytes));
  NG_RETURN_IF_ERROR(Grow(block_, bytes));
  const int64_t edit_bytes = edits * static_cast<int64_t>(sizeof(kernels::LogitEdit));
  NG_RETURN_IF_ERROR(edits_staging_.Reserve(edit_bytes));
  return Grow(edits_, edit_bytes);
}

absl::Status BatchInputs::Grow(CudaBuffer& buffer, int64_t bytes) {
  if (buffer.bytes() >= bytes) return absl::OkStatus();
  NG_ASSIGN_OR_RETURN(buffer, CudaBuffer::Allocate(std::max(bytes, 2 * buffer.bytes())));
  ++generation_;
  return absl::OkStatus();
}

void BatchInputs::Begin(const Batch& batch, int64_t states_bytes, int parity) {
  batch_ = &batch;
  states_bytes_ = states_bytes;
  parity_ = parity;
  rows_ = batch.rows();
  samples_ = batch.samples();
  widened_ = false;
  Collect();
}

void BatchInputs::Widen(int rows, int samples) {
  NG_CHECK(repeats() && rows >= rows_ && samples >= samples_);
  NG_CHECK(decodes_ || (rows == rows_ && samples == samples_));
  rows_ = rows;
  samples_ = samples;
  widened_ = true;
  CollectShape();
}

void BatchInputs::Collect() {
  decodes_ = batch_->rows() > 0 && batch_->rows() == batch_->sequences();
  for (int s = 0; decodes_ && s < batch_->sequences(); ++s) {
    decodes_ = batch_->sequence_offsets[static_cast<size_t>(s)] == s;
  }
  for (const std::unique_ptr<Plan>& plan : plans_) {
    CollectAttention(*plan);
    decodes_ = decodes_ && plan->work.more_tiles.empty();
  }
  if (convolves_) CollectConvolution();
  FillSamplerRows(batch_->sampling, parity_, sampler_);
  CollectShape();
}

void BatchInputs::CollectAttention(Plan& plan) {
  kernels::AttentionWork& work = plan.work;
  work.few_tiles.clear();
  work.items.clear();
  work.merges.clear();
  work.more_tiles.clear();
  work.states = 0;
  // The window's table lies behind the other one.
  const auto first_page = plan.window > 0 ? static_cast<int32_t>(batch_->pages.size()) : 0;
  for (int s = 0; s < batch_->sequences(); ++s) {
    const auto sequence = static_cast<size_t>(s);
    const int first = batch_->sequence_offsets[sequence];
    const int rows = batch_->sequence_offsets[sequence + 1] - first;
    if (rows == 0) continue;
    kernels::AddSequence({first, rows, batch_->positions[static_cast<size_t>(first)],
                          first_page + batch_->page_offsets[sequence]},
                         plan.group, plan.window, states_bytes_ / plan.state_bytes, work);
  }
  plan.whole_heads = kernels::WholeHeadsPay(work, plan.kv_heads, kernels::MultiprocessorCount());
}

void BatchInputs::CollectConvolution() {
  chunks_.clear();
  states_.clear();
  for (int s = 0; s < batch_->sequences(); ++s) {
    const auto sequence = static_cast<size_t>(s);
    const int first = batch_->sequence_offsets[sequence];
    kernels::AddSequence({first, batch_->sequence_offsets[sequence + 1] - first,
                          batch_->state_sources[sequence], batch_->state_slots[sequence]},
                         chunks_, states_);
  }
}

void BatchInputs::CollectShape() {
  // All that chooses kernels, grids or places belongs here.
  shape_ = {generation_,
            rows_,
            samples_,
            batch_->window_pages.empty() ? 0 : 1,
            convolves_ ? 1 : 0,
            sampler_.needs.draws ? 1 : 0,
            sampler_.needs.limited ? 1 : 0,
            decodes_ ? 1 : 0,
            copied_bytes_};
  if (convolves_ && !decodes_) {
    shape_.push_back(CountOf(chunks_));
    shape_.push_back(CountOf(states_));
  }
  for (const std::unique_ptr<Plan>& plan : plans_) {
    const int items = CountOf(plan->work.items);
    shape_.push_back(widened_ ? RoundedUp(items) : items);
    shape_.push_back(plan->work.merges.empty() ? 0 : 1);
    shape_.push_back(plan->whole_heads ? 1 : 0);
    if (decodes_) continue;
    shape_.push_back(CountOf(plan->work.few_tiles));
    shape_.push_back(CountOf(plan->work.more_tiles));
  }
}

absl::Status BatchInputs::Send(cudaStream_t stream, bool recorded) {
  NG_ASSIGN_OR_RETURN(uint8_t * host, staging_.Next(block_.bytes()));
  LayOut(Writer(host, block_.as<uint8_t>(), block_.bytes(), bytes_));
  if (bytes_ > block_.bytes()) {
    NG_RETURN_IF_ERROR(Grow(block_, bytes_));
    NG_ASSIGN_OR_RETURN(host, staging_.Next(block_.bytes()));
    LayOut(Writer(host, block_.as<uint8_t>(), block_.bytes(), bytes_));
  }
  const auto edit_bytes = static_cast<int64_t>(sampler_.edits.size() * sizeof(kernels::LogitEdit));
  NG_RETURN_IF_ERROR(Grow(edits_, edit_bytes));
  // A recorded copy is as long for all batches. A longer one takes as long as it gains.
  constexpr int64_t kRecordedBytes = 8192;
  copied_bytes_ =
      recorded && bytes_ <= kRecordedBytes ? std::min(kRecordedBytes, block_.bytes()) : 0;
  CollectShape();
  if (bytes_ > 0 && !copy_left()) {
    NG_RETURN_IF_ERROR(staging_.Send(block_.data(), bytes_, stream));
  }
  if (edit_bytes > 0) {
    NG_ASSIGN_OR_RETURN(uint8_t * edits, edits_staging_.Next(edit_bytes));
    std::memcpy(edits, sampler_.edits.data(), static_cast<size_t>(edit_bytes));
    NG_RETURN_IF_ERROR(edits_staging_.Send(edits_.data(), edit_bytes, stream));
  }
  return absl::OkStatus();
}

absl::Status BatchInputs::Copy(int block, cudaStream_t stream) const {
  return staging_.Copy(block, block_.data(), copied_bytes_, stream);
}

/// What has a length of its own in each batch comes last, so that all else lies where the shape
/// says.
void BatchInputs::LayOut(Writer writer) {
  const Batch& b = *batch_;
  tokens_ = writer.Put(absl::MakeConstSpan(b.tokens), rows_, 0);
  positions_ = writer.Put(absl::MakeConstSpan(b.positions), rows_, 0);
  sampled_rows_ = writer.Put(absl::MakeConstSpan(b.sampled_rows), samples_, 0);
  kernels::SamplerRow nothing_to_draw{};
  nothing_to_draw.top_logprobs = -1;
  nothing_to_draw.target = 0;
  nothing_to_draw.result = -1;
  sampler_rows_ = writer.Put(absl::MakeConstSpan(sampler_.rows), samples_, nothing_to_draw);
  constexpr int64_t kNowhere = -1;
  PlaceRows(b.pages);
  pages_.slots = writer.Put(absl::MakeConstSpan(slot_values_), rows_, kNowhere);
  window_pages_.slots = nullptr;
  if (!b.window_pages.empty()) {
    PlaceRows(b.window_pages);
    window_pages_.slots = writer.Put(absl::MakeConstSpan(slot_values_), rows_, kNowhere);
  }
  for (const std::unique_ptr<Plan>& plan : plans_) LayOutAttention(*plan, writer);
  if (convolves_) {
    const int chunks = widened_ && decodes_ ? rows_ : CountOf(chunks_);
    const kernels::ConvolutionChunk nothing{rows_ - 1, 0, 1, 1, -1, -1};
    convolution_ = {.chunks = writer.Put(absl::MakeConstSpan(chunks_), chunks, nothing),
                    .chunks_count = chunks,
                    .states = writer.Put(states_),
                    .states_count = CountOf(states_)};
  }
  all_pages_.assign(b.pages.begin(), b.pages.end());
  all_pages_.insert(all_pages_.end(), b.window_pages.begin(), b.window_pages.end());
  pages_.pages = window_pages_.pages = writer.Put(all_pages_);
}

void BatchInputs::LayOutAttention(Plan& plan, Writer& writer) const {
  const kernels::AttentionWork& work = plan.work;
  const int few = CountOf(work.few_tiles), items = CountOf(work.items);
  const int merges = CountOf(work.merges), more = CountOf(work.more_tiles);
  const kernels::AttentionCounts live{few, items, merges, more};
  const int few_bound = widened_ && decodes_ ? rows_ : few;
  const int items_bound = widened_ ? RoundedUp(items) : items;
  const int merges_bound = widened_ && merges > 0 ? rows_ : merges;
  plan.view = {.few_tiles = writer.Put(absl::MakeConstSpan(work.few_tiles), few_bound, {}),
               .items = writer.Put(absl::MakeConstSpan(work.items), items_bound, {}),
               .merges = writer.Put(absl::MakeConstSpan(work.merges), merges_bound, {}),
               .more_tiles = writer.Put(work.more_tiles),
               .few_tiles_count = few_bound,
               .items_count = items_bound,
               .merges_count = merges_bound,
               .more_tiles_count = more,
               .live = widened_ ? writer.Put(absl::MakeConstSpan(&live, 1), 1, {}) : nullptr,
               .whole_heads = plan.whole_heads};
}

void BatchInputs::PlaceRows(const std::vector<int32_t>& pages) {
  slot_values_.clear();
  for (int s = 0; s < batch_->sequences(); ++s) {
    const auto sequence = static_cast<size_t>(s);
    for (int row = batch_->sequence_offsets[sequence]; row < batch_->sequence_offsets[sequence + 1];
         ++row) {
      const int position = batch_->positions[static_cast<size_t>(row)];
      const int place = batch_->page_offsets[sequence] + position / kPageTokens;
      slot_values_.push_back(int64_t{pages[static_cast<size_t>(place)]} * kPageTokens +
                             position % kPageTokens);
    }
  }
}

absl::Status BatchInputs::BeginAgain(cudaStream_t stream) {
  Collect();
  return Send(stream);
}

absl::StatusOr<const kernels::AttentionWorkView*> BatchInputs::Attention(int group, int kv_heads,
                                                                         int window,
                                                                         int64_t state_bytes,
                                                                         cudaStream_t stream) {
  for (const std::unique_ptr<Plan>& plan : plans_) {
    if (plan->group == group && plan->kv_heads == kv_heads && plan->window == window &&
        plan->state_bytes == state_bytes) {
      return &plan->view;
    }
  }
  const auto& plan = plans_.emplace_back(std::make_unique<Plan>());
  plan->group = group;
  plan->kv_heads = kv_heads;
  plan->window = window;
  plan->state_bytes = state_bytes;
  NG_RETURN_IF_ERROR(BeginAgain(stream));
  return &plan->view;
}

absl::StatusOr<const BatchInputs::Convolution*> BatchInputs::ShortConvolution(cudaStream_t stream) {
  if (!convolves_) {
    convolves_ = true;
    NG_RETURN_IF_ERROR(BeginAgain(stream));
  }
  return &convolution_;
}

}  // namespace neurogrid
