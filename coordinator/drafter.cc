#include "coordinator/drafter.h"

#include <algorithm>
#include <bit>

#include "common/rng.h"

namespace neurogrid {
namespace {

constexpr int64_t kPlacesMin = 256;
constexpr int64_t kLatestMax = 1 << 15;
constexpr int64_t kBeforeMax = 1 << 16;
constexpr int kLooksMax = 16;        // occurrences of the last pair that are compared
constexpr double kKept = 0.9;        // of what was learnt before, with each token
constexpr double kPriorWeight = 1;   // tokens
constexpr int kSilentDoublings = 7;  // at most 128 matches
/// Before anything was seen, by kind.
constexpr double kPriors[] = {0.2, 0.4, 0.6, 0.8};

}  // namespace

int Drafter::KindOf(int match_tokens) {
  if (match_tokens < 4) return match_tokens - kMatchMin;
  return match_tokens < 8 ? 2 : 3;
}

size_t Drafter::Place(int32_t first, int32_t second) const {
  const uint64_t pair =
      static_cast<uint64_t>(static_cast<uint32_t>(first)) << 32 | static_cast<uint32_t>(second);
  return static_cast<size_t>(SplitMix64(pair)) & (latest_.size() - 1);
}

/// The pair before ids[end], which is what followed it.
void Drafter::Enter(absl::Span<const int32_t> ids, int64_t end) {
  if (end < 2) return;
  const auto at = static_cast<size_t>(end);
  int32_t& latest = latest_[Place(ids[at - 2], ids[at - 1])];
  before_[at & (before_.size() - 1)] = latest;
  latest = static_cast<int32_t>(end);
}

/// Both tables follow the number of tokens, up to their bounds. Doubling enters everything anew,
/// which costs a constant time a token over all doublings.
void Drafter::Grow(absl::Span<const int32_t> ids) {
  const auto wanted = static_cast<int64_t>(std::bit_ceil(ids.size()));
  const auto latest = static_cast<size_t>(std::clamp(wanted, kPlacesMin, kLatestMax));
  const auto before = static_cast<size_t>(std::clamp(wanted, kPlacesMin, kBeforeMax));
  if (latest <= latest_.size() && before <= before_.size()) return;
  latest_.assign(latest, -1);
  before_.assign(before, -1);
  entered_ = std::max<int64_t>(0, static_cast<int64_t>(ids.size()) - kBeforeMax);
}

Drafter::Match Drafter::Longest(absl::Span<const int32_t> ids) const {
  Match best;
  const auto known = static_cast<int64_t>(ids.size());
  if (known < kMatchMin + 1) return best;
  int64_t next = latest_[Place(ids[ids.size() - 2], ids[ids.size() - 1])];
  const auto places = static_cast<int64_t>(before_.size());
  for (int looks = 0; looks < kLooksMax && next >= 0 && known - next < places; ++looks) {
    const int64_t most = std::min<int64_t>(kMatchMax, next);
    int tokens = 0;
    while (tokens < most && ids[next - 1 - tokens] == ids[known - 1 - tokens]) ++tokens;
    if (tokens > best.tokens) best = {next, tokens};
    if (best.tokens == kMatchMax) break;
    const int64_t earlier = before_[static_cast<size_t>(next & (places - 1))];
    if (earlier >= next) break;
    next = earlier;
  }
  return best.tokens >= kMatchMin ? best : Match();
}

const Draft& Drafter::Next(absl::Span<const int32_t> ids) {
  const auto known = static_cast<int64_t>(ids.size());
  if (drafted_for_ == known) return draft_;
  drafted_for_ = known;
  draft_.tokens.clear();
  Grow(ids);
  for (; entered_ < known; ++entered_) Enter(ids, entered_);
  const Match match = Longest(ids);
  if (match.tokens == 0) return draft_;
  kind_ = KindOf(match.tokens);
  Experience& seen = experience_[static_cast<size_t>(kind_)];
  if (seen.silent > 0) {
    --seen.silent;
    return draft_;
  }
  draft_.chance = (seen.right + kPriorWeight * kPriors[kind_]) / (seen.tried + kPriorWeight);
  for (int64_t i = 0; i < kDraftTokensMax; ++i) {
    const int64_t from = match.next + i;
    draft_.tokens.push_back(from < known ? ids[from] : draft_.tokens[from - known]);
  }
  return draft_;
}

void Drafter::Learn(int tried, int right) {
  if (tried == 0) return;
  Experience& seen = experience_[static_cast<size_t>(kind_)];
  const auto take = [&](double is_right) {
    seen.tried = kKept * seen.tried + 1;
    seen.right = kKept * seen.right + is_right;
  };
  for (int i = 0; i < right; ++i) take(1);
  if (right < tried) take(0);
  seen.wrong = right > 0 ? 0 : std::min(seen.wrong + 1, kSilentDoublings + 1);
  seen.silent = seen.wrong > 1 ? 1 << (seen.wrong - 1) : 0;
}

}  // namespace neurogrid
