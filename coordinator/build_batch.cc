// Tokens, positions, pages and samplings of a slice, in the order of engine/batch.h.
#include "coordinator/build_batch.h"

#include <algorithm>

#include "common/check.h"
#include "common/rng.h"
#include "coordinator/window_pages.h"

namespace neurogrid {
namespace {

/// What each guessed token draws, on rows from `row` on.
void AppendDraws(const Sequence& sequence, absl::Span<const int32_t> drafts, int32_t row,
                 Batch& batch) {
  if (drafts.empty()) return;
  PenaltyCounts penalties = sequence.penalties;
  std::vector<int32_t> ids;
  if (penalties.on()) ids = sequence.ids;
  int64_t known = sequence.known();
  for (const int32_t draft : drafts) {
    ids.push_back(draft);
    penalties.Append(ids);
    batch.sampled_rows.push_back(row++);
    batch.sampling.push_back(SamplingOf(sequence, ++known, penalties));
  }
}

/// Where the rows appended last stand and what they read and write.
void AppendPlaces(const Sequence& sequence, int64_t first, int rows, const StateUse& state,
                  Batch& batch) {
  if (batch.sequence_offsets.empty()) {
    batch.sequence_offsets.push_back(0);
    batch.page_offsets.push_back(0);
  }
  for (int i = 0; i < rows; ++i) batch.positions.push_back(static_cast<int32_t>(first + i));
  batch.sequence_offsets.push_back(batch.rows());
  const int64_t pages = PagesOf(first + rows);
  NG_CHECK(pages <= static_cast<int64_t>(sequence.pages.size()));
  batch.pages.insert(batch.pages.end(), sequence.pages.begin(), sequence.pages.begin() + pages);
  batch.page_offsets.push_back(static_cast<int32_t>(batch.pages.size()));
  if (!sequence.window_pages.empty()) {
    batch.window_pages.insert(batch.window_pages.end(), sequence.window_pages.begin(),
                              sequence.window_pages.begin() + pages);
  }
  batch.state_slots.push_back(state.slot);
  batch.state_sources.push_back(state.source);
}

}  // namespace

int64_t ScoredRows(const Sequence& sequence, int64_t first, int rows) {
  const int64_t begin = std::max(first, sequence.scored_rows);
  const int64_t end = std::min(first + rows, sequence.request->scored_rows_end(sequence));
  return std::max<int64_t>(end - begin, 0);
}

bool DrawsToken(const Sequence& sequence, int64_t first, int rows) {
  return first + rows == sequence.known() && sequence.request->asked.tokens_max > 0;
}

void AppendSlice(const Sequence& sequence, int64_t first, int rows,
                 absl::Span<const int32_t> drafts, const StateUse& state, Batch& batch) {
  const int32_t row = batch.rows();
  const int sure = rows - static_cast<int>(drafts.size());
  batch.tokens.insert(batch.tokens.end(), sequence.ids.begin() + first,
                      sequence.ids.begin() + first + sure);
  batch.tokens.insert(batch.tokens.end(), drafts.begin(), drafts.end());
  AppendPlaces(sequence, first, rows, state, batch);

  const int64_t scored = ScoredRows(sequence, first, sure);
  const int64_t scored_first = std::max(first, sequence.scored_rows);
  for (int64_t i = scored_first; i < scored_first + scored; ++i) {
    SamplingRow sampling;
    sampling.position = static_cast<int32_t>(i + 1);
    sampling.top_logprobs = std::max(0, sequence.request->asked.sampling.top_logprobs);
    sampling.target = sequence.ids[i + 1];
    batch.sampled_rows.push_back(static_cast<int32_t>(row + i - first));
    batch.sampling.push_back(std::move(sampling));
  }
  if (DrawsToken(sequence, first, sure)) {
    batch.sampled_rows.push_back(row + sure - 1);
    batch.sampling.push_back(SamplingOf(sequence, sequence.known(), sequence.penalties));
    AppendDraws(sequence, drafts, row + sure, batch);
  }
}

void AppendAhead(const Sequence& sequence, int sample, const StateUse& state, Batch& batch) {
  batch.sampled_rows.push_back(batch.rows());
  batch.tokens.push_back(DrawnBefore(sample));
  AppendPlaces(sequence, sequence.known(), 1, state, batch);
  batch.sampling.push_back(SamplingOf(sequence, sequence.known() + 1, sequence.penalties));
}

SamplingRow SamplingOf(const Sequence& sequence, int64_t known, const PenaltyCounts& penalties) {
  const GenerationRequest& asked = sequence.request->asked;
  const SamplingOptions& options = asked.sampling;
  SamplingRow row;
  row.seed = SplitMix64(options.seed + static_cast<uint64_t>(sequence.choice));
  row.position = static_cast<int32_t>(known);
  row.temperature = options.temperature;
  row.top_p = options.top_p;
  row.min_p = options.min_p;
  row.top_k = options.top_k;
  row.repetition_penalty = options.repetition_penalty;
  row.presence_penalty = options.presence_penalty;
  row.frequency_penalty = options.frequency_penalty;
  row.top_logprobs = options.top_logprobs;
  row.counts = penalties.counts();
  row.bias = options.bias;
  if (!sequence.forced.empty()) row.target = sequence.forced.back();
  const bool below_min = known - sequence.prompt_tokens < asked.tokens_min;
  if (below_min || asked.ignore_eos) row.banned = asked.end_ids;
  if (below_min) {
    row.banned.insert(row.banned.end(), asked.stop_ids.begin(), asked.stop_ids.end());
  }
  return row;
}

}  // namespace neurogrid
