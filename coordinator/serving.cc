#include "coordinator/serving.h"

#include <algorithm>
#include <future>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/log.h"
#include "coordinator/plan.h"

namespace neurogrid {
namespace {

constexpr std::chrono::milliseconds kTick(50);
constexpr std::chrono::seconds kCanaryEvery(1);
constexpr std::chrono::seconds kAliveWithin(2);
constexpr size_t kUnreadTokensMax = 1024;  // a reader this far behind is paused

int64_t NowNs() { return std::chrono::steady_clock::now().time_since_epoch().count(); }

double Seconds(SteadyTime::duration duration) {
  return std::chrono::duration<double>(duration).count();
}

absl::string_view Name(Generation::State state) {
  switch (state) {
    case Generation::State::kQueued:
      return "queued";
    case Generation::State::kPrefill:
      return "prefill";
    case Generation::State::kDecode:
      return "decode";
    case Generation::State::kRecovering:
      return "recovering";
  }
  return "";
}

}  // namespace

/// What the serving thread and the reader of one request share.
struct Serving::Shared {
  std::mutex mutex;
  std::condition_variable changed;
  RequestId id = 0;
  std::vector<GenerationEvent> events;
  size_t unread_tokens = 0;
  absl::Status error;
  bool done = false;  // nothing more will come
  Generation::Progress progress;
  GenerationUsage usage;
};

/// One request on the serving thread's side.
struct Serving::Active {
  Active(const Tokenizer& tokenizer, const GenerationRequest& request, SteadyTime now)
      : name(request.id), reader(tokenizer, request), begun(now) {}

  std::shared_ptr<Shared> shared;
  std::string name;
  AnswerReader reader;
  SteadyTime begun;
  SteadyTime last_token;
  std::optional<GenerationUsage> usage;  // of all choices, once the last one has ended
  bool any_token = false;
  bool paused = false;

  /// The scheduler's counts, and the reader's.
  GenerationUsage Counted(GenerationUsage counts) const {
    counts.reasoning_tokens = reader.reasoning_tokens();
    return counts;
  }
};

/// The reader's end, in an HTTP thread.
class Serving::Handle final : public Generation {
 public:
  Handle(Serving& serving, std::shared_ptr<Shared> shared)
      : serving_(serving), shared_(std::move(shared)) {}

  ~Handle() override {
    serving_.Post([&serving = serving_, id = shared_->id] {
      if (serving.active_.erase(id) > 0) serving.scheduler_->Cancel(id);
    });
  }

  absl::StatusOr<std::vector<GenerationEvent>> Next(absl::Duration timeout) override {
    std::unique_lock lock(shared_->mutex);
    const auto ready = [&] {
      return !shared_->events.empty() || shared_->done || !shared_->error.ok();
    };
    shared_->changed.wait_for(lock, absl::ToChronoNanoseconds(timeout), ready);
    if (shared_->events.empty() && !shared_->error.ok()) {
      shared_->done = true;
      return shared_->error;
    }
    if (shared_->unread_tokens > kUnreadTokensMax) {
      serving_.Post([&serving = serving_, id = shared_->id] {
        const auto found = serving.active_.find(id);
        if (found == serving.active_.end()) return;
        found->second->paused = false;
        serving.scheduler_->Pause(id, false);
      });
    }
    shared_->unread_tokens = 0;
    return std::exchange(shared_->events, {});
  }

  bool done() const override {
    const std::lock_guard lock(shared_->mutex);
    return shared_->done && shared_->events.empty();
  }
  Progress progress() const override {
    const std::lock_guard lock(shared_->mutex);
    return shared_->progress;
  }
  GenerationUsage usage() const override {
    const std::lock_guard lock(shared_->mutex);
    return shared_->usage;
  }

 private:
  Serving& serving_;
  std::shared_ptr<Shared> shared_;
};

Serving::Serving(const Tokenizer& tokenizer, ServingOptions options, ServingObserver* observer)
    : tokenizer_(tokenizer),
      options_(std::move(options)),
      observer_(observer),
      last_turn_ns_(NowNs()),
      thread_([this] { Loop(); }) {}

Serving::~Serving() { Stop(); }

void Serving::Stop() {
  Post([this] { stop_ = true; });
  if (thread_.joinable()) thread_.join();
}

bool Serving::Post(std::function<void()> action) {
  {
    const std::lock_guard lock(mail_mutex_);
    if (mail_closed_) return false;
    mail_.push_back(std::move(action));
    mailed_ = true;
  }
  mail_arrived_.notify_one();
  return true;
}

void Serving::Loop() {
  while (!stop_) {
    polling_.Wait([this] { return mailed_.load(); },
                  [this] {
                    std::unique_lock lock(mail_mutex_);
                    mail_arrived_.wait_for(lock, kTick, [this] { return mailed_.load(); });
                  });
    std::deque<std::function<void()>> mail;
    {
      const std::lock_guard lock(mail_mutex_);
      mail.swap(mail_);
      mailed_ = false;
    }
    for (const std::function<void()>& action : mail) action();
    Turn(std::chrono::steady_clock::now());
  }
  CloseMail();
  chain_.reset();
  for (auto& [id, active] : active_) {
    End(id, *active, absl::UnavailableError("draining: The server stops."), "error",
        std::chrono::steady_clock::now());
  }
  active_.clear();
  WakeReaders();
}

/// What came before the end is still done: somebody may wait for the answer.
void Serving::CloseMail() {
  draining_ = true;
  std::deque<std::function<void()>> rest;
  {
    const std::lock_guard lock(mail_mutex_);
    mail_closed_ = true;
    rest.swap(mail_);
  }
  for (const std::function<void()>& action : rest) action();
}

void Serving::Turn(SteadyTime now) {
  last_turn_ns_ = now.time_since_epoch().count();
  if (scheduler_ == nullptr) return WakeReaders();
  const std::optional<SteadyTime> due = scheduler_->next_expiry();
  if (due.has_value() && *due <= now) Deliver(scheduler_->Expire(now), now);
  KeepCanaryFresh(now);
  SubmitSteps(now);
  WakeReaders();
  PublishCounts(now);
}

/// After the next step has gone out: the chain works while each wake-up takes its microseconds.
void Serving::WakeReaders() {
  for (const std::shared_ptr<Shared>& shared : to_wake_) shared->changed.notify_all();
  to_wake_.clear();
}

void Serving::SubmitSteps(SteadyTime now) {
  while (chain_ != nullptr) {
    std::optional<SchedulerStep> step = scheduler_->NextStep(now);
    if (!step.has_value()) return;
    chain_->Submit(step->id, std::move(step->batch));
  }
}

void Serving::StepDone(uint64_t tag, uint64_t step,
                       absl::StatusOr<std::vector<SampledToken>> sampled) {
  Post([this, tag, step, sampled = std::move(sampled)] {
    if (tag != chain_tag_ || chain_ == nullptr) return;  // of a chain that is gone
    const SteadyTime now = std::chrono::steady_clock::now();
    absl::StatusOr<std::vector<SchedulerEvent>> events =
        sampled.ok() ? scheduler_->Commit(step, *sampled, now)
                     : scheduler_->FailStep(step, sampled.status(), now);
    // NaN logits prove nothing but that the chain computes them.
    const bool proof = events.ok() && sampled.ok() &&
                       std::any_of(sampled->begin(), sampled->end(),
                                   [](const SampledToken& token) { return !token.failed; });
    if (!events.ok()) {
      LogError("a step's result does not fit the step: ", events.status().message());
      // The step is over all the same: left in flight, it would hold up its requests for good.
      events = scheduler_->FailStep(
          step, absl::InternalError("internal_error: a worker's result does not fit its step"),
          now);
      if (!events.ok()) return;
    }
    if (proof) TokenPassed(now);
    Deliver(*std::move(events), now);
    DeliverMore(now);
  });
}

void Serving::TokenPassed(SteadyTime now) {
  last_token_ns_ = now.time_since_epoch().count();
  if (!lost_at_.has_value()) return;
  const double seconds = Seconds(now - *std::exchange(lost_at_, std::nullopt));
  if (observer_ != nullptr) observer_->Recovered(seconds);
  const std::lock_guard lock(published_mutex_);
  ++takeovers_;
  heal_s_ = seconds;
}

void Serving::ChainUp(uint64_t tag, std::shared_ptr<Chain> chain, SchedulerOptions shape,
                      std::string determinism_class) {
  Post([this, tag, chain = std::move(chain), shape = std::move(shape),
        determinism_class = std::move(determinism_class)] {
    const SteadyTime now = std::chrono::steady_clock::now();
    SchedulerOptions options = options_.scheduler;
    options.limits = shape.limits;
    options.stages = shape.stages;
    options.steps_in_flight = shape.steps_in_flight;
    options.decode_groups = shape.decode_groups;
    options.prefill_depth = shape.prefill_depth;
    options.speculates = shape.speculates;
    options.first_slow = shape.first_slow;
    options.ahead = shape.ahead;
    if (scheduler_ == nullptr) {
      scheduler_ = std::make_unique<Scheduler>(std::move(options));
    } else {
      scheduler_->Cancel(std::exchange(canary_, 0));
      Deliver(scheduler_->Reset(std::move(options), now), now);
    }
    chain_ = chain;
    chain_tag_ = tag;
    // A processor's stage wants every core for itself.
    polling_.Allow(options_.polls && GpusAlone(determinism_class));
    last_token_ns_ = 0;
    canary_begun_ = {};
    context_tokens_max_ = scheduler_->context_tokens_max();
    {
      const std::lock_guard lock(published_mutex_);
      fingerprint_ = absl::StrCat(
          "fp_", HexOf(Sha256Of(absl::StrCat(options_.fingerprint_seed, determinism_class)))
                     .substr(0, 16));
      missing_.clear();
    }
    state_ = ServingState::kReady;
  });
}

void Serving::ChainDown(ServingState state, std::vector<std::string> missing) {
  Post([this, state, missing = std::move(missing)]() mutable {
    DropChain(state, std::move(missing));
  });
}

bool Serving::Vacate() {
  std::promise<bool> vacated;
  const bool asked = Post([&] {
    const bool free = active_.empty();
    if (free) DropChain(ServingState::kPlanning, {"the model moves to a better plan"});
    vacated.set_value(free);
  });
  return asked && vacated.get_future().get();
}

void Serving::DropChain(ServingState state, std::vector<std::string> missing) {
  const SteadyTime now = std::chrono::steady_clock::now();
  state_ = state;
  last_token_ns_ = 0;
  {
    const std::lock_guard lock(published_mutex_);
    missing_ = std::move(missing);
  }
  if (chain_ == nullptr) return;
  chain_.reset();
  scheduler_->Cancel(std::exchange(canary_, 0));
  // A better plan is no loss; a chain that was lost before its first token adds to the one before.
  if (state != ServingState::kPlanning && !lost_at_.has_value()) lost_at_ = now;
  Deliver(scheduler_->Park(now), now);
}

void Serving::Drain() { draining_ = true; }

void Serving::AbortAll(const absl::Status& error) {
  Post([this, error] {
    const SteadyTime now = std::chrono::steady_clock::now();
    for (auto& [id, active] : active_) {
      End(id, *active, error, "error", now);
      scheduler_->Cancel(id);
    }
    active_.clear();
  });
}

bool Serving::RefuseNow(Refusal& refusal) const {
  refusal.retry_after_s = 1;
  if (draining_) {
    refusal.kind = Refusal::Kind::kDraining;
    refusal.message = "The server is shutting down.";
    return true;
  }
  // While the model moves to a better plan requests wait in the queue.
  const bool moving = state_ == ServingState::kPlanning && scheduler_ != nullptr;
  if (chain_ != nullptr || moving) return false;
  switch (state_.load()) {
    case ServingState::kRecovering:
      refusal.kind = Refusal::Kind::kRecovering;
      refusal.message = "A worker was lost; the model is being placed anew.";
      return true;
    case ServingState::kWaitingForWorkers:
      refusal.kind = Refusal::Kind::kNoWorkers;
      refusal.message = "No plan covers the model yet: workers are missing.";
      return true;
    default:
      refusal.kind = Refusal::Kind::kLoading;
      refusal.message = "The model is still loading.";
      return true;
  }
}

void Serving::AdmitCall(GenerationRequest& request, std::shared_ptr<Shared>& shared,
                        Refusal& refusal) {
  if (RefuseNow(refusal)) return;
  auto active = std::make_unique<Active>(tokenizer_, request, std::chrono::steady_clock::now());
  const std::optional<RequestId> id =
      scheduler_->Admit(std::move(request), active->begun, &refusal);
  if (!id.has_value()) return;
  for (int choice = 0; choice < active->reader.choices(); ++choice) {
    scheduler_->Force(*id, choice, active->reader.FirstTokens(choice));
  }
  active->shared = std::make_shared<Shared>();
  active->shared->id = *id;
  shared = active->shared;
  idle_ = false;
  active_.emplace(*id, std::move(active));
}

std::unique_ptr<Generation> Serving::Start(GenerationRequest request, Refusal* refusal) {
  std::promise<void> answered;
  std::shared_ptr<Shared> shared;
  const bool asked = Post([&] {
    AdmitCall(request, shared, *refusal);
    answered.set_value();
  });
  if (!asked) {
    *refusal = {Refusal::Kind::kDraining, "The server is shutting down.", 1};
    return nullptr;
  }
  answered.get_future().wait();
  if (shared == nullptr) return nullptr;
  return std::make_unique<Handle>(*this, std::move(shared));
}

void Serving::Deliver(std::vector<SchedulerEvent> events, SteadyTime now) {
  for (SchedulerEvent& event : events) DeliverOne(std::move(event), now);
}

/// A text may end, or a reader force what follows, between two tokens of one step.
void Serving::DeliverMore(SteadyTime now) {
  while (true) {
    std::vector<SchedulerEvent> events = scheduler_->More(now);
    if (events.empty()) return;
    Deliver(std::move(events), now);
  }
}

/// The reader's view of an event: text in place of tokens, cut at a stop string. A choice that its
/// text ends, ends here; the scheduler learns of it by Finish.
GenerationEvent Serving::ToText(Active& active, SchedulerEvent& event, SteadyTime now) {
  if (event.token.has_value()) CountToken(active, now);
  AnswerReader::Reading reading = active.reader.Take(std::move(event));
  const int choice = reading.event.choice;
  if (reading.ends) event.usage = scheduler_->Finish(event.request, choice, now);
  if (!reading.forced.empty()) scheduler_->Force(event.request, choice, reading.forced);
  return std::move(reading.event);
}

void Serving::CountToken(Active& active, SteadyTime now) {
  if (observer_ != nullptr) {
    if (active.any_token) {
      observer_->NextToken(Seconds(now - active.last_token));
    } else {
      observer_->FirstToken(Seconds(now - active.begun));
    }
  }
  active.any_token = true;
  active.last_token = now;
}

void Serving::DeliverOne(SchedulerEvent event, SteadyTime now) {
  if (event.request == canary_) {
    if (event.usage.has_value() || !event.error.ok()) canary_ = 0;
    return;
  }
  const auto found = active_.find(event.request);
  if (found == active_.end()) return;
  Active& active = *found->second;
  if (!event.error.ok()) {
    active.usage = event.usage;
    End(event.request, active, event.error, "error", now);
    active_.erase(found);
    return;
  }
  if (active.reader.ended(event.choice)) return;
  // A stop string may end the request while the ends of other choices, of the same step, are still
  // to be told.
  GenerationEvent out = ToText(active, event, now);
  const absl::string_view reason = out.finish == FinishReason::kLength ? "length" : "stop";
  if (event.usage.has_value()) active.usage = event.usage;
  const bool done = active.usage.has_value() && active.reader.all_ended();
  const std::shared_ptr<Shared> shared = active.shared;
  bool pause = false;
  {
    const std::lock_guard lock(shared->mutex);
    shared->unread_tokens += out.tokens.size();
    pause = shared->unread_tokens > kUnreadTokensMax && !active.paused;
    shared->events.push_back(std::move(out));
    shared->done = done;
    if (done) shared->usage = active.Counted(*active.usage);
  }
  if (to_wake_.empty() || to_wake_.back() != shared) to_wake_.push_back(shared);
  if (done) {
    if (observer_ != nullptr) {
      observer_->RequestEnded(*active.usage, reason, Seconds(now - active.begun));
    }
    active_.erase(event.request);
  } else if (pause) {
    active.paused = true;
    scheduler_->Pause(event.request, true);
  }
}

void Serving::End(RequestId id, Active& active, const absl::Status& error, absl::string_view reason,
                  SteadyTime now) {
  const std::optional<GenerationUsage> usage =
      active.usage.has_value() ? active.usage : scheduler_->usage(id, now);
  {
    const std::lock_guard lock(active.shared->mutex);
    active.shared->error = error;
    if (usage.has_value()) active.shared->usage = active.Counted(*usage);
  }
  to_wake_.push_back(active.shared);
  if (observer_ != nullptr) {
    observer_->RequestEnded(usage.value_or(GenerationUsage()), reason, Seconds(now - active.begun));
  }
}

/// When no request proves that tokens pass through every stage (none runs, all wait for slow
/// readers, a long prompt gives no token yet), a request of one token does.
void Serving::KeepCanaryFresh(SteadyTime now) {
  if (chain_ == nullptr || canary_ != 0 || now - canary_begun_ < kCanaryEvery) return;
  const int64_t last = last_token_ns_.load();
  if (last != 0 &&
      now.time_since_epoch().count() - last < std::chrono::nanoseconds(kCanaryEvery).count()) {
    return;
  }
  canary_begun_ = now;
  GenerationRequest request;
  request.id = "canary";
  request.prompts = {{std::max(0, tokenizer_.bos_id())}};
  request.tokens_max = 1;
  request.use_cache = false;
  request.sampling.temperature = 0;
  Refusal refusal;
  canary_ = scheduler_->Admit(std::move(request), now, &refusal).value_or(0);
}

void Serving::PublishCounts(SteadyTime now) {
  idle_ = active_.empty();
  if (now - last_counts_ < kTick) return;
  last_counts_ = now;
  const SchedulerStats stats = scheduler_->stats();
  Json::Array requests;
  for (const auto& [id, active] : active_) {
    const std::optional<Generation::Progress> progress = scheduler_->progress(id);
    const std::optional<GenerationUsage> usage = scheduler_->usage(id, now);
    if (!progress.has_value() || !usage.has_value()) continue;
    {
      const std::lock_guard lock(active->shared->mutex);
      active->shared->progress = *progress;
      active->shared->usage = active->Counted(*usage);
    }
    Json entry = Json(Json::Object());
    entry.Set("id", Json(active->name));
    entry.Set("state", Json(Name(progress->state)));
    entry.Set("age_ms", Json(Seconds(now - active->begun) * 1e3));
    entry.Set("prompt_tokens", Json(usage->prompt_tokens));
    entry.Set("completion_tokens", Json(usage->completion_tokens));
    requests.push_back(std::move(entry));
  }
  if (observer_ != nullptr) observer_->Counts(stats);
  const std::lock_guard lock(published_mutex_);
  stats_ = stats;
  requests_ = Json(std::move(requests));
}

SchedulerStats Serving::stats() const {
  const std::lock_guard lock(published_mutex_);
  return stats_;
}

std::vector<std::string> Serving::missing() const {
  const std::lock_guard lock(published_mutex_);
  return missing_;
}

bool Serving::alive() const {
  return NowNs() - last_turn_ns_.load() < std::chrono::nanoseconds(kAliveWithin).count();
}

double Serving::canary_age_ms() const {
  const int64_t last = last_token_ns_.load();
  return last == 0 ? -1 : static_cast<double>(NowNs() - last) / 1e6;
}

Json Serving::DescribeCluster() const {
  Json cluster = describe_cluster_ ? describe_cluster_() : Json(Json::Object());
  const SchedulerStats stats = this->stats();
  Json recovery = Json(Json::Object());
  {
    const std::lock_guard lock(published_mutex_);
    recovery.Set("takeovers", Json(takeovers_));
    recovery.Set("last_seconds", Json(heal_s_));
  }
  recovery.Set("replayed_tokens", Json(stats.replayed_tokens));
  recovery.Set("parked", Json(stats.parked));
  cluster.Set("recovery", std::move(recovery));
  Json queue = Json(Json::Object());
  queue.Set("running", Json(stats.running));
  queue.Set("waiting", Json(stats.waiting));
  queue.Set("waiting_tokens", Json(stats.waiting_tokens));
  cluster.Set("queue", std::move(queue));
  Json* plan = cluster.Find("plan");
  if (plan != nullptr && plan->is_object()) {
    const auto add = [&](const std::string& kind, const PoolStats& pool) {
      plan->Set(kind + "_total", Json(pool.total));
      plan->Set(kind + "_free", Json(pool.free + pool.cached));
      plan->Set(kind + "_cached", Json(pool.cached));
    };
    add("pages", stats.pages);
    if (stats.window_pages.total > 0) add("window_pages", stats.window_pages);
    if (stats.slots.total > 0) add("slots", stats.slots);
  }
  Json pipeline = Json(Json::Object());
  pipeline.Set("steps_in_flight", Json(stats.steps_in_flight));
  cluster.Set("pipeline", std::move(pipeline));
  return cluster;
}

Json Serving::DescribeRequests() const {
  const std::lock_guard lock(published_mutex_);
  return requests_;
}

std::string Serving::fingerprint() const {
  const std::lock_guard lock(published_mutex_);
  return fingerprint_;
}

}  // namespace neurogrid
