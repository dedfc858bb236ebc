// The counts behind the penalties, and lists of sequences.
#include "coordinator/sequence.h"

#include <algorithm>
#include <utility>

#include "common/check.h"

namespace neurogrid {

PenaltyCounts::PenaltyCounts(const SamplingOptions& options, const std::vector<int32_t>& prompt) {
  const bool repetition = options.repetition_penalty != 1 && options.repeat_last_n != 0;
  on_ = repetition || options.presence_penalty != 0 || options.frequency_penalty != 0;
  window_ = repetition ? options.repeat_last_n : 0;
  if (window_ == 0) return;
  const size_t first = window_ < 0 || static_cast<size_t>(window_) >= prompt.size()
                           ? 0
                           : prompt.size() - static_cast<size_t>(window_);
  for (size_t i = first; i < prompt.size(); ++i) Enter(prompt[i]);
}

void PenaltyCounts::Append(absl::Span<const int32_t> ids) {
  if (!on_) return;
  ++counts_[Slot(ids.back())].generated;
  if (window_ == 0) return;
  Enter(ids.back());
  const auto known = static_cast<int64_t>(ids.size());
  if (window_ > 0 && known > window_) Leave(ids[known - 1 - window_]);
}

int32_t PenaltyCounts::Slot(int32_t id) {
  const auto [slot, added] = slots_.try_emplace(id, static_cast<int32_t>(counts_.size()));
  if (added) {
    counts_.push_back({id, 0, false});
    window_counts_.push_back(0);
  }
  return slot->second;
}

void PenaltyCounts::Enter(int32_t id) {
  const int32_t slot = Slot(id);
  ++window_counts_[slot];
  counts_[slot].in_window = true;
}

void PenaltyCounts::Leave(int32_t id) {
  const int32_t slot = Slot(id);
  counts_[slot].in_window = --window_counts_[slot] > 0;
  if (counts_[slot].in_window || counts_[slot].generated > 0) return;
  // Of no effect any more: the last one takes its place.
  slots_[counts_.back().id] = slot;
  slots_.erase(id);
  counts_[slot] = counts_.back();
  window_counts_[slot] = window_counts_.back();
  counts_.pop_back();
  window_counts_.pop_back();
}

int Request::followers(const Sequence& leader) const {
  const int prompt = leader.choice / asked.n;
  if (prompts[prompt].computed) return 0;
  return static_cast<int>(std::count_if(
      choices.begin() + prompt * asked.n, choices.begin() + (prompt + 1) * asked.n,
      [](const auto& choice) { return choice->state == Sequence::State::kFollowing; }));
}

void EraseFrom(std::vector<Sequence*>& sequences, const Sequence& sequence) {
  const auto at = std::find(sequences.begin(), sequences.end(), &sequence);
  NG_CHECK(at != sequences.end());
  sequences.erase(at);
}

void InsertByArrival(std::vector<Sequence*>& sequences, Sequence& sequence) {
  const auto before = [](const Sequence* a, const Sequence* b) {
    return std::pair(a->request->id, a->choice) < std::pair(b->request->id, b->choice);
  };
  sequences.insert(std::upper_bound(sequences.begin(), sequences.end(), &sequence, before),
                   &sequence);
}

}  // namespace neurogrid
