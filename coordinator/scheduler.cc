// How requests come and go: admission, ends, time limits, a new epoch. Steps: scheduler_step.cc.
#include "coordinator/scheduler.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/time.h"
#include "common/check.h"
#include "coordinator/sequence_pages.h"
#include "coordinator/window_pages.h"

namespace neurogrid {
namespace {

constexpr double kRetryAfterMin = 1;
constexpr double kRetryAfterMax = 120;
constexpr double kRetryAfterUnknown = 5;  // before the queue was ever seen to drain
constexpr int kQueuedPools = 4;           // page pools that the queue's prompts may fill

double Ms(SteadyTime::duration time) {
  return std::chrono::duration<double, std::milli>(time).count();
}

SteadyTime After(SteadyTime time, absl::Duration wait) {
  return time + std::chrono::duration_cast<SteadyTime::duration>(absl::ToChronoNanoseconds(wait));
}

}  // namespace

SchedulerOptions Scheduler::Completed(SchedulerOptions options) {
  NG_CHECK(options.stages >= 1);
  if (options.steps_in_flight == 0) options.steps_in_flight = options.stages;
  if (options.decode_groups == 0) options.decode_groups = options.stages;
  NG_CHECK(!options.ahead || (options.stages == 1 && options.steps_in_flight == 1));
  if (options.queued_tokens_max == 0) {
    const int pages = std::max(options.limits.pages, options.limits.window_pages);
    options.queued_tokens_max = int64_t{kQueuedPools} * pages * kPageTokens;
  }
  return options;
}

Scheduler::Scheduler(SchedulerOptions options)
    : options_(Completed(std::move(options))),
      pools_(options_.limits),
      budget_(options_.itl_target_ms, options_.limits.rows_max),
      row_costs_(options_.first_slow),
      guess_account_(options_.first_slow),
      queue_(options_.tenant_running_max) {}

Scheduler::~Scheduler() = default;

std::optional<RequestId> Scheduler::Admit(GenerationRequest request, SteadyTime now,
                                          Refusal* refusal) {
  NG_CHECK(request.n >= 1);
  if (std::optional<Refusal> reason = RefusalOf(request, now)) {
    *refusal = *std::move(reason);
    return std::nullopt;
  }
  auto admitted = std::make_unique<Request>();
  admitted->id = ++last_request_;
  admitted->asked = std::move(request);
  admitted->arrived = now;
  admitted->prefix_root =
      PrefixRoot(options_.model_digest, admitted->asked.tenant, admitted->asked.cache_salt);
  AddChoices(*admitted);
  if (const std::optional<SteadyTime> expiry = ExpiryOf(*admitted)) {
    next_expiry_ = next_expiry_.has_value() ? std::min(*next_expiry_, *expiry) : *expiry;
  }
  ++queued_requests_;
  requests_.emplace(admitted->id, std::move(admitted));
  return last_request_;
}

std::optional<Refusal> Scheduler::RefusalOf(const GenerationRequest& request,
                                            SteadyTime now) const {
  if (const absl::Status fits = CheckLength(request); !fits.ok()) {
    return Refusal{Refusal::Kind::kTooLong, std::string(fits.message()), 0};
  }
  const double retry_after = retry_after_s(now);
  if (!request.tenant.empty() && queue_.size(request.tenant) >= options_.tenant_queued_max) {
    return Refusal{Refusal::Kind::kRateLimited,
                   absl::StrCat("Rate limit: ", queue_.size(request.tenant),
                                " prompts of this key are waiting (at most ",
                                options_.tenant_queued_max, ")."),
                   retry_after};
  }
  if (queued_requests_ >= options_.queued_requests_max) {
    return Refusal{Refusal::Kind::kQueueFull,
                   absl::StrCat("The queue is full: ", queued_requests_, " requests are waiting."),
                   retry_after};
  }
  int64_t tokens = 0;
  for (const auto& prompt : request.prompts) tokens += static_cast<int64_t>(prompt.size());
  if (queued_tokens_ > 0 && queued_tokens_ + tokens > options_.queued_tokens_max) {
    return Refusal{
        Refusal::Kind::kQueueFull,
        absl::StrCat("The queue is full: ", queued_tokens_, " prompt tokens are waiting, and ",
                     tokens, " more would exceed its ", options_.queued_tokens_max, "."),
        retry_after};
  }
  return std::nullopt;
}

absl::Status Scheduler::CheckLength(const GenerationRequest& request) const {
  if (request.prompts.empty()) return absl::InvalidArgumentError("There is no prompt.");
  const int64_t least = request.tokens_max == 0 ? 0 : std::max<int64_t>(1, request.tokens_min);
  const int64_t context = context_tokens_max();
  for (const auto& prompt : request.prompts) {
    const auto tokens = static_cast<int64_t>(prompt.size());
    if (tokens == 0) return absl::InvalidArgumentError("The prompt has no tokens.");
    if (tokens + least <= context) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "This model's maximum context length is ", context, " tokens, but the prompt has ", tokens,
        least > 1 ? absl::StrCat(" and min_tokens is ", least, ".") : "."));
  }
  return absl::OkStatus();
}

void Scheduler::AddChoices(Request& request) {
  const GenerationRequest& asked = request.asked;
  request.prompts.resize(asked.prompts.size());
  for (size_t p = 0; p < asked.prompts.size(); ++p) {
    const std::vector<int32_t>& prompt = asked.prompts[p];
    std::vector<PageHash> hashes;
    for (size_t at = 0; asked.use_cache && at + kPageTokens <= prompt.size(); at += kPageTokens) {
      hashes.push_back(HashOfPage(hashes.empty() ? request.prefix_root : hashes.back(),
                                  absl::MakeConstSpan(prompt).subspan(at, kPageTokens)));
    }
    for (int c = 0; c < asked.n; ++c) {
      const int number = static_cast<int>(p) * asked.n + c;
      auto choice = std::make_unique<Sequence>(&request, number, prompt, asked.sampling);
      choice->prompt_tokens = static_cast<int64_t>(prompt.size());
      choice->hashes = hashes;
      if (c > 0) {
        choice->state = Sequence::State::kFollowing;
      } else {
        queue_.Push(choice.get());
        queued_tokens_ += choice->prompt_tokens;
      }
      request.choices.push_back(std::move(choice));
    }
    request.prompt_tokens += static_cast<int64_t>(prompt.size());
  }
  request.live = static_cast<int>(request.choices.size());
  request.usage.prompt_tokens = request.prompt_tokens;
}

Request* Scheduler::Find(RequestId request) const {
  const auto found = requests_.find(request);
  return found == requests_.end() || found->second->ended ? nullptr : found->second.get();
}

std::optional<GenerationUsage> Scheduler::Finish(RequestId request, int choice, SteadyTime now) {
  Request* const found = Find(request);
  if (found == nullptr || choice < 0 || choice >= static_cast<int>(found->choices.size())) {
    return std::nullopt;
  }
  Sequence& sequence = *found->choices[choice];
  if (sequence.state == Sequence::State::kEnded) return std::nullopt;
  EndSequence(sequence);
  if (found->live > 0) return std::nullopt;
  const GenerationUsage usage = UsageOf(*found, now);
  EndRequest(*found);
  EraseIfDone(request);
  return usage;
}

void Scheduler::Force(RequestId request, int choice, absl::Span<const int32_t> ids) {
  Request* const found = Find(request);
  if (found == nullptr || choice < 0 || choice >= static_cast<int>(found->choices.size())) return;
  Sequence& sequence = *found->choices[choice];
  sequence.forced.assign(ids.rbegin(), ids.rend());
  if (sequence.proven.empty()) {
    NG_CHECK(sequence.scheduled <= sequence.known());  // no draw of what follows is on its way
    return;
  }
  sequence.proven.clear();
  Settle(sequence);
}

void Scheduler::Cancel(RequestId request) {
  Request* const found = Find(request);
  if (found == nullptr) return;
  EndRequest(*found);
  EraseIfDone(request);
}

void Scheduler::Pause(RequestId request, bool paused) {
  if (Request* const found = Find(request)) found->paused = paused;
}

void Scheduler::EnterRunning(Sequence& sequence) {
  sequence.state = Sequence::State::kRunning;
  InsertByArrival(running_, sequence);
}

void Scheduler::LeaveRunning(Sequence& sequence) {
  EraseFrom(running_, sequence);
  queue_.AddRunning(sequence.request->asked.tenant, -1);
  if (sequence.in_flight == 0) ReleaseAll(pools_, sequence);
}

void Scheduler::EndSequence(Sequence& sequence) {
  const Sequence::State was = std::exchange(sequence.state, Sequence::State::kEnded);
  sequence.proven.clear();
  Request& request = *sequence.request;
  --request.live;
  if (was == Sequence::State::kRunning) LeaveRunning(sequence);
  if (was == Sequence::State::kPreempted) EraseFrom(preempted_, sequence);
  const bool leads = was != Sequence::State::kFollowing && !request.prompt_of(sequence).computed;
  if (leads && !request.ended && request.followers(sequence) > 0) {
    Promote(sequence, was);
  } else if (was == Sequence::State::kQueued) {
    queue_.Remove(&sequence);
    queued_tokens_ -= sequence.prompt_tokens;
  }
}

/// The next choice computes the prompt that the ended one was to compute.
void Scheduler::Promote(Sequence& ended, Sequence::State was) {
  Request& request = *ended.request;
  const int first = ended.choice / request.asked.n * request.asked.n;
  for (int i = first; i < first + request.asked.n; ++i) {
    Sequence& next = *request.choices[i];
    if (next.state != Sequence::State::kFollowing) continue;
    if (was == Sequence::State::kQueued) {
      next.state = Sequence::State::kQueued;
      queue_.Replace(&ended, &next);
    } else {
      next.state = Sequence::State::kPreempted;
      InsertByArrival(preempted_, next);
    }
    return;
  }
}

void Scheduler::EndRequest(Request& request) {
  request.ended = true;
  for (const auto& choice : request.choices) {
    if (choice->state != Sequence::State::kEnded) EndSequence(*choice);
  }
  if (!request.begun) --queued_requests_;
}

void Scheduler::FailRequest(Request& request, int choice, absl::Status error, SteadyTime now,
                            std::vector<SchedulerEvent>& events) {
  SchedulerEvent event;
  event.request = request.id;
  event.choice = choice;
  event.error = std::move(error);
  event.usage = UsageOf(request, now);
  events.push_back(std::move(event));
  EndRequest(request);
}

void Scheduler::EraseIfDone(RequestId request) {
  const auto found = requests_.find(request);
  if (found == requests_.end()) return;
  if (found->second->ended && found->second->in_flight == 0) requests_.erase(found);
}

std::optional<SteadyTime> Scheduler::ExpiryOf(const Request& request) const {
  std::optional<SteadyTime> expiry;
  if (!request.begun) {
    expiry = After(request.arrived, options_.queue_wait_max);
  } else if (parked_since_.has_value()) {
    expiry = After(*parked_since_, options_.park_timeout);
  }
  if (request.asked.timeout.has_value()) {
    const SteadyTime own = After(request.arrived, *request.asked.timeout);
    expiry = expiry.has_value() ? std::min(*expiry, own) : own;
  }
  return expiry;
}

std::vector<SchedulerEvent> Scheduler::Expire(SteadyTime now) {
  std::vector<SchedulerEvent> events;
  if (!next_expiry_.has_value() || now < *next_expiry_) return events;
  next_expiry_.reset();
  for (auto at = requests_.begin(); at != requests_.end();) {
    Request& request = *(at++)->second;
    const std::optional<SteadyTime> expiry = request.ended ? std::nullopt : ExpiryOf(request);
    if (!expiry.has_value()) continue;
    if (now < *expiry) {
      next_expiry_ = next_expiry_.has_value() ? std::min(*next_expiry_, *expiry) : *expiry;
      continue;
    }
    FailRequest(request, 0, LatenessOf(request, now), now, events);
    EraseIfDone(request.id);
  }
  return events;
}

/// What a request that is late waited for in vain.
absl::Status Scheduler::LatenessOf(const Request& request, SteadyTime now) const {
  const auto& timeout = request.asked.timeout;
  if (timeout.has_value() && now >= After(request.arrived, *timeout)) {
    return absl::DeadlineExceededError(absl::StrCat(
        "The request's timeout of ", absl::ToInt64Milliseconds(*timeout), " ms is over."));
  }
  if (request.begun) {
    return absl::UnavailableError(absl::StrCat(
        "worker_lost: A worker was lost while it answered, and the rest did not serve within ",
        absl::ToInt64Milliseconds(options_.park_timeout), " ms."));
  }
  const int64_t waited_ms = absl::ToInt64Milliseconds(options_.queue_wait_max);
  if (parked_since_.has_value()) {
    return absl::UnavailableError(absl::StrCat(
        "recovering: The model was not placed anew while the request waited, ", waited_ms, " ms."));
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("The queue is full: no place within ", waited_ms, " ms."));
}

std::optional<SteadyTime> Scheduler::next_expiry() const { return next_expiry_; }

GenerationUsage Scheduler::UsageOf(const Request& request, SteadyTime now) const {
  GenerationUsage usage = request.usage;
  const SteadyTime begun = request.begun ? request.begun_at : now;
  const SteadyTime first_token = request.first_token_at.value_or(now);
  usage.queue_ms = Ms(begun - request.arrived);
  usage.prefill_ms = Ms(first_token - begun);
  usage.decode_ms = Ms(now - first_token);
  return usage;
}

std::optional<GenerationUsage> Scheduler::usage(RequestId request, SteadyTime now) const {
  const Request* const found = Find(request);
  if (found == nullptr) return std::nullopt;
  return UsageOf(*found, now);
}

std::optional<Generation::Progress> Scheduler::progress(RequestId request) const {
  Request* const found = Find(request);
  if (found == nullptr) return std::nullopt;
  Generation::Progress progress;
  progress.prefill_total = found->prompt_tokens;
  for (const auto& choice : found->choices) {
    const Request::Prompt& prompt = found->prompt_of(*choice);
    if (prompt.computed ? choice->choice % found->asked.n == 0
                        : choice->state != Sequence::State::kFollowing) {
      progress.prefill_done += prompt.computed ? choice->prompt_tokens
                                               : std::min(choice->computed, choice->prompt_tokens);
    }
  }
  if (std::any_of(found->choices.begin(), found->choices.end(), [](const auto& choice) {
        return choice->recovering && choice->state != Sequence::State::kEnded;
      })) {
    progress.state = Generation::State::kRecovering;
  } else if (found->first_token_at.has_value()) {
    progress.state = Generation::State::kDecode;
  } else if (found->begun) {
    progress.state = Generation::State::kPrefill;
  } else {
    progress.queue_position = queue_.ahead_of(*found->choices.front());
    progress.queue_eta_ms = 1000 * start_interval_s_ * (progress.queue_position + 1);
  }
  return progress;
}

double Scheduler::retry_after_s(SteadyTime now) const {
  if (!last_start_.has_value() || start_interval_s_ == 0) return kRetryAfterUnknown;
  // A queue that stands still drains no faster than since its last start.
  const double still_s = Ms(now - *last_start_) / 1000;
  const double interval = std::max(start_interval_s_, still_s);
  // Half of the queue: others come back too.
  return std::clamp(interval * (queued_requests_ + 1) / 2, kRetryAfterMin, kRetryAfterMax);
}

int64_t Scheduler::context_tokens_max() const {
  const BatchLimits& limits = options_.limits;
  int64_t tokens = limits.positions_max;
  if (limits.pages > 0) tokens = std::min(tokens, int64_t{limits.pages} * kPageTokens);
  if (limits.window > 0 && limits.window_pages < WindowPagesMax(limits.window, limits.rows_max)) {
    tokens = std::min(tokens, int64_t{limits.window_pages} * kPageTokens);
  }
  return tokens;
}

bool Scheduler::idle() const { return requests_.empty() && flights_.empty(); }

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats;
  stats.running = static_cast<int>(running_.size());
  stats.waiting = queue_.size() + static_cast<int>(preempted_.size());
  stats.waiting_tokens = queued_tokens_;
  stats.steps_in_flight = static_cast<int>(flights_.size());
  const auto stats_of = [](const PageAllocator& ids) {
    return PoolStats{ids.pages(), ids.free(), ids.cached()};
  };
  stats.pages = stats_of(pools_.pages);
  stats.window_pages = stats_of(pools_.window_pages);
  stats.slots = stats_of(pools_.slots);
  stats.tokens_budget = budget_.tokens(/*decoding=*/true);
  stats.prefix_queries = prefix_queries_;
  stats.prefix_hits = prefix_hits_;
  stats.prompt_tokens = prompt_tokens_;
  stats.generated_tokens = generated_tokens_;
  stats.preemptions = preemptions_;
  stats.parked = static_cast<int>(
      std::count_if(preempted_.begin(), preempted_.end(),
                    [](const Sequence* sequence) { return sequence->recovering; }));
  stats.replayed_tokens = replayed_tokens_;
  stats.drafted_tokens = drafted_tokens_;
  stats.accepted_tokens = accepted_tokens_;
  return stats;
}

std::vector<RequestId> Scheduler::requests() const {
  std::vector<RequestId> live;
  for (const auto& [id, request] : requests_) {
    if (!request->ended) live.push_back(id);
  }
  return live;
}

}  // namespace neurogrid
