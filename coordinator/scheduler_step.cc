// The scheduler's steps: what PlanStep sees, the batch made of its answer, and what a result means.
#include <algorithm>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "coordinator/build_batch.h"
#include "coordinator/scheduler.h"
#include "coordinator/sequence_pages.h"
#include "coordinator/window_pages.h"

namespace neurogrid {
namespace {

constexpr double kReserveMin = 0.1;
constexpr double kReserveMax = 1;
constexpr double kReserveGrowth = 1.5;  // on a preemption
constexpr double kReserveDecay = 0.99;  // a step
constexpr int kStartsMax = 16;          // sequences that one step starts
constexpr double kNewInterval = 0.2;    // weight of a new measurement

bool Contains(const std::vector<int32_t>& ids, int32_t id) {
  return std::find(ids.begin(), ids.end(), id) != ids.end();
}

}  // namespace

struct Scheduler::World {
  StepView view;
  std::vector<RunningView> running;
  std::vector<WaitingView> waiting;
  std::vector<Sequence*> running_sequences;
  std::vector<Sequence*> waiting_sequences;  // preempted ones first
  size_t preempted = 0;                      // of those
  int64_t places = 0;                        // of those that run, followers counted

  StepView Seen() const {
    StepView seen = view;
    seen.running = running;
    seen.waiting = waiting;
    return seen;
  }
};

std::optional<SchedulerStep> Scheduler::NextStep(SteadyTime now) {
  if (static_cast<int>(flights_.size()) >= options_.steps_in_flight) return StepAhead(now);
  while (!running_.empty() || !preempted_.empty() || queue_.size() > 0) {
    const World world = Look();
    const StepPlan plan = PlanStep(world.Seen());
    for (const int i : plan.preempted) Preempt(*world.running_sequences[i]);
    if (!plan.slices.empty()) return Issue(plan, world, now);
    if (plan.preempted.empty()) break;
  }
  return std::nullopt;
}

/// Whether somebody who is in no step has a turn in the next one: then it waits for the one in
/// flight and takes all. Of those that hold no pages only who would get some counts.
bool Scheduler::OthersHaveATurn() const {
  const auto idles = [](const Sequence* sequence) {
    return sequence->in_flight == 0 && !sequence->request->paused;
  };
  if (std::any_of(running_.begin(), running_.end(), idles)) return true;
  if (preempted_.empty() && queue_.size() == 0) return false;
  const World world = Look();
  const StepPlan plan = PlanStep(world.Seen());
  return !plan.slices.empty() || !plan.preempted.empty();
}

PrefixMatch Scheduler::MatchOf(const Sequence& sequence) const {
  // The last token is always computed, and so is every row whose logprob is still to come.
  int64_t tokens = sequence.known() - 1;
  if (sequence.scored_rows < sequence.request->scored_rows_end(sequence)) {
    tokens = sequence.scored_rows;
  }
  const auto pages = std::min(sequence.hashes.size(), static_cast<size_t>(tokens / kPageTokens));
  return FindPrefix(pools_, absl::MakeConstSpan(sequence.hashes).first(pages));
}

int64_t Scheduler::KnownMax(const Sequence& sequence) const {
  return std::min(context_tokens_max(),
                  sequence.prompt_tokens + sequence.request->asked.tokens_max);
}

/// A recurrent state is of use to others only where a chunk ends with a page.
bool Scheduler::CutsPrefill(const Sequence& sequence) const {
  const Request& request = *sequence.request;
  return pools_.recurrent() && (request.asked.use_cache || request.followers(sequence) > 0);
}

RunningView Scheduler::ViewOf(Sequence& sequence, bool tight) const {
  NG_CHECK(sequence.proven.empty());  // More is called until it has nothing
  RunningView view;
  view.known = sequence.known();
  view.scheduled = sequence.scheduled;
  view.known_max = KnownMax(sequence);
  view.pages = static_cast<int>(sequence.pages.size());
  view.window_first = static_cast<int>(sequence.window_first);
  if (tight) view.comes_back = PrivatePages(pools_, sequence);
  view.comes_back.slots = PrivateSlots(pools_, sequence);
  view.needs_slot = NeedsSlot(pools_, sequence);
  view.in_flight = sequence.in_flight;
  view.followers = sequence.request->followers(sequence);
  view.paused = sequence.request->paused;
  view.scored_rows_end = sequence.request->scored_rows_end(sequence);
  view.cuts = CutsPrefill(sequence);
  view.ready = sequence.ready;
  view.replay = sequence.replay;
  view.replays = sequence.recovering;
  view.draft = OfferOf(sequence);
  return view;
}

WaitingView Scheduler::ViewOf(const Sequence& sequence, const PrefixMatch& match) const {
  WaitingView view;
  view.known = sequence.known();
  view.known_max = KnownMax(sequence);
  view.pages_found = match.pages;
  view.cached = match.cached;
  view.followers = sequence.request->followers(sequence);
  const int64_t scored_rows_end = sequence.request->scored_rows_end(sequence);
  view.scored_rows_end = sequence.scored_rows < scored_rows_end ? scored_rows_end : 0;
  view.cuts = CutsPrefill(sequence);
  view.replays = sequence.recovering;
  return view;
}

Scheduler::World Scheduler::Look() const {
  World world;
  // Only a shortage asks whose pages would come back.
  const int64_t enough = PagesOf(options_.limits.rows_max) + static_cast<int64_t>(running_.size());
  const Stock available = pools_.available();
  const bool tight = (options_.limits.pages > 0 && available.pages < enough) ||
                     (options_.limits.window_pages > 0 && available.window_pages < enough) ||
                     (pools_.recurrent() && available.slots < enough);
  bool decoding = false;
  bool suspected = false;  // one that may have broken two chains runs
  for (Sequence* const sequence : running_) {
    decoding = decoding || sequence->generated() > 0;
    suspected = suspected || sequence->losses >= kLossesSuspect;
    world.running.push_back(ViewOf(*sequence, tight));
    world.running_sequences.push_back(sequence);
    world.places += 1 + world.running.back().followers;
  }
  world.view.limits = options_.limits;
  world.view.available = available;
  world.view.running_max = options_.running_max;
  world.view.decode_groups = options_.decode_groups;
  world.view.prefill_depth = options_.prefill_depth;
  world.view.tokens_max = budget_.tokens(decoding);
  world.view.reserve = reserve_;
  if (options_.speculates) world.view.row_costs = &row_costs_;
  world.view.guess_account = guess_account_;
  if (world.places >= options_.running_max && !running_.empty()) return world;
  if (available == Stock()) return world;

  absl::flat_hash_map<const Sequence*, PrefixMatch> found;
  const auto hits = [&](const Sequence& sequence) -> int64_t {
    const auto [at, added] = found.try_emplace(&sequence);
    if (added) at->second = MatchOf(sequence);
    return int64_t{at->second.pages} * kPageTokens;
  };
  for (Sequence* const sequence : preempted_) {
    if (sequence->request->paused) continue;
    // One at a time: then the next loss tells which of them it was.
    if (sequence->losses >= kLossesSuspect && std::exchange(suspected, true)) continue;
    world.waiting_sequences.push_back(sequence);
  }
  world.preempted = world.waiting_sequences.size();
  // The shortest replay first: each goes on as soon as its own is over.
  const auto replay_of = [](const Sequence* sequence) {
    return sequence->recovering ? sequence->known() : 0;
  };
  std::stable_sort(world.waiting_sequences.begin(), world.waiting_sequences.end(),
                   [&](const auto* a, const auto* b) { return replay_of(a) < replay_of(b); });
  const std::vector<Sequence*> queued = queue_.Order(kStartsMax, world.view.tokens_max, hits);
  world.waiting_sequences.insert(world.waiting_sequences.end(), queued.begin(), queued.end());
  for (const Sequence* const sequence : world.waiting_sequences) {
    hits(*sequence);
    world.waiting.push_back(ViewOf(*sequence, found[sequence]));
  }
  return world;
}

void Scheduler::Preempt(Sequence& sequence) {
  NG_CHECK(sequence.in_flight == 0);
  LosePages(sequence);
  ++sequence.request->usage.preemptions;
  ++preemptions_;
  reserve_ = std::min(reserve_ * kReserveGrowth, kReserveMax);
}

void Scheduler::Start(Sequence& sequence, SteadyTime now) {
  Request& request = *sequence.request;
  const PrefixMatch match = MatchOf(sequence);
  TakePrefix(pools_, sequence, match.pages);
  sequence.scheduled = sequence.computed = int64_t{match.pages} * kPageTokens;
  sequence.published = match.pages;
  const bool again = sequence.state == Sequence::State::kPreempted;
  const int64_t lost = std::exchange(sequence.lost_tokens, 0);
  replayed_tokens_ += std::max<int64_t>(lost - sequence.computed, 0);
  EnterRunning(sequence);
  if (again) {
    EraseFrom(preempted_, sequence);
    queue_.AddRunning(request.asked.tenant, 1);
    return;
  }
  queued_tokens_ -= sequence.prompt_tokens;
  request.usage.cached_tokens += sequence.computed;
  prompt_tokens_ += sequence.prompt_tokens;
  if (request.asked.use_cache && !request.asked.echo_logprobs) {
    prefix_queries_ += sequence.prompt_tokens;
    prefix_hits_ += sequence.computed;
  }
  if (request.begun) return;
  request.begun = true;
  request.begun_at = now;
  --queued_requests_;
  if (last_start_.has_value()) {
    const double interval = std::chrono::duration<double>(now - *last_start_).count();
    start_interval_s_ += kNewInterval * (interval - start_interval_s_);
  }
  last_start_ = now;
}

SchedulerStep Scheduler::Issue(const StepPlan& plan, const World& world, SteadyTime now) {
  // As Order found them, before anything changes what it looked at.
  const auto hits = [&](const Sequence& waiting) {
    return int64_t{MatchOf(waiting).pages} * kPageTokens;
  };
  for (const Slice& slice : plan.slices) {
    if (!slice.starts || static_cast<size_t>(slice.index) < world.preempted) continue;
    NG_CHECK(queue_.Take(hits) == world.waiting_sequences[slice.index]);
  }
  // The newcomers' pages first: none that was found may be given away for another slice.
  for (const Slice& slice : plan.slices) {
    if (slice.starts) Start(*world.waiting_sequences[slice.index], now);
  }
  std::vector<Sequence*> sequences;
  SlotReserve slots;
  for (const Slice& slice : plan.slices) {
    sequences.push_back(slice.starts ? world.waiting_sequences[slice.index]
                                     : world.running_sequences[slice.index]);
    slots.needed += NeedsSlot(pools_, *sequences.back()) ? 1 : 0;
  }
  SchedulerStep step;
  step.id = ++last_step_;
  Flight& flight = flights_[step.id];
  flight.sent = now;
  flight.held = std::exchange(held_back_, false);
  for (size_t i = 0; i < sequences.size(); ++i) {
    Sequence& sequence = *sequences[i];
    const int rows = plan.slices[i].rows;
    const auto drafts = static_cast<size_t>(plan.slices[i].drafts);
    const int sure = rows - plan.slices[i].drafts;
    const int64_t first = sequence.scheduled;
    GrowPages(pools_, sequence, first + rows);
    if (NeedsSlot(pools_, sequence)) --slots.needed;
    slots.reserved = std::max(slots.needed, world.places);
    const StateUse state = drafts > 0 ? GuessState(pools_, sequence, first, rows)
                                      : AdvanceState(pools_, sequence, first, rows, slots);
    const bool draws = DrawsToken(sequence, first, sure);
    const auto scored = static_cast<int>(ScoredRows(sequence, first, sure));
    Part part{&sequence, first,     rows, scored + (draws ? 1 : 0) + plan.slices[i].drafts,
              draws,     state.left};
    if (drafts > 0) {
      const std::vector<int32_t>& guessed = sequence.drafter.Next(sequence.ids).tokens;
      part.drafts.assign(guessed.begin(), guessed.begin() + drafts);
    }
    AppendSlice(sequence, first, rows, part.drafts, state, step.batch);
    if (sure > 1 + sequence.replay) flight.prefill_rows += rows;
    flight.parts.push_back(std::move(part));
    sequence.replay = 0;
    sequence.scheduled += rows;
    ++sequence.in_flight;
    ++sequence.request->in_flight;
  }
  reserve_ = std::max(reserve_ * kReserveDecay, kReserveMin);
  return step;
}

absl::Status Scheduler::NothingToDraw() {
  return absl::InternalError("internal_error: the model gave no number to draw a token from");
}

absl::Status Scheduler::CheckResult(const Flight& flight,
                                    absl::Span<const SampledToken> sampled) const {
  size_t expected = 0;
  for (const Part& part : flight.parts) expected += static_cast<size_t>(part.samples);
  if (sampled.size() != expected) {
    return absl::InvalidArgumentError(
        absl::StrCat("the step's result has ", sampled.size(), " tokens, expected ", expected));
  }
  const auto known = [&](int32_t id) { return id >= 0 && id < options_.limits.vocab_size; };
  size_t at = 0;
  for (const Part& part : flight.parts) {
    if (part.sequence->state != Sequence::State::kEnded && part.sequence->computed != part.first) {
      return absl::InvalidArgumentError("the step's result came before that of an earlier one");
    }
    for (int i = 0; i < part.samples; ++i, ++at) {
      const SampledToken& token = sampled[at];
      if (token.failed) continue;
      const bool drawn = part.draws && i + 1 + static_cast<int>(part.drafts.size()) >= part.samples;
      const auto strange = std::find_if_not(token.top.begin(), token.top.end(),
                                            [&](const TokenLogprob& top) { return known(top.id); });
      if ((drawn && !known(token.token)) || strange != token.top.end()) {
        return absl::InvalidArgumentError(absl::StrCat(
            "the step's result has token ", strange != token.top.end() ? strange->id : token.token,
            ", expected ids below ", options_.limits.vocab_size));
      }
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<std::vector<SchedulerEvent>> Scheduler::Commit(
    uint64_t step, absl::Span<const SampledToken> sampled, SteadyTime now) {
  const auto found = flights_.find(step);
  if (found == flights_.end()) {
    return absl::InvalidArgumentError(absl::StrCat("step ", step, " is not in flight"));
  }
  NG_RETURN_IF_ERROR(CheckResult(found->second, sampled));
  const Flight flight = std::move(found->second);
  flights_.erase(found);
  const auto ms_since = [&](SteadyTime begun) {
    return std::chrono::duration<double, std::milli>(now - begun).count();
  };
  // Of a step that waited behind another, what it took by itself.
  const double own_ms = ms_since(std::max(flight.sent, last_commit_));
  int rows = 0;
  bool guesses = false;
  for (const Part& part : flight.parts) {
    rows += part.rows;
    guesses |= !part.drafts.empty();
  }
  budget_.Measure(rows - flight.prefill_rows, flight.prefill_rows,
                  flight.ahead ? own_ms : ms_since(flight.sent));
  const double wait = GuessWait(flight, rows, own_ms);
  if (flight.prefill_rows == 0) row_costs_.Measure(rows, own_ms, guesses);
  last_commit_ = now;

  const int64_t accepted_before = accepted_tokens_;
  std::vector<SchedulerEvent> events;
  for (const Part& part : flight.parts) {
    const RequestId request = part.sequence->request->id;
    Land(part);
    TakeResult(part, sampled.first(static_cast<size_t>(part.samples)), now, events);
    sampled.remove_prefix(static_cast<size_t>(part.samples));
    EraseIfDone(request);
  }
  if (flight.prefill_rows == 0) {
    guess_account_.Take(wait, static_cast<double>(accepted_tokens_ - accepted_before) /
                                  static_cast<double>(flight.parts.size()));
  }
  return events;
}

absl::StatusOr<std::vector<SchedulerEvent>> Scheduler::FailStep(uint64_t step,
                                                                const absl::Status& error,
                                                                SteadyTime now) {
  NG_CHECK(!error.ok());
  const auto found = flights_.find(step);
  if (found == flights_.end()) {
    return absl::InvalidArgumentError(absl::StrCat("step ", step, " is not in flight"));
  }
  const Flight flight = std::move(found->second);
  flights_.erase(found);
  std::vector<SchedulerEvent> events;
  for (const Part& part : flight.parts) {
    Request& request = *part.sequence->request;
    Land(part);
    if (!request.ended) FailRequest(request, part.sequence->choice, error, now, events);
    EraseIfDone(request.id);
  }
  return events;
}

/// A part of a step is back, with or without a result.
void Scheduler::Land(const Part& part) {
  Sequence& sequence = *part.sequence;
  if (part.slot_left >= 0) pools_.slots.Release(part.slot_left);
  --sequence.in_flight;
  --sequence.request->in_flight;
  if (sequence.state == Sequence::State::kEnded && sequence.in_flight == 0) {
    ReleaseAll(pools_, sequence);
  }
}

void Scheduler::TakeResult(const Part& part, absl::Span<const SampledToken> sampled, SteadyTime now,
                           std::vector<SchedulerEvent>& events) {
  Sequence& sequence = *part.sequence;
  if (sequence.state == Sequence::State::kEnded) return;
  Request& request = *sequence.request;
  const size_t guessed = part.drafts.size();
  for (const SampledToken& token : sampled.first(sampled.size() - guessed)) {
    if (!token.failed) continue;
    FailRequest(request, sequence.choice, NothingToDraw(), now, events);
    return;
  }
  sequence.computed += part.rows - static_cast<int>(guessed);
  sequence.ready = ++last_ready_;
  Request::Prompt& prompt = request.prompt_of(sequence);
  const int scored = part.samples - static_cast<int>(guessed) - (part.draws ? 1 : 0);
  for (int i = 0; i < scored; ++i) {
    const int32_t id = sequence.ids[++sequence.scored_rows];
    prompt.scores.push_back({id, sampled[i].logprob, sampled[i].top});
  }
  PublishPages(pools_, sequence);
  if (!prompt.computed && sequence.computed >= sequence.prompt_tokens) {
    if (request.asked.tokens_max == 0) {
      EndPrefillOnly(sequence, now, events);
      return;
    }
    ShareOut(sequence);
  }
  // After ShareOut: those who follow begin up to a page earlier and see what is given back here.
  if (guessed == 0) FreePastWindow(pools_, sequence, sequence.computed);
  if (!part.draws) return;
  KeepProven(part, sampled.subspan(scored));
  Append(sequence, sampled[scored], now, events);
  if (guessed > 0) Settle(sequence);
}

/// The other choices of a computed prompt start with its full pages; what is left of the prompt,
/// 1 to 16 tokens, each computes in a page of its own. Where the state before that was not kept,
/// for want of slots, they compute everything.
void Scheduler::ShareOut(Sequence& leader) {
  Request& request = *leader.request;
  request.prompt_of(leader).computed = true;
  const int first = leader.choice / request.asked.n * request.asked.n;
  const int64_t shared = SharedTokens(leader.prompt_tokens);
  for (int i = first; i < first + request.asked.n; ++i) {
    Sequence& choice = *request.choices[i];
    if (choice.state != Sequence::State::kFollowing) continue;
    choice.scored_rows = leader.scored_rows;
    if (!ShareState(pools_, leader, shared, choice)) {
      choice.state = Sequence::State::kPreempted;
      InsertByArrival(preempted_, choice);
      continue;
    }
    SharePages(pools_, leader, shared / kPageTokens, choice);
    choice.scheduled = choice.computed = shared;
    choice.published = shared / kPageTokens;
    choice.ready = ++last_ready_;
    EnterRunning(choice);
    queue_.AddRunning(request.asked.tenant, 1);
  }
  ForgetPromptState(pools_, leader);
}

/// Nothing was to be generated: the prompt's choices end with its last chunk.
void Scheduler::EndPrefillOnly(Sequence& leader, SteadyTime now,
                               std::vector<SchedulerEvent>& events) {
  Request& request = *leader.request;
  request.prompt_of(leader).computed = true;
  if (!request.first_token_at.has_value()) request.first_token_at = now;
  const int first = leader.choice / request.asked.n * request.asked.n;
  for (int i = first; i < first + request.asked.n; ++i) {
    Sequence& choice = *request.choices[i];
    if (choice.state == Sequence::State::kEnded) continue;
    SchedulerEvent event;
    event.prompt = request.prompt_of(choice).scores;
    FinishWith(choice, event, FinishReason::kLength, "max_tokens", now);
    events.push_back(std::move(event));
  }
}

void Scheduler::Append(Sequence& sequence, const SampledToken& sampled, SteadyTime now,
                       std::vector<SchedulerEvent>& events) {
  Request& request = *sequence.request;
  const GenerationRequest& asked = request.asked;
  sequence.ids.push_back(sampled.token);
  if (!sequence.forced.empty()) sequence.forced.pop_back();
  sequence.losses = 0;
  sequence.recovering = false;
  sequence.penalties.Append(sequence.ids);
  ++request.usage.completion_tokens;
  ++generated_tokens_;
  queue_.Charge(asked.tenant, 1);
  if (!request.first_token_at.has_value()) request.first_token_at = now;

  SchedulerEvent event;
  event.request = request.id;
  event.choice = sequence.choice;
  event.token = GeneratedToken{sampled.token, sampled.logprob, sampled.top};
  if (!std::exchange(sequence.prompt_sent, true)) event.prompt = request.prompt_of(sequence).scores;
  if (!asked.ignore_eos && Contains(asked.end_ids, sampled.token)) {
    FinishWith(sequence, event, FinishReason::kStop, nullptr, now);
  } else if (Contains(asked.stop_ids, sampled.token)) {
    FinishWith(sequence, event, FinishReason::kStop, sampled.token, now);
  } else if (sequence.generated() >= asked.tokens_max) {
    FinishWith(sequence, event, FinishReason::kLength, "max_tokens", now);
  } else if (sequence.known() >= context_tokens_max()) {
    FinishWith(sequence, event, FinishReason::kLength, "context_length", now);
  }
  events.push_back(std::move(event));
}

void Scheduler::FinishWith(Sequence& sequence, SchedulerEvent& event, FinishReason reason,
                           Json stop_reason, SteadyTime now) {
  Request& request = *sequence.request;
  event.request = request.id;
  event.choice = sequence.choice;
  event.finish = reason;
  event.stop_reason = std::move(stop_reason);
  EndSequence(sequence);
  if (request.live > 0) return;
  event.usage = UsageOf(request, now);
  EndRequest(request);
}

}  // namespace neurogrid
