#include "engine/cuda/sampler_rows.h"

#include <algorithm>

namespace neurogrid {
namespace {

using kernels::LogitEdit;

constexpr float kBan = -100.0f;  // engine/sampler.h: bias <= -100 bans

/// Ascending by id; those of one id in the order of engine/sampler.h.
void AddEdits(const SamplingRow& row, std::vector<LogitEdit>& edits) {
  const auto first = static_cast<std::ptrdiff_t>(edits.size());
  for (const int32_t id : row.banned) edits.push_back({id, LogitEdit::kBan, 0, 0, 0});
  for (const auto& [id, bias] : row.bias) {
    if (bias <= kBan) edits.push_back({id, LogitEdit::kBan, 0, 0, 0});
  }
  for (const SamplingRow::Count& count : row.counts) {
    edits.push_back({count.id, LogitEdit::kCount, count.generated, count.in_window ? 1 : 0, 0});
  }
  for (const auto& [id, bias] : row.bias) {
    if (bias > kBan) edits.push_back({id, LogitEdit::kBias, 0, 0, bias});
  }
  const auto ascends = [](const LogitEdit& a, const LogitEdit& b) { return a.id < b.id; };
  std::stable_sort(edits.begin() + first, edits.end(), ascends);
}

}  // namespace

void FillSamplerRows(absl::Span<const SamplingRow> sampling, int parity, SamplerRows& result) {
  result.rows.clear();
  result.edits.clear();
  result.needs = {};
  for (const SamplingRow& row : sampling) {
    const auto first = static_cast<int32_t>(result.edits.size());
    if (row.target < 0) AddEdits(row, result.edits);
    result.rows.push_back({.seed = row.seed,
                           .position = row.position,
                           .temperature = row.temperature,
                           .top_p = row.top_p,
                           .min_p = row.min_p,
                           .top_k = row.top_k,
                           .repetition_penalty = row.repetition_penalty,
                           .presence_penalty = row.presence_penalty,
                           .frequency_penalty = row.frequency_penalty,
                           .top_logprobs = row.top_logprobs,
                           .target = row.target,
                           .first_edit = first,
                           .edits = static_cast<int32_t>(result.edits.size()) - first,
                           .result = ResultPlace(static_cast<int>(result.rows.size()), parity)});
    result.needs.draws |= result.rows.back().draws();
    result.needs.limited |= result.rows.back().limited();
  }
}

SampledToken TokenOf(const kernels::SamplerResult& result) {
  SampledToken token;
  token.failed = result.failed != 0;
  if (token.failed) return token;
  token.token = result.token;
  token.logprob = result.logprob;
  for (int i = 0; i < result.top_count; ++i) {
    token.top.push_back({result.top_ids[i], result.top_logprobs[i]});
  }
  return token;
}

}  // namespace neurogrid
