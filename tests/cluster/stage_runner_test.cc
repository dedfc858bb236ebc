// The thread of a stage: what it hands to the stage while that is still at work.
#include "worker/stage_runner.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <chrono>
#include <functional>
#include <future>
#include <utility>
#include <vector>

#include "common/polling.h"

namespace neurogrid {
namespace {

constexpr int kLayers = 2;

/// What a runner did, in order.
struct Calls {
  std::vector<std::string> made;
  bool broken = false;  // the next Queue fails
  int asked = 0;        // whether a step is done
  /// Runs when the last of the first steps has been at work for longer than anything is polled for,
  /// or is collected.
  std::function<void()> late;

  void Late() {
    if (late) std::exchange(late, nullptr)();
  }
};

/// Is done with its first step when it has a second one, or was asked often.
class RecordingStage : public Stage {
 public:
  RecordingStage(Calls* calls, LayerRange layers) : calls_(calls) { options_.layers = layers; }

  absl::Status Queue(const Batch& batch, ConstTensor) override {
    calls_->made.push_back("queue");
    if (calls_->broken) return absl::InternalError("broken");
    samples_.push_back(batch.samples());
    return absl::OkStatus();
  }
  absl::StatusOr<Output> Collect() override {
    calls_->made.push_back("collect");
    if (samples_.size() == 1) calls_->Late();
    Output output;
    output.activations = ConstTensor(nullptr, DType::kBF16, Shape({0, 1}));
    output.sampled.resize(static_cast<size_t>(samples_.front()));
    samples_.erase(samples_.begin());
    return output;
  }
  bool Done() override {
    if (samples_.size() == kStepsQueued) return true;
    const auto now = std::chrono::steady_clock::now();
    if (++calls_->asked == 1) alone_since_ = now;
    if (!calls_->late) return calls_->asked > 100;
    if (now - alone_since_ > 2 * Polling::kLongest) calls_->Late();
    return false;
  }

  DType activation_dtype() const override { return DType::kBF16; }
  const StageMemory& memory() const override { return memory_; }
  const StageOptions& options() const override { return options_; }
  const std::string& determinism_class() const override { return class_; }

 private:
  Calls* calls_;
  StageOptions options_;
  StageMemory memory_;
  std::string class_ = "none";
  std::vector<int> samples_;
  std::chrono::steady_clock::time_point alone_since_;
};

class RecordingSource : public StageSource {
 public:
  explicit RecordingSource(Calls* calls) : calls_(calls) {}
  absl::StatusOr<LoadedStage> Load(const StageRequest& request, const Stage::Progress&) override {
    LoadedStage loaded;
    loaded.stage = std::make_unique<RecordingStage>(calls_, request.options.layers);
    loaded.layers_count = kLayers;
    return loaded;
  }
  absl::Status Health() override { return absl::OkStatus(); }

 private:
  Calls* calls_;
};

Step StepOf(uint64_t number, int32_t token) {
  Step step;
  step.epoch = 1;
  step.number = number;
  step.batch.tokens = {token};
  step.batch.positions = {static_cast<int32_t>(number)};
  step.batch.sampled_rows = {0};
  step.batch.sampling.resize(1);
  return step;
}

/// Runs the steps, all there from the start; what came out, in order.
std::vector<Step> RunAll(Calls& calls, std::vector<Step> steps, int layers = kLayers,
                         bool polls = false, bool task_behind = false,
                         std::optional<Step> late = std::nullopt) {
  RecordingSource source(&calls);
  std::vector<Step> results;
  std::promise<void> all;
  const size_t count = steps.size() + (late ? 1 : 0);
  {
    StageRunner runner(
        "test", &source, [](const absl::Status&) {}, polls);
    if (late) calls.late = [&] { REQUIRE(runner.Enqueue(*std::move(late))); };
    StageRequest request;
    request.options.layers = {0, layers};
    runner.Load(request, nullptr, [](const auto& loaded) { REQUIRE(loaded.ok()); });
    const auto prepare = [&]() -> absl::StatusOr<StageRunner::Sink> {
      for (Step& step : steps) REQUIRE(runner.Enqueue(std::move(step)));
      if (task_behind) runner.Load(request, nullptr, [](const auto&) {});
      return [&](Step step) {
        results.push_back(std::move(step));
        if (results.size() == count) all.set_value();
      };
    };
    runner.Activate(1, prepare, [](const absl::Status& status) { REQUIRE(status.ok()); });
    all.get_future().wait();
  }
  return results;
}

using Made = std::vector<std::string>;

TEST_CASE("a step that goes on from the one at work is handed to the stage beside it",
          "[runner][threads]") {
  Calls calls;
  const std::vector<Step> results =
      RunAll(calls, {StepOf(1, 5), StepOf(2, DrawnBefore(0)), StepOf(3, DrawnBefore(0))});
  CHECK(calls.made == Made{"queue", "queue", "collect", "queue", "collect", "collect"});
  for (size_t i = 0; i < 3; ++i) {
    CHECK(results[i].number == i + 1);
    CHECK(results[i].status.ok());
    CHECK(results[i].sampled.size() == 1);
    CHECK(results[i].times.size() == 1);
  }
}

TEST_CASE("a step that goes on is waited for beside the one at work, however long that takes",
          "[runner][threads]") {
  const bool polls = GENERATE(false, true);
  Calls calls;
  RunAll(calls, {StepOf(1, 5), StepOf(2, DrawnBefore(0))}, kLayers, polls, /*task_behind=*/false,
         StepOf(3, DrawnBefore(0)));
  CHECK(calls.made == Made{"queue", "queue", "collect", "queue", "collect", "collect"});
}

TEST_CASE("any other step waits for the one at work", "[runner][threads]") {
  Calls calls;
  int layers = kLayers;
  std::vector<Step> steps;
  steps.push_back(StepOf(1, 5));
  SECTION("with tokens of its own") { steps.push_back(StepOf(2, 6)); }
  SECTION("in a stage that is not the last") {
    layers = 1;
    steps.push_back(StepOf(2, DrawnBefore(0)));
  }
  RunAll(calls, std::move(steps), layers);
  CHECK(calls.made == Made{"queue", "collect", "queue", "collect"});
}

TEST_CASE("a step that nobody follows is asked after without pause where cores are free alone",
          "[runner][threads]") {
  Calls calls;
  RunAll(calls, {StepOf(1, 5)}, kLayers, /*polls=*/false);
  CHECK(calls.asked == 1);
  calls = Calls();
  RunAll(calls, {StepOf(1, 5)}, kLayers, /*polls=*/true);
  CHECK(calls.asked > 1);
  CHECK(calls.made == Made{"queue", "collect"});
}

TEST_CASE("a step that something else waits behind is not asked after", "[runner][threads]") {
  Calls calls;
  const bool polls = GENERATE(false, true);
  RunAll(calls, {StepOf(1, 5)}, kLayers, polls, /*task_behind=*/true);
  CHECK(calls.asked == 0);
}

TEST_CASE("a step that a stage refuses is told in its turn", "[runner][threads]") {
  Calls calls;
  calls.broken = true;
  const std::vector<Step> results = RunAll(calls, {StepOf(1, 5), StepOf(2, DrawnBefore(0))});
  CHECK(calls.made == Made{"queue", "queue"});
  for (const Step& result : results) {
    CHECK(result.status.code() == absl::StatusCode::kInternal);
    CHECK(result.batch.rows() == 0);
  }
}

}  // namespace
}  // namespace neurogrid
