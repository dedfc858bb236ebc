// Steps priced by what a device measured of decoding, and the coordinator's own part of a token.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <utility>

#include "coordinator/plan_cost.h"
#include "coordinator/plan_facts.h"
#include "tests/planner/reported_gpu.h"

namespace neurogrid {
namespace {

using Catch::Matchers::WithinRel;

ModelFacts TwoLayers() {
  ModelFacts model;
  model.layers = {{1'000'000, 500'000, 0, 0}, {1'000'000, 500'000, 0, 0}};
  model.workspace_bytes = 1'000'000;
  model.row_bytes = 100;
  return model;
}

NodeFacts Slow() {
  NodeFacts node;
  node.id = "slow";
  node.budget_bytes = 1'000'000'000;
  node.read_bandwidth = 1e9;
  node.matmul_rate = 1e12;
  node.with_coordinator = true;
  return node;
}

constexpr int64_t kLayerNs{1'000'000};  // a million bytes at 1 GB/s

TEST_CASE("a layer's own cost and its further rows add to reading it", "[planner]") {
  NodeFacts node = Slow();
  node.layer_overhead_ns = 1000;
  node.row_rate = 1e11;  // 2 * 500,000 operations take 10 us
  const ModelFacts model = TwoLayers();
  const NodeCost cost(model, node, {"balanced", 4, 64, 64});
  CHECK(cost.StepPrefixNs(1)[2] == 2 * (kLayerNs + 1000));
  CHECK(cost.StepPrefixNs(5)[2] == 2 * (kLayerNs + 1000 + 4 * 10'000));
}

TEST_CASE("where nothing more was measured a layer takes reading or arithmetic", "[planner]") {
  const ModelFacts model = TwoLayers();
  const NodeCost cost(model, Slow(), {"balanced", 4, 64, 64});
  CHECK(cost.StepPrefixNs(1)[2] == 2 * kLayerNs);
  CHECK(cost.StepPrefixNs(5)[2] == 2 * kLayerNs);
  CHECK(cost.StepPrefixNs(2000)[2] == 2 * 2 * kLayerNs);  // 2e9 operations at 1e12 a second
}

TEST_CASE("rows beyond the few that were measured cost their arithmetic", "[planner]") {
  NodeFacts node = Slow();
  node.row_rate = 1e11;
  const ModelFacts model = TwoLayers();
  const NodeCost cost(model, node, {"balanced", 4, 64, 64});
  CHECK(cost.StepPrefixNs(66)[2] == 2 * (kLayerNs + 63 * 10'000 + 2 * 1000));
}

TEST_CASE("what a GPU reports of decoding steps becomes its costs", "[planner]") {
  ReportedNode node = ReportedGpu();
  const NodeFacts plain = FactsOf({node}, {})->front();
  CHECK(plain.layer_overhead_ns == 0);
  CHECK(plain.row_rate == 0);
  node.row_rate = 2e14;
  node.op_seconds = 2e-6;
  const NodeFacts measured = FactsOf({node}, {})->front();
  CHECK(measured.layer_overhead_ns == 12'000);  // six operations
  CHECK(measured.row_rate == 2e14);
  CHECK(measured.step_overhead_ns < plain.step_overhead_ns);
}

/// LFM2.5-1.2B in bf16: ten layers with a convolution, six with attention.
ModelFacts Lfm2() {
  ModelFacts model;
  for (int l = 0; l < 16; ++l) {
    const bool attention = l % 3 == 2 || l == 15;
    const int64_t parameters = attention ? 60'817'408 : 67'108'864;
    model.layers.push_back({2 * parameters, parameters, attention ? 2048 : 0, 0});
  }
  model.head_parameters = 134'217'728;
  model.head_bytes = 2 * model.head_parameters;
  model.attention_width = 2048;
  return model;
}

/// What the device measured of itself: 1.81 us an operation, six in a layer.
NodeFacts H200() {
  NodeFacts h200 = Slow();
  h200.read_bandwidth = 4.2e12;
  h200.matmul_rate = 5.55e14;
  h200.row_rate = 2.9e14;
  h200.layer_overhead_ns = 10'860;
  h200.step_overhead_ns = 20'000;
  return h200;
}

// The engine's own steps on an H200 at a context of 128, as neurogrid-gpu-bench printed them: rows
// and ms.
TEST_CASE("decoding steps of an H200 are predicted within an eighth", "[planner]") {
  const NodeFacts h200 = H200();
  const ModelFacts model = Lfm2();
  const NodeCost cost(model, h200, {"balanced", 64, 112, 32});
  for (const auto& [rows, ms] : {std::pair{1, 0.774}, {8, 0.916}, {64, 1.159}, {256, 2.141}}) {
    CAPTURE(rows);
    const int64_t step = h200.step_overhead_ns + cost.StepPrefixNs(rows)[16] + cost.HeadNs(rows);
    CHECK_THAT(static_cast<double>(step) / 1e6, WithinRel(ms, 0.125));
  }
}

TEST_CASE("the coordinator's own work is part of every token", "[planner]") {
  const WorkloadConfig work = {"latency", 8, 64, 64};
  const auto token_ns = [&](const LinkFacts& link) {
    ModelFacts model = TwoLayers();
    for (LayerFacts& layer : model.layers) layer.kv_bytes_per_token = 256;
    const absl::StatusOr<Plan> plan = PlanStages(model, {{Slow()}}, link, work, {});
    REQUIRE(plan.ok());
    return std::pair{1e9 / plan->single_stream_tokens_per_s, 8e9 / plan->tokens_per_s};
  };
  LinkFacts turning;
  turning.turn_ns = 100'000;
  turning.turn_row_ns = 10'000'000;  // more than the stage takes for prompts
  const auto [one, eight] = token_ns({});
  const auto [one_turning, eight_turning] = token_ns(turning);
  CHECK_THAT(one_turning - one, WithinRel(10'100'000.0, 1e-6));
  CHECK(eight_turning > 8 * 10'000'000);
}

TEST_CASE(
    "a GPU that is the whole chain hides the coordinator's work and the wire behind its steps",
    "[planner]") {
  NodeFacts gpu = Slow();
  gpu.is_gpu = true;
  gpu.with_coordinator = false;
  LinkFacts link;
  const auto token_ns = [&] {
    const absl::StatusOr<Plan> plan =
        PlanStages(TwoLayers(), {{gpu}}, link, {"latency", 8, 64, 64}, {});
    REQUIRE(plan.ok());
    return 1e9 / plan->single_stream_tokens_per_s;
  };
  const auto step = static_cast<double>(2 * kLayerNs + gpu.step_overhead_ns);
  link.turn_ns = 500'000;
  CHECK_THAT(token_ns(), WithinRel(step, 1e-6));
  link.turn_ns = 3'000'000;  // longer than the step: then it is the round
  link.hop_ns = 100'000;
  CHECK_THAT(token_ns(), WithinRel(3'200'000.0, 1e-3));
}

TEST_CASE("a chain of one stage is priced with one step in flight", "[planner]") {
  NodeFacts gpu = Slow();
  gpu.is_gpu = true;
  LinkFacts link;
  link.turn_row_ns = 1'000'000;  // the coordinator's part is longer than a step
  const absl::StatusOr<Plan> plan =
      PlanStages(TwoLayers(), {{gpu}}, link, {"throughput", 64, 64, 64}, {});
  REQUIRE(plan.ok());
  CHECK(plan->decode_groups == 1);
}

TEST_CASE("of two GPUs that can each be the whole chain the faster is taken, though over a wire",
          "[planner]") {
  NodeFacts slower = Slow();
  slower.is_gpu = true;
  slower.with_coordinator = true;
  NodeFacts faster = Slow();
  faster.id = "faster";
  faster.is_gpu = true;
  faster.with_coordinator = false;
  slower.step_overhead_ns = faster.step_overhead_ns + 50'000;
  LinkFacts link;
  link.hop_ns = 80'000;  // hidden behind the step
  const absl::StatusOr<Plan> plan =
      PlanStages(TwoLayers(), {{slower, faster}}, link, {"latency", 8, 64, 64}, {});
  REQUIRE(plan.ok());
  REQUIRE(plan->stages.size() == 1);
  CHECK(plan->stages[0].node == "faster");
}

/// SmolLM2-135M in bf16.
ModelFacts SmolLm2() {
  ModelFacts model;
  for (int l = 0; l < 30; ++l) model.layers.push_back({2 * 3'538'944, 3'538'944, 768, 0});
  model.head_parameters = 49'152 * 576;
  model.head_bytes = 2 * model.head_parameters;
  model.attention_width = 576;
  return model;
}

// A step takes the H200 some 0.4 ms whether of 32 rows or of 64, and the coordinator needs 0.7 ms
// for 64.
TEST_CASE("no second group is made to hide the coordinator's own work", "[planner]") {
  NodeFacts h200 = H200();
  h200.budget_bytes = int64_t{100} << 30;
  LinkFacts turning;
  turning.turn_ns = 60'000;
  turning.turn_row_ns = 10'000;
  const absl::StatusOr<Plan> plan =
      PlanStages(SmolLm2(), {{h200}}, turning, {"balanced", 64, 1024, 512}, {});
  REQUIRE(plan.ok());
  CHECK(plan->decode_groups == 1);
}

TEST_CASE("a model without a cache is planned too", "[planner]") {
  const absl::StatusOr<Plan> plan =
      PlanStages(TwoLayers(), {{Slow()}}, {}, {"balanced", 8, 64, 64}, {});
  REQUIRE(plan.ok());
  CHECK(plan->stages.size() == 1);
}

}  // namespace
}  // namespace neurogrid
