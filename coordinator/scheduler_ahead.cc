// The step behind the one in flight, sent before that one's tokens are known.
#include <algorithm>
#include <utility>

#include "coordinator/build_batch.h"
#include "coordinator/scheduler.h"
#include "coordinator/sequence_pages.h"

namespace neurogrid {
namespace {

/// What one sequence does in the step.
struct Next {
  Sequence* sequence;
  int sample;  // of the step before: its token
};

/// Whether guesses behind the tokens known so far would pay: then they are worth waiting for the
/// one under way.
bool WouldGuess(const std::vector<Next>& next, const BatchLimits& limits, const RowCosts& costs,
                const GuessAccount& account) {
  std::vector<DraftOffer> offers;
  for (const auto& [sequence, sample] : next) {
    const Draft& draft = sequence->drafter.Next(sequence->ids);
    offers.push_back({static_cast<int>(draft.tokens.size()), draft.chance});
  }
  const auto rows = static_cast<int>(next.size());
  const std::vector<int> given = ShareDrafts(
      offers, rows, rows, std::min(limits.rows_max, limits.samples_max), costs, account);
  return std::any_of(given.begin(), given.end(), [](int tokens) { return tokens > 0; });
}

}  // namespace

/// Whether the part's sequence can have its next row while only its token is unknown. Left out is
/// who will not go on after this token, or not now; what waits for its token holds the step for
/// all: alone in every other one it would be half as fast.
Scheduler::Onward Scheduler::OnwardOf(const Part& part) const {
  const Sequence& sequence = *part.sequence;
  const Request& request = *sequence.request;
  const GenerationRequest& asked = request.asked;
  if (sequence.state == Sequence::State::kEnded || request.paused) return Onward::kLeftOut;
  if (!part.draws || !part.drafts.empty()) return Onward::kWaits;
  if (sequence.generated() + 1 >= asked.tokens_max ||
      sequence.known() + 1 >= context_tokens_max()) {
    return Onward::kLeftOut;
  }
  const bool waits = sequence.in_flight != 1 || sequence.replay != 0 ||
                     sequence.scheduled != sequence.known() || request.followers(sequence) > 0 ||
                     sequence.penalties.on() || !sequence.forced.empty() ||
                     asked.reasoning_budget >= 0;
  return waits ? Onward::kWaits : Onward::kAhead;
}

std::optional<SchedulerStep> Scheduler::StepAhead(SteadyTime now) {
  held_back_ = false;
  if (!options_.ahead || flights_.size() != 1) return std::nullopt;
  std::vector<Next> next;
  Stock needed;
  int samples = 0;
  for (const Part& part : flights_.begin()->second.parts) {
    samples += part.samples;
    const Onward onward = OnwardOf(part);
    if (onward == Onward::kWaits) return std::nullopt;
    if (onward == Onward::kLeftOut) continue;
    Sequence& sequence = *part.sequence;
    next.push_back({&sequence, samples - 1});
    const auto held = static_cast<int64_t>(sequence.pages.size());
    const int64_t pages = std::max<int64_t>(0, PagesOf(sequence.known() + 1) - held);
    needed += {options_.limits.pages > 0 ? pages : 0, options_.limits.window_pages > 0 ? pages : 0,
               NeedsSlot(pools_, sequence) ? 1 : 0};
  }
  if (next.empty() || OthersHaveATurn()) return std::nullopt;
  const Stock left = pools_.available();
  if (needed.pages > left.pages || needed.window_pages > left.window_pages ||
      needed.slots > left.slots) {
    return std::nullopt;
  }
  held_back_ = options_.speculates && WouldGuess(next, options_.limits, row_costs_, guess_account_);
  if (held_back_) return std::nullopt;
  SchedulerStep step;
  step.id = ++last_step_;
  Flight& flight = flights_[step.id];
  flight.sent = now;
  flight.ahead = true;
  SlotReserve slots{.needed = needed.slots};
  for (const auto& [sequence, sample] : next) {
    const int64_t first = sequence->known();
    GrowPages(pools_, *sequence, first + 1);
    if (NeedsSlot(pools_, *sequence)) --slots.needed;
    slots.reserved = std::max(slots.needed, static_cast<int64_t>(running_.size()));
    const StateUse state = AdvanceState(pools_, *sequence, first, 1, slots);
    AppendAhead(*sequence, sample, state, step.batch);
    flight.parts.push_back({.sequence = sequence,
                            .first = first,
                            .rows = 1,
                            .samples = 1,
                            .draws = true,
                            .slot_left = state.left});
    ++sequence->scheduled;
    ++sequence->in_flight;
    ++sequence->request->in_flight;
  }
  return step;
}

}  // namespace neurogrid
