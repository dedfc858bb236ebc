// Guessed tokens in the scheduler's steps: what a sequence offers, what came true, what it cost.
#include <algorithm>
#include <utility>

#include "coordinator/scheduler.h"
#include "coordinator/sequence_pages.h"
#include "coordinator/state_slots.h"

namespace neurogrid {

/// Where the state cannot be cut back to fewer tokens, a chunk that guesses ends with its page.
DraftOffer Scheduler::OfferOf(Sequence& sequence) const {
  const bool decodes = sequence.generated() > 0 && sequence.in_flight == 0 &&
                       sequence.known() - sequence.scheduled == 1 + sequence.replay;
  if (!options_.speculates || !decodes || !sequence.forced.empty()) return {};
  const Draft& draft = sequence.drafter.Next(sequence.ids);
  int64_t room = KnownMax(sequence) - sequence.known() - 1;
  if (pools_.recurrent()) {
    const int64_t page_end = (sequence.scheduled / kPageTokens + 1) * kPageTokens;
    room = std::min(room, page_end - sequence.known());
  }
  const auto tokens = static_cast<int64_t>(draft.tokens.size());
  return {static_cast<int>(std::clamp<int64_t>(room, 0, tokens)), draft.chance};
}

/// The share by which guesses, or waiting to make some, lengthened a step: by price, or where first
/// steps are slow, and others may have gone ahead, by the clock.
double Scheduler::GuessWait(const Flight& flight, int rows, double ms) const {
  const auto plain = static_cast<int>(flight.parts.size());
  if (!row_costs_.knows(plain)) return 0;
  if (options_.first_slow == 0) return row_costs_.wait(rows, plain);
  if (rows <= plain && !flight.held) return 0;
  const double wait = row_costs_.wait_of(ms, plain);
  if (rows > plain && row_costs_.begins(rows)) return wait;
  // Of a later step, what exceeds its price and a whole step was not its guesses' doing.
  return std::min(wait, std::max(1.0, row_costs_.wait(rows, plain)));
}

/// A guess was right when the row before it drew it; then what it drew itself is the next token.
void Scheduler::KeepProven(const Part& part, absl::Span<const SampledToken> drawn) {
  Sequence& sequence = *part.sequence;
  size_t right = 0;
  while (right < part.drafts.size() && !drawn[right].failed &&
         drawn[right].token == part.drafts[right]) {
    ++right;
  }
  sequence.proven.assign(drawn.begin() + 1, drawn.begin() + 1 + right);
  std::reverse(sequence.proven.begin(), sequence.proven.end());
  sequence.drafter.Learn(static_cast<int>(part.drafts.size()), static_cast<int>(right));
  drafted_tokens_ += static_cast<int64_t>(part.drafts.size());
  accepted_tokens_ += static_cast<int64_t>(right);
}

std::vector<SchedulerEvent> Scheduler::More(SteadyTime now) {
  std::vector<std::pair<RequestId, int>> choices;  // an end may take others with it
  for (const Sequence* const sequence : running_) {
    if (!sequence->proven.empty()) choices.emplace_back(sequence->request->id, sequence->choice);
  }
  std::vector<SchedulerEvent> events;
  for (const auto& [id, choice] : choices) {
    Request* const request = Find(id);
    if (request == nullptr || request->choices[choice]->proven.empty()) continue;
    Sequence& sequence = *request->choices[choice];
    const SampledToken token = std::move(sequence.proven.back());
    sequence.proven.pop_back();
    if (token.failed) {
      FailRequest(*request, choice, NothingToDraw(), now, events);
    } else {
      ++sequence.computed;
      sequence.ready = ++last_ready_;
      PublishPages(pools_, sequence);
      Append(sequence, token, now, events);
      Settle(sequence);
    }
    EraseIfDone(id);
  }
  return events;
}

/// After the last proven token: rows of guesses that were wrong were never there. Their numbers in
/// the pages are written again before anything reads them.
void Scheduler::Settle(Sequence& sequence) {
  if (sequence.state != Sequence::State::kRunning || !sequence.proven.empty()) return;
  const bool all_right = sequence.computed == sequence.scheduled;
  const int64_t kept = SettleState(pools_, sequence, all_right);
  sequence.replay = static_cast<int>(sequence.computed - kept);
  sequence.scheduled = sequence.computed = kept;
  FreePastWindow(pools_, sequence, kept);
}

}  // namespace neurogrid
