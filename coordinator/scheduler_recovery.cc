// What a scheduler does when its chain is lost, and when the next one is there.
#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/scheduler.h"

namespace neurogrid {

/// A sequence that runs becomes one that is first to run again, from its tokens.
void Scheduler::LosePages(Sequence& sequence) {
  LeaveRunning(sequence);
  sequence.state = Sequence::State::kPreempted;
  sequence.scheduled = sequence.computed = sequence.published = 0;
  sequence.replay = 0;
  InsertByArrival(preempted_, sequence);
}

std::vector<SchedulerEvent> Scheduler::Park(SteadyTime now) {
  for (Sequence* const sequence : running_) {
    if (sequence->in_flight > 0) ++sequence->losses;
    sequence->lost_tokens = std::max(sequence->lost_tokens, sequence->computed);
    sequence->proven.clear();  // drawn again, equal
  }
  for (const auto& [id, flight] : flights_) {
    for (const Part& part : flight.parts) Land(part);
  }
  flights_.clear();
  held_back_ = false;
  while (!running_.empty()) LosePages(*running_.back());
  NG_CHECK(pools_.held() == 0);
  pools_ = Pools(options_.limits);
  if (!parked_since_.has_value()) parked_since_ = now;

  std::vector<SchedulerEvent> events;
  for (const auto& [id, request] : requests_) {
    if (request->ended || !request->begun) continue;
    ++request->usage.recoveries;
    for (const auto& choice : request->choices) {
      if (choice->state == Sequence::State::kPreempted) choice->recovering = true;
    }
    const auto broke_all = [](const auto& choice) {
      return choice->state != Sequence::State::kEnded && choice->losses >= kLossesMax;
    };
    const auto& choices = request->choices;
    if (const auto found = std::find_if(choices.begin(), choices.end(), broke_all);
        found != choices.end()) {
      FailRequest(*request, (*found)->choice,
                  absl::AbortedError(absl::StrCat("This request was under way when ", kLossesMax,
                                                  " workers were lost, one after the other.")),
                  now, events);
      continue;
    }
    const SteadyTime expiry = *ExpiryOf(*request);
    next_expiry_ = next_expiry_.has_value() ? std::min(*next_expiry_, expiry) : expiry;
  }
  std::erase_if(requests_, [](const auto& entry) { return entry.second->ended; });
  return events;
}

/// Of a request that began: whether each choice can have its next token.
absl::Status Scheduler::CheckGoesOn(const Request& request) const {
  const int64_t context = context_tokens_max();
  const int64_t next = request.asked.tokens_max > 0 ? 1 : 0;
  for (const auto& choice : request.choices) {
    if (choice->state == Sequence::State::kEnded || choice->known() + next <= context) continue;
    return absl::UnavailableError(
        absl::StrCat("worker_lost: A worker was lost while it answered; the rest holds ", context,
                     " tokens, and the text has ", choice->known(), "."));
  }
  return absl::OkStatus();
}

std::vector<SchedulerEvent> Scheduler::Reset(SchedulerOptions options, SteadyTime now) {
  std::vector<SchedulerEvent> events;
  if (!parked_since_.has_value()) events = Park(now);
  parked_since_.reset();
  options_ = Completed(std::move(options));
  pools_ = Pools(options_.limits);
  budget_ = StepBudget(options_.itl_target_ms, options_.limits.rows_max);
  row_costs_ = RowCosts(options_.first_slow);
  guess_account_ = GuessAccount(options_.first_slow);
  for (const auto& [id, request] : requests_) {
    const absl::Status fits = request->begun ? CheckGoesOn(*request) : CheckLength(request->asked);
    if (!fits.ok()) FailRequest(*request, 0, fits, now, events);
  }
  std::erase_if(requests_, [](const auto& entry) { return entry.second->ended; });
  return events;
}

}  // namespace neurogrid
