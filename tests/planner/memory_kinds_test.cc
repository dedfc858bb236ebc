// What the planner makes of layers with a window and of recurrent states: bytes, pools, words.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "absl/strings/match.h"
#include "common/rng.h"
#include "coordinator/plan_cost.h"
#include "coordinator/plan_step.h"
#include "coordinator/planner.h"
#include "coordinator/pool_sizes.h"
#include "engine/model/checkpoint.h"
#include "engine/model/stage_memory.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

/// `windowed` of every `period` layers see 1024 tokens, the others all.
ModelFacts Model(int layers, int windowed, int period) {
  ModelFacts model;
  model.name = "tiny";
  model.precision = "bf16";
  model.window = windowed > 0 ? 1024 : 0;
  for (int l = 0; l < layers; ++l) {
    LayerFacts layer = {1'000'000, 500'000, 1024, 0};
    if (l % period < windowed) layer.window = model.window;
    model.layers.push_back(layer);
  }
  model.embedding_bytes = model.head_bytes = 2'000'000;
  model.head_parameters = 1'000'000;
  model.attention_width = 64;
  model.row_bytes = 168;
  model.workspace_bytes = 1'000'000;
  model.last_workspace_bytes = 500'000;
  return model;
}

NodeFacts Node(int64_t megabytes) {
  return {"a", megabytes * 1'000'000, 20e9, 1e11, 250'000, true, true};
}

const WorkloadConfig kLong = {"balanced", 4, 7000, 1000};  // 500 pages each, 97 + 1 of a window

TEST_CASE("the largest cache within a bound is that, whatever the layers", "[planner][windows]") {
  for (uint64_t seed = 0; seed < 200; ++seed) {
    CAPTURE(seed);
    const uint64_t dice = SplitMix64(seed);
    const int period = 1 + static_cast<int>(dice % 6);
    const ModelFacts model = Model(6, static_cast<int>(dice / 8 % (period + 1)), period);
    const WorkloadConfig work = {"balanced", 2, 1 + static_cast<int>(dice / 64 % 9000), 100};
    const LayerRange layers = {static_cast<int>(dice / 7 % 3), 6};
    const auto bytes = static_cast<int64_t>(dice / 1024 % 1'000'000'000);
    const int64_t pages = PagesWithin(model, work, layers, bytes).value();
    REQUIRE(StageCacheBytes(model, work, layers, pages) <= bytes);
    REQUIRE(StageCacheBytes(model, work, layers, pages + 1) > bytes);
  }
  CHECK(PagesWithin(Model(2, 1, 2), kLong, {0, 2}, -5) == 0);
}

TEST_CASE("window pages stand beside the others as a sequence of the workload fills both",
          "[planner][windows]") {
  const ModelFacts model = Model(6, 5, 6);
  CHECK(WindowPagesBeside(model, kLong, 500) == 97);  // (1024 + 512) / 16 + 1
  CHECK(WindowPagesBeside(model, kLong, 4 * 500) == 4 * 97);
  CHECK(WindowPagesBeside(model, kLong, 1) == 1);
  CHECK(WindowPagesBeside(model, {"balanced", 4, 100, 60}, 10) == 10);  // shorter than the window
  CHECK(WindowPagesBeside(Model(6, 0, 6), kLong, 500) == 0);
  CHECK(StageCacheBytes(model, kLong, {0, 6}, 500) == 16 * 1024 * (500 + 5 * 97));
}

TEST_CASE("windows make room for more sequences, and the plan says what it counted",
          "[planner][windows]") {
  const int64_t megabytes = 120;
  const auto full = PlanStages(Model(6, 0, 6), {Node(megabytes)}, {}, kLong, {});
  CHECK(absl::StrContains(full.status().message(), "does not fit"));
  const auto plan = PlanStages(Model(6, 5, 6), {Node(megabytes)}, {}, kLong, {});
  REQUIRE(plan.ok());
  CHECK(plan->pages >= 4 * 500);
  CHECK(plan->window_pages == WindowPagesBeside(Model(6, 5, 6), kLong, plan->pages));
  const PlannedStage& stage = plan->stages.at(0);
  CHECK(stage.fixed_bytes + plan->pages * stage.page_bytes +
            plan->window_pages * stage.window_page_bytes <=
        stage.budget_bytes);
  CHECK(absl::StrContains(plan->explanation,
                          "KV 1,024 B/token, and 5,120 for each of the last 1,024"));
  CHECK(absl::StrContains(plan->explanation, "where they see 1024 tokens"));
}

TEST_CASE("pools hold what the workload and the longest sequence need, twice", "[planner]") {
  Config config;
  config.workload = kLong;
  config.max_seq_len = 4096;
  BatchLimits limits;
  Plan plan;
  plan.pages = 1'000'000;
  SetPages(plan, Model(6, 5, 6), config, limits);
  CHECK(limits.pages == 2 * 4 * 500);
  CHECK(limits.window_pages == 2 * 4 * 97);
  SetPages(plan, Model(6, 6, 6), config, limits);
  CHECK(limits.pages == 0);  // every layer has a window
  CHECK(limits.window_pages == 2 * 4 * 97);
  plan.pages = 1000;
  SetPages(plan, Model(6, 0, 6), config, limits);
  CHECK(limits.pages == 1000);
  CHECK(limits.window_pages == 0);
}

TEST_CASE("slots are one for each running sequence, and at least as many saved states",
          "[planner][slots]") {
  const auto llama = Checkpoint::Open(Golden("tiny/llama")).value();
  CHECK(SlotsFor(llama->config(), Precision::kBf16, 256) == 0);
  const auto lfm2 = Checkpoint::Open(Golden("tiny/lfm2")).value();
  CHECK(SlotsFor(lfm2->config(), Precision::kBf16, 256) == 512);
  CHECK(SlotsFor(lfm2->config(), Precision::kF32, 1) == 1 + [&] {
    const ModelMemory memory = MemoryOf(lfm2->config(), Precision::kF32);
    const LayerRange all = {0, lfm2->config().layers_count()};
    return std::max<int64_t>(1, StageWeightBytes(memory, all) / 50 / StateBytes(memory, all));
  }());
}

TEST_CASE("however short the context, a stage takes as many rows as a step is planned with",
          "[planner]") {
  const auto lfm2 = Checkpoint::Open(Golden("tiny/lfm2")).value();
  Config config;
  config.max_seq_len = GENERATE(16, 31, 32, 4096);
  CAPTURE(config.max_seq_len);
  const BatchLimits limits = LimitsFor(lfm2->config(), config, Precision::kBf16, 256);
  CHECK(limits.rows_max >= kStepRowsMin);
  CHECK(limits.samples_max >= kStepRowsMin);
  CHECK(limits.positions_max <= config.max_seq_len);
}

TEST_CASE("states are part of what a stage needs whatever its pages", "[planner][slots]") {
  ModelFacts model = Model(2, 0, 1);
  model.layers[0].state_bytes_per_slot = 10'000;
  model.layers[0].kv_bytes_per_token = 0;
  const int64_t without = StageFixedBytes(model, {0, 2});
  model.slots = 300;
  CHECK(StageFixedBytes(model, {0, 2}) == without + 3'000'000);
  CHECK(StageFixedBytes(model, {1, 2}) == StageFixedBytes(Model(2, 0, 1), {1, 2}));
  const auto plan = PlanStages(model, {Node(400)}, {}, {"balanced", 4, 64, 64}, {});
  REQUIRE(plan.ok());
  CHECK(absl::StrContains(plan->explanation, "fixed has 300 recurrent states, 0.00 GB"));
  const auto none = PlanStages(model, {Node(7)}, {}, {"balanced", 4, 64, 64}, {});
  CHECK(absl::StrContains(none.status().message(), "+ states 0.00"));
}

}  // namespace
}  // namespace neurogrid
