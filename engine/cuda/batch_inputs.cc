#include "engine/cuda/batch_inputs.h"

namespace neurogrid {

static_assert(kPageTokens == kernels::kPageTokens);

void BatchInputs::Begin(const Batch& batch, StepInputs& inputs, cudaStream_t stream) {
  batch_ = &batch;
  inputs_ = &inputs;
  stream_ = stream;
  status_ = absl::OkStatus();
  for (const std::unique_ptr<Plan>& plan : plans_) plan->made = false;
  convolution_made_ = false;
  positions_ = Put(batch.positions);
  pages_ = Place(batch.pages);
  window_pages_ = batch.window_pages.empty() ? Table() : Place(batch.window_pages);
}

BatchInputs::Table BatchInputs::Place(const std::vector<int32_t>& pages) {
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
  return {.slots = Put(slot_values_), .pages = Put(pages)};
}

void BatchInputs::Make(Plan& plan, int64_t states_max) {
  kernels::AttentionWork& work = plan.work;
  work.few_tiles.clear();
  work.items.clear();
  work.merges.clear();
  work.more_tiles.clear();
  work.states = 0;
  for (int s = 0; s < batch_->sequences(); ++s) {
    const auto sequence = static_cast<size_t>(s);
    const int first = batch_->sequence_offsets[sequence];
    const int rows = batch_->sequence_offsets[sequence + 1] - first;
    if (rows == 0) continue;
    kernels::AddSequence({first, rows, batch_->positions[static_cast<size_t>(first)],
                          batch_->page_offsets[sequence]},
                         plan.group, plan.window, states_max, work);
  }
  plan.view = {.few_tiles = Put(work.few_tiles),
               .items = Put(work.items),
               .merges = Put(work.merges),
               .more_tiles = Put(work.more_tiles),
               .few_tiles_count = static_cast<int>(work.few_tiles.size()),
               .items_count = static_cast<int>(work.items.size()),
               .merges_count = static_cast<int>(work.merges.size()),
               .more_tiles_count = static_cast<int>(work.more_tiles.size())};
  plan.made = true;
}

const kernels::AttentionWorkView& BatchInputs::Attention(int group, int window,
                                                         int64_t states_max) {
  Plan* found = nullptr;
  for (const std::unique_ptr<Plan>& plan : plans_) {
    if (plan->group == group && plan->window == window) found = plan.get();
  }
  if (found == nullptr) {
    found = plans_.emplace_back(std::make_unique<Plan>()).get();
    found->group = group;
    found->window = window;
  }
  if (!found->made) Make(*found, states_max);
  return found->view;
}

const BatchInputs::Convolution& BatchInputs::ShortConvolution() {
  if (convolution_made_) return convolution_;
  chunks_.clear();
  states_.clear();
  for (int s = 0; s < batch_->sequences(); ++s) {
    const auto sequence = static_cast<size_t>(s);
    const int first = batch_->sequence_offsets[sequence];
    kernels::AddSequence({first, batch_->sequence_offsets[sequence + 1] - first,
                          batch_->state_sources[sequence], batch_->state_slots[sequence]},
                         chunks_, states_);
  }
  convolution_ = {.chunks = Put(chunks_),
                  .chunks_count = static_cast<int>(chunks_.size()),
                  .states = Put(states_),
                  .states_count = static_cast<int>(states_.size())};
  convolution_made_ = true;
  return convolution_;
}

}  // namespace neurogrid
