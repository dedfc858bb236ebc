// The scheduler over real stages: windows that free their pages and states in slots, in every way a
// request can run, give the reference's tokens.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <deque>
#include <fstream>
#include <map>
#include <sstream>

#include "common/json.h"
#include "coordinator/scheduler.h"
#include "coordinator/window_pages.h"
#include "engine/batch_check.h"
#include "engine/model/stage_memory.h"
#include "engine/stage.h"
#include "tests/engine/test_device.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

struct Reference {
  std::vector<int32_t> prompt;
  std::vector<int32_t> greedy;
};

std::vector<int32_t> Ids(const Json& list) {
  std::vector<int32_t> ids;
  for (const Json& id : list.as_array()) ids.push_back(static_cast<int32_t>(id.as_integer()));
  return ids;
}

std::vector<Reference> ReferencesOf(const std::string& name) {
  std::ostringstream text;
  text << std::ifstream(Golden(name + "/reference.json")).rdbuf();
  const Json json = ParseJson(text.str()).value();
  std::vector<Reference> references;
  for (const Json& prompt : json.Find("prompts")->as_array()) {
    references.push_back({Ids(*prompt.Find("ids")), Ids(*prompt.Find("greedy"))});
  }
  return references;
}

/// Pages and slots of the chain: enough for all, or so few that somebody must give way.
enum class Room { kEnough, kTight };

BatchLimits LimitsOf(const ModelConfig& config, Room room) {
  BatchLimits limits;
  limits.rows_max = 32;
  limits.sequences_max = 16;
  limits.samples_max = 32;
  limits.positions_max = 160;
  limits.vocab_size = config.vocab_size;
  limits.window = WidestWindow(config);
  const bool tight = room == Room::kTight;
  if (AttendsToAll(config)) limits.pages = tight ? 14 : 100;
  if (limits.window > 0) limits.window_pages = tight ? 6 : 100;
  const int64_t state = StateBytes(MemoryOf(config, Precision::kF32), {0, config.layers_count()});
  if (state > 0) limits.slots = tight ? 3 : 60;
  return limits;
}

/// A scheduler over stages that run one after the other, several steps under way.
class Served {
 public:
  Served(const std::string& name, Room room, const std::vector<int>& cuts)
      : checkpoint_(Checkpoint::Open(Golden(name)).value()),
        device_(TestDevice()),
        limits_(LimitsOf(checkpoint_->config(), room)),
        scheduler_(OptionsOf(static_cast<int>(cuts.size()) + 1)) {
    std::vector<int> bounds = cuts;
    bounds.insert(bounds.begin(), 0);
    bounds.push_back(checkpoint_->config().layers_count());
    for (size_t i = 0; i + 1 < bounds.size(); ++i) {
      const StageOptions options{
          .layers = {bounds[i], bounds[i + 1]}, .precision = Precision::kF32, .limits = limits_};
      stages_.push_back(Stage::Load(*checkpoint_, *device_, options).value());
    }
  }

  RequestId Ask(const std::vector<int32_t>& prompt, int tokens_max, int n = 1) {
    GenerationRequest asked;
    asked.prompts = {prompt};
    asked.n = n;
    asked.tokens_max = tokens_max;
    asked.sampling.temperature = 0;
    Refusal refusal;
    const std::optional<RequestId> id = scheduler_.Admit(std::move(asked), now_, &refusal);
    INFO(refusal.message);
    REQUIRE(id.has_value());
    return *id;
  }

  void Run() {
    std::deque<SchedulerStep> under_way;
    while (true) {
      while (std::optional<SchedulerStep> step = scheduler_.NextStep(now_)) {
        REQUIRE(CheckBatch(step->batch, limits_).ToString() == "OK");
        under_way.push_back(*std::move(step));
      }
      if (under_way.empty()) break;
      const auto events =
          scheduler_.Commit(under_way.front().id, RunChain(under_way.front().batch), now_);
      REQUIRE(events.status().ToString() == "OK");
      under_way.pop_front();
      for (const SchedulerEvent& event : *events) {
        REQUIRE(event.error.ToString() == "OK");
        if (event.token.has_value()) {
          tokens[{event.request, event.choice}].push_back(event.token->id);
        }
      }
    }
    CHECK(scheduler_.idle());
    const SchedulerStats stats = scheduler_.stats();
    for (const PoolStats& pool : {stats.pages, stats.window_pages, stats.slots}) {
      CHECK(pool.free + pool.cached == pool.total);
    }
  }

  SchedulerStats stats() const { return scheduler_.stats(); }
  std::map<std::pair<RequestId, int>, std::vector<int32_t>> tokens;

 private:
  SchedulerOptions OptionsOf(int stages) const {
    SchedulerOptions options;
    options.limits = limits_;
    options.stages = options.prefill_depth = stages;
    options.model_digest = checkpoint_->digest();
    return options;
  }

  std::vector<SampledToken> RunChain(const Batch& batch) {
    Stage::Output output;
    for (const std::unique_ptr<Stage>& stage : stages_) {
      output = stage->Run(batch, output.activations).value();
    }
    return std::move(output.sampled);
  }

  std::shared_ptr<const Checkpoint> checkpoint_;
  std::unique_ptr<Device> device_;
  BatchLimits limits_;
  Scheduler scheduler_;
  std::vector<std::unique_ptr<Stage>> stages_;
  SteadyTime now_;
};

struct Case {
  std::string name;
  std::vector<int> cuts;
  Room room;
};

std::vector<Case> Cases(Depth depth) {
  if (depth == Depth::kSamples) {
    return {{"tiny/gemma2", {}, Room::kTight}, {"tiny/lfm2", {1, 3}, Room::kEnough}};
  }
  std::vector<Case> cases;
  for (const char* name : {"tiny/gemma2", "tiny/gemma3", "tiny/mistral-window", "tiny/lfm2",
                           "tiny/lfm2-bias", "tiny/qwen3"}) {
    for (const auto& cuts : {std::vector<int>{}, std::vector<int>{1, 3}}) {
      for (const Room room : {Room::kEnough, Room::kTight}) cases.push_back({name, cuts, room});
    }
  }
  return cases;
}

/// Every prompt of the reference alone and cold, then all at once, some with several choices.
void CheckServed(const Case& world, size_t tokens) {
  CAPTURE(world.name, world.cuts.size(), world.room == Room::kTight);
  std::vector<Reference> references = ReferencesOf(world.name);
  REQUIRE(references.size() >= 5);
  for (Reference& reference : references) {
    REQUIRE(reference.greedy.size() >= tokens);
    reference.greedy.resize(tokens);
  }
  const auto count = static_cast<int>(tokens);
  Served served(world.name, world.room, world.cuts);
  for (const Reference& reference : references) {
    const RequestId id = served.Ask(reference.prompt, count);
    served.Run();
    CHECK(served.tokens[{id, 0}] == reference.greedy);
  }
  const int64_t hits = served.stats().prefix_hits;
  const auto choices = [](const Reference& r) { return r.prompt.size() > 40 ? 3 : 1; };
  std::vector<RequestId> ids;
  for (const Reference& reference : references) {
    ids.push_back(served.Ask(reference.prompt, count, choices(reference)));
  }
  served.Run();
  for (size_t i = 0; i < references.size(); ++i) {
    CAPTURE(references[i].prompt.size());
    for (int choice = 0; choice < choices(references[i]); ++choice) {
      CHECK(served.tokens[{ids[i], choice}] == references[i].greedy);
    }
  }
  if (world.room == Room::kTight) {
    CHECK(served.stats().preemptions > 0);
  } else {
    CHECK(served.stats().preemptions == 0);
    CHECK(served.stats().prefix_hits - hits >= 80);  // of the prompt of 96 tokens
  }
}

TEST_CASE(
    "a request gets the reference's tokens alone or among others, cold or cached, preempted "
    "or not",
    "[scheduler][families]") {
  CheckServed(GENERATE(from_range(Cases(UsualDepth()))),
              UsualDepth() == Depth::kEverything ? 32 : 6);
}

TEST_CASE("a request gets the reference's tokens in every world", "[.][long][families]") {
  if (ThisColumn() != Column::kCudaEmulated) return;  // where that is the usual
  CheckServed(GENERATE(from_range(Cases(Depth::kEverything))), 32);
}

}  // namespace
}  // namespace neurogrid
