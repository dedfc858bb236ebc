// The one thread that owns a stage: loads it, runs its steps in order, hands on what comes out.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <variant>

#include "common/polling.h"
#include "common/status.h"
#include "proto/wire.h"
#include "worker/stage_source.h"

namespace neurogrid {

class StageRunner {
 public:
  using Clock = std::chrono::steady_clock;
  using Sink = std::function<void(Step)>;

  struct Loaded {
    StageMemory memory;
    std::string determinism_class;
    DType activation_dtype = DType::kBF16;
    int hidden_size = 0;
    int layers_count = 0;
    uint32_t load_ms = 0;
  };

  /// `name` stands in error messages. `source` must outlive the runner. `on_broken` hears, on the
  /// runner's thread, the error after which the device answers no more, once that error has gone
  /// its usual way. With `polls` cores are free to wait for steps on, see Polling.
  StageRunner(std::string name, StageSource* source,
              std::function<void(const absl::Status&)> on_broken, bool polls = false);
  /// Finishes the task at hand, drops the rest.
  ~StageRunner();

  /// Loads a stage in place of the one held, or keeps that one when nothing differs. `done` runs on
  /// the runner's thread; `progress` too, several times a second.
  void Load(StageRequest request, Stage::Progress progress,
            std::function<void(const absl::StatusOr<Loaded>&)> done);
  /// From now on steps of `epoch` run and go to `sink`. `prepare` runs first, on the runner's
  /// thread; where it fails nothing is activated. `done` hears the result.
  void Activate(uint64_t epoch, std::function<absl::StatusOr<Sink>()> prepare,
                std::function<void(const absl::Status&)> done);
  /// Drops the sink and every queued step; the stage stays in memory. Returns at once.
  void Deactivate();

  /// False when the queue is full.
  bool Enqueue(Step step);
  /// No step starts after this moment, by the worker's own clock.
  void SetFence(Clock::time_point fence) { fence_ = fence.time_since_epoch().count(); }

  uint64_t last_step() const { return last_step_; }
  size_t queued() const;
  /// Steps dropped since they were of another epoch or came after the fence.
  uint64_t dropped() const { return dropped_; }

 private:
  using Task = std::function<void()>;
  void Post(Task task);
  void Loop();
  /// A step that the stage has, or that it refused.
  struct Started {
    Step step;
    Clock::time_point start;
    absl::Status ran;
    bool queued = false;
  };
  void RunSteps(Step first);
  bool MoreComes();
  std::optional<Step> TakeAhead();
  void Start(Step step, std::deque<Started>& started);
  void Finish(Started started);
  absl::Status QueueStep(const Step& step);
  absl::Status CollectStep(Step& step);
  absl::Status Named(const absl::Status& status) const;
  bool whole() const;
  absl::StatusOr<Loaded> LoadNow(const StageRequest& request, const Stage::Progress& progress);

  std::string name_;
  StageSource* source_;
  std::function<void(const absl::Status&)> on_broken_;
  LoadedStage loaded_;                   // of the thread, as all up to fence_
  std::optional<StageRequest> request_;  // what loaded_ was loaded for
  Sink sink_;
  uint64_t epoch_ = 0;  // 0: none active
  Clock::time_point last_end_;
  bool follows_ = false;  // the step started last takes its tokens from the one before

  std::atomic<Clock::rep> fence_ = Clock::time_point::max().time_since_epoch().count();
  std::atomic<uint64_t> last_step_ = 0;
  std::atomic<uint64_t> dropped_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::variant<Step, Task>> queue_;
  std::atomic<bool> due_ = false;  // something is queued, or the end has come
  const bool polls_;
  Polling polling_;  // of the thread
  bool stopping_ = false;
  std::thread thread_;
};

}  // namespace neurogrid
