#include "worker/stage_runner.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

uint32_t MicrosecondsBetween(StageRunner::Clock::time_point from,
                             StageRunner::Clock::time_point to) {
  const auto count = std::chrono::duration_cast<std::chrono::microseconds>(to - from).count();
  return static_cast<uint32_t>(std::clamp<int64_t>(count, 0, UINT32_MAX));
}

}  // namespace

StageRunner::StageRunner(std::string name, StageSource* source,
                         std::function<void(const absl::Status&)> on_broken, bool polls)
    : name_(std::move(name)),
      source_(source),
      on_broken_(std::move(on_broken)),
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
      RunStep(std::move(*step));
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

void StageRunner::RunStep(Step step) {
  if (step.epoch != epoch_ || sink_ == nullptr ||
      Clock::now().time_since_epoch().count() > fence_) {
    ++dropped_;
    return;
  }
  const Clock::time_point start = Clock::now();
  absl::Status ran;
  if (step.status.ok()) step.status = ran = RunStage(step);
  const bool broke = !ran.ok() && !source_->Health().ok();
  if (broke) {  // no fault of the requests in it: all others hear the same once the worker has left
    step.status = absl::UnavailableError("worker_lost: a worker's device broke while it answered");
  }
  if (!step.status.ok()) {
    step.activations.clear();
    step.batch = Batch();
  }
  const Clock::time_point end = Clock::now();
  step.times.push_back({.queue_us = MicrosecondsBetween(step.arrived, start),
                        .compute_us = MicrosecondsBetween(start, end)});
  last_step_ = step.number;
  sink_(std::move(step));
  if (broke) on_broken_(ran);
}

absl::Status StageRunner::RunStage(Step& step) {
  const StageOptions& options = loaded_.stage->options();
  ConstTensor input;
  if (options.layers.first > 0) {
    input = ConstTensor(step.activations.data(), loaded_.stage->activation_dtype(),
                        Shape({step.batch.rows(), loaded_.hidden_size}));
  }
  absl::StatusOr<Stage::Output> output = loaded_.stage->Run(step.batch, input);
  if (!output.ok()) {
    return absl::Status(output.status().code(),
                        absl::StrCat("stage ", name_, " ", options.layers.ToString(), ": ",
                                     output.status().message()));
  }
  if (options.layers.last == loaded_.layers_count) {
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
