#include "worker/stage_runner.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

/// Between two looks at the step at work, by a thread that waits for the next one.
constexpr std::chrono::microseconds kGlance{200};

uint32_t MicrosecondsBetween(StageRunner::Clock::time_point from,
                             StageRunner::Clock::time_point to) {
  const auto count = std::chrono::duration_cast<std::chrono::microseconds>(to - from).count();
  return static_cast<uint32_t>(std::clamp<int64_t>(count, 0, UINT32_MAX));
}

/// Whether it takes tokens from what the step before draws.
bool Follows(const Step& step) {
  const std::vector<int32_t>& tokens = step.batch.tokens;
  return std::any_of(tokens.begin(), tokens.end(), [](int32_t token) { return token < 0; });
}

}  // namespace

StageRunner::StageRunner(std::string name, StageSource* source,
                         std::function<void(const absl::Status&)> on_broken, bool polls)
    : name_(std::move(name)),
      source_(source),
      on_broken_(std::move(on_broken)),
      polls_(polls),
      polling_(polls),
      thread_([this] { Loop(); }) {}

StageRunner::~StageRunner() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    due_ = true;
    changed_.notify_all();
  }
  thread_.join();
}

void StageRunner::Post(Task task) {
  {
    const std::lock_guard lock(mutex_);
    queue_.emplace_back(std::move(task));
    due_ = true;
  }
  changed_.notify_one();
}

bool StageRunner::Enqueue(Step step) {
  {
    const std::lock_guard lock(mutex_);
    if (queue_.size() >= kStepsQueuedMax) return false;
    queue_.emplace_back(std::move(step));
    due_ = true;
  }
  changed_.notify_one();  // unlocked: whoever wakes shall not wait again
  return true;
}

size_t StageRunner::queued() const {
  const std::lock_guard lock(mutex_);
  return queue_.size();
}

void StageRunner::Loop() {
  while (true) {
    polling_.Wait([this] { return due_.load(); },
                  [this] {
                    std::unique_lock lock(mutex_);
                    changed_.wait(lock, [this] { return due_.load(); });
                  });
    std::unique_lock lock(mutex_);
    if (stopping_) return;
    std::variant<Step, Task> next = std::move(queue_.front());
    queue_.pop_front();
    due_ = !queue_.empty();
    lock.unlock();
    if (auto* step = std::get_if<Step>(&next)) {
      RunSteps(std::move(*step));
    } else {
      std::get<Task>(next)();
    }
  }
}

void StageRunner::Load(StageRequest request, Stage::Progress progress,
                       std::function<void(const absl::StatusOr<Loaded>&)> done) {
  Post(
      [this, request = std::move(request), progress = std::move(progress), done = std::move(done)] {
        const absl::StatusOr<Loaded> loaded = LoadNow(request, progress);
        done(loaded);
        if (!loaded.ok() && !source_->Health().ok()) on_broken_(loaded.status());
      });
}

absl::StatusOr<StageRunner::Loaded> StageRunner::LoadNow(const StageRequest& request,
                                                         const Stage::Progress& progress) {
  epoch_ = 0;
  sink_ = nullptr;
  const Clock::time_point start = Clock::now();
  if (request_ != request) {
    request_.reset();
    loaded_ = LoadedStage();  // Before the next one, so that both never have to fit.
    NG_ASSIGN_OR_RETURN(loaded_, source_->Load(request, progress));
    request_ = request;
  }
  return Loaded{.memory = loaded_.stage->memory(),
                .determinism_class = loaded_.stage->determinism_class(),
                .activation_dtype = loaded_.stage->activation_dtype(),
                .hidden_size = loaded_.hidden_size,
                .layers_count = loaded_.layers_count,
                .load_ms = MicrosecondsBetween(start, Clock::now()) / 1000};
}

void StageRunner::Activate(uint64_t epoch, std::function<absl::StatusOr<Sink>()> prepare,
                           std::function<void(const absl::Status&)> done) {
  Post([this, epoch, prepare = std::move(prepare), done = std::move(done)] {
    sink_ = nullptr;
    epoch_ = 0;
    if (loaded_.stage == nullptr) return done(absl::FailedPreconditionError("no stage is loaded"));
    absl::StatusOr<Sink> sink = prepare();
    if (sink.ok()) {
      sink_ = *std::move(sink);
      epoch_ = epoch;
      last_step_ = 0;
    }
    done(sink.status());
  });
}

void StageRunner::Deactivate() {
  const std::lock_guard lock(mutex_);
  const size_t before = queue_.size();
  std::erase_if(queue_, [](const auto& item) { return std::holds_alternative<Step>(item); });
  dropped_ += before - queue_.size();
  queue_.emplace_back([this] {
    sink_ = nullptr;
    epoch_ = 0;
  });
  due_ = true;
  changed_.notify_all();
}

/// A step and those that follow it in time. While the device works on one, the next may already be
/// sent to it: one that takes its tokens from what this one draws.
void StageRunner::RunSteps(Step first) {
  std::deque<Started> started;
  Start(std::move(first), started);
  while (!started.empty()) {
    if (started.size() < kStepsQueued && started.front().queued && whole() && MoreComes()) {
      if (std::optional<Step> next = TakeAhead()) {
        Start(*std::move(next), started);
        continue;
      }
    }
    Started oldest = std::move(started.front());
    started.pop_front();
    Finish(std::move(oldest));
  }
}

/// Whether something is queued before the step at work is done. Where cores are free both are asked
/// for without pause, for as long as a step would be waited for so. Afterwards and elsewhere the
/// thread sleeps until the step is done, but for the times when each step was the next one's
/// source: then it sleeps until the next is there, and looks up now and then.
bool StageRunner::MoreComes() {
  const Clock::time_point start = Clock::now();
  while (!due_) {
    if (loaded_.stage->Done()) return false;
    if (polls_ && Clock::now() - start <= Polling::kLongest) continue;
    if (!follows_) return false;
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kGlance, [this] { return due_.load(); });
  }
  return true;
}

std::optional<Step> StageRunner::TakeAhead() {
  const std::lock_guard lock(mutex_);
  if (queue_.empty() || stopping_) return std::nullopt;
  auto* const step = std::get_if<Step>(&queue_.front());
  if (step == nullptr || !step->status.ok() || !Follows(*step)) return std::nullopt;
  std::optional<Step> taken = std::move(*step);
  queue_.pop_front();
  due_ = !queue_.empty();
  return taken;
}

void StageRunner::Start(Step step, std::deque<Started>& started) {
  if (step.epoch != epoch_ || sink_ == nullptr ||
      Clock::now().time_since_epoch().count() > fence_) {
    ++dropped_;
    return;
  }
  follows_ = Follows(step);
  Started next{.step = std::move(step), .start = Clock::now(), .ran = {}};
  if (next.step.status.ok()) {
    next.ran = QueueStep(next.step);
    next.queued = next.ran.ok();
  }
  started.push_back(std::move(next));
}

void StageRunner::Finish(Started started) {
  Step step = std::move(started.step);
  if (started.queued) started.ran = CollectStep(step);
  if (!started.ran.ok()) step.status = started.ran;
  const bool broke = !started.ran.ok() && !source_->Health().ok();
  if (broke) {  // no fault of the requests in it: all others hear the same once the worker has left
    step.status = absl::UnavailableError("worker_lost: a worker's device broke while it answered");
  }
  if (!step.status.ok()) {
    step.activations.clear();
    step.batch = Batch();
  }
  // Of a step that waited behind another, what it took by itself.
  const Clock::time_point end = Clock::now();
  const Clock::time_point begun = std::max(started.start, last_end_);
  last_end_ = end;
  step.times.push_back({.queue_us = MicrosecondsBetween(step.arrived, begun),
                        .compute_us = MicrosecondsBetween(begun, end)});
  last_step_ = step.number;
  sink_(std::move(step));
  if (broke) on_broken_(started.ran);
}

bool StageRunner::whole() const {
  const LayerRange layers = loaded_.stage->options().layers;
  return layers.first == 0 && layers.last == loaded_.layers_count;
}

absl::Status StageRunner::Named(const absl::Status& status) const {
  if (status.ok()) return status;
  return absl::Status(status.code(),
                      absl::StrCat("stage ", name_, " ", loaded_.stage->options().layers.ToString(),
                                   ": ", status.message()));
}

absl::Status StageRunner::QueueStep(const Step& step) {
  ConstTensor input;
  if (loaded_.stage->options().layers.first > 0) {
    input = ConstTensor(step.activations.data(), loaded_.stage->activation_dtype(),
                        Shape({step.batch.rows(), loaded_.hidden_size}));
  }
  return Named(loaded_.stage->Queue(step.batch, input));
}

absl::Status StageRunner::CollectStep(Step& step) {
  absl::StatusOr<Stage::Output> output = loaded_.stage->Collect();
  NG_RETURN_IF_ERROR(Named(output.status()));
  if (loaded_.stage->options().layers.last == loaded_.layers_count) {
    step.sampled = std::move(output->sampled);
    step.activations.clear();
    step.batch = Batch();
  } else {
    step.activations.assign(static_cast<const char*>(output->activations.data),
                            static_cast<size_t>(output->activations.bytes()));
  }
  return absl::OkStatus();
}

}  // namespace neurogrid
