// Placement by hand, and the properties that every plan has.
#include "coordinator/planner.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <string>
#include <vector>

#include "common/rng.h"
#include "coordinator/plan_facts.h"

namespace neurogrid {
namespace {

ModelFacts TinyModel(int layers) {
  ModelFacts model;
  model.name = "tiny";
  model.precision = "bf16";
  for (int l = 0; l < layers; ++l) model.layers.push_back({1'000'000, 500'000, 256, 0});
  model.embedding_bytes = 2'000'000;
  model.head_bytes = 2'000'000;
  model.head_parameters = 1'000'000;
  model.attention_width = 64;
  model.row_bytes = 168;
  model.workspace_bytes = 1'000'000;
  model.last_workspace_bytes = 500'000;
  return model;
}

NodeFacts Node(const char* id, int64_t megabytes, double gigabytes_per_s = 20) {
  return {id, megabytes * 1'000'000, gigabytes_per_s * 1e9, 1e11, 250'000, true, true};
}

NodeConfig Pin(int first, int last) {
  NodeConfig config;
  config.layers = {first, last};
  config.place = "F:1:1";
  return config;
}

const WorkloadConfig kWork = {"balanced", 4, 64, 64};

std::string Refusal(const std::vector<NodeFacts>& nodes, const Placement& placement) {
  return std::string(PlanStages(TinyModel(8), nodes, {}, kWork, placement).status().message());
}

TEST_CASE("pinned ranges are kept and the rest is planned around them", "[planner]") {
  Placement placement;
  placement.nodes["b"] = Pin(5, 8);
  const absl::StatusOr<Plan> plan =
      PlanStages(TinyModel(8), {Node("a", 100), Node("b", 100)}, {}, kWork, placement);
  REQUIRE(plan.ok());
  REQUIRE(plan->stages.size() == 2);
  CHECK(plan->stages[0].node == "a");
  CHECK(plan->stages[0].layers == LayerRange{0, 5});
  CHECK(plan->stages[1].node == "b");
}

TEST_CASE("use: always takes a node that gains nothing; use: never leaves one out", "[planner]") {
  const std::vector<NodeFacts> nodes = {Node("a", 100), Node("b", 100)};
  Placement placement;
  placement.nodes["a"].use = "always";
  placement.nodes["b"].use = "always";
  CHECK(PlanStages(TinyModel(8), nodes, {}, kWork, placement)->stages.size() == 2);
  placement.nodes["b"].use = "never";
  const absl::StatusOr<Plan> plan = PlanStages(TinyModel(8), nodes, {}, kWork, placement);
  REQUIRE(plan->stages.size() == 1);
  CHECK(plan->stages[0].node == "a");
}

TEST_CASE("placements that contradict themselves are refused with their lines", "[planner]") {
  const std::vector<NodeFacts> nodes = {Node("a", 100), Node("b", 100)};
  Placement placement;
  placement.nodes["a"] = Pin(0, 5);
  placement.nodes["b"] = Pin(4, 8);
  placement.nodes["b"].place = "F:2:1";
  CHECK(Refusal(nodes, placement) == "F:2:1: layers [4,8) overlap [0,5) of F:1:1");
  placement.nodes["b"] = Pin(5, 9);
  CHECK(Refusal(nodes, placement) ==
        "F:1:1: nodes.b.layers is [5,9) but the model has layers [0,8)");
  placement.nodes["b"] = Pin(6, 8);
  placement.options.lock = true;
  CHECK(Refusal(nodes, placement) == "planner.lock is set but no node is pinned to layers [5,6)");
  placement = Placement();
  placement.nodes["c"] = Pin(0, 1);
  CHECK(Refusal(nodes, placement) == "F:1:1: node c is pinned but has not joined; here are: a, b");
  CHECK(Refusal({}, Placement()) ==
        "no node may be used: no worker has joined and the coordinator has no device of its own");
}

TEST_CASE("layers that pins leave to nobody are named", "[planner]") {
  const std::vector<NodeFacts> nodes = {Node("a", 100), Node("b", 100)};
  Placement placement;
  placement.nodes["a"] = Pin(0, 5);
  CHECK(Refusal({Node("a", 100)}, placement) ==
        "F:1:1: layers [5,8) are pinned to no node, and no node here is left for them");
  placement.nodes["a"] = Pin(2, 5);
  CHECK(Refusal(nodes, placement) ==
        "F:1:1: layers [0,2) and [5,8) are pinned to no node, and only 1 node here is left for "
        "them");
  placement.nodes["a"] = Pin(2, 8);
  CHECK(PlanStages(TinyModel(8), nodes, {}, kWork, placement).ok());
  placement.nodes["b"].use = "never";
  CHECK(Refusal(nodes, placement) ==
        "F:1:1: layers [0,2) are pinned to no node, and no node here is left for them");
  placement.nodes["b"] = Pin(0, 2);
  placement.nodes["b"].use = "spare";
  CHECK(Refusal(nodes, placement) ==
        "F:1:1: layers [0,2) are pinned to no node, and no node here is left for them");
  placement = Placement();
  placement.nodes["a"].use = "never";
  placement.nodes["b"].use = "spare";
  CHECK(Refusal(nodes, placement) ==
        "no node may be used: a, b are here, set to use: never or use: spare");
}

TEST_CASE("a slow node is left out", "[planner]") {
  const absl::StatusOr<Plan> plan =
      PlanStages(TinyModel(8), {Node("slow", 100, 0.1), Node("fast", 100, 50)}, {}, kWork, {});
  REQUIRE(plan->stages.size() == 1);
  CHECK(plan->stages[0].node == "fast");
}

TEST_CASE("every plan is contiguous, fits, and is the same for the same input", "[planner]") {
  const uint64_t seed = GENERATE(Catch::Generators::range<uint64_t>(0, 40));
  CAPTURE(seed);
  uint64_t state = seed;
  const auto draw = [&](uint64_t below) { return (state = SplitMix64(state)) % below; };
  const ModelFacts model = TinyModel(2 + static_cast<int>(draw(10)));
  std::vector<NodeFacts> nodes;
  const char* ids[] = {"a", "b", "c", "d"};
  for (uint64_t n = 0; n <= draw(4); ++n) {
    nodes.push_back(
        Node(ids[n], 4 + static_cast<int64_t>(draw(12)), 1.0 + static_cast<double>(draw(50))));
  }
  const absl::StatusOr<Plan> plan = PlanStages(model, nodes, {}, kWork, {});
  if (!plan.ok()) {
    CHECK(plan.status().message().find("does not fit") != absl::string_view::npos);
    return;
  }
  int next = 0;
  for (const PlannedStage& stage : plan->stages) {
    CHECK(stage.layers.first == next);
    CHECK(stage.layers.count() > 0);
    next = stage.layers.last;
    CHECK(stage.fixed_bytes + plan->pages * stage.page_bytes <= stage.budget_bytes);
  }
  CHECK(next == static_cast<int>(model.layers.size()));
  CHECK(plan->pages >= 4 * 8);
  CHECK(PlanStages(model, nodes, {}, kWork, {})->explanation == plan->explanation);
}

TEST_CASE("nodes of one device share its memory, and other devices of the host do not",
          "[planner]") {
  const auto node = [](const char* id, const char* host, const char* device,
                       const char* uuid = "") {
    return ReportedNode{.id = id,
                        .host_id = host,
                        .device_kind = device,
                        .device_uuid = uuid,
                        .memory_total_bytes = 40'000'000'000,
                        .memory_free_bytes = 30'000'000'000,
                        .read_bandwidth = 1e11,
                        .matmul_rate = 1e12};
  };
  const int64_t of_gpu = 30'000'000'000 - 40'000'000'000 / 50;
  const int64_t of_cpu = 30'000'000'000 - 40'000'000'000 / 10;
  const std::vector<NodeFacts> facts =
      FactsOf({node("a", "one", "cuda:0"), node("b", "one", "cuda:0"), node("c", "one", "cuda:1"),
               node("d", "two", "cuda:0"), node("e", "one", "cpu"), node("f", "one", "cpu"),
               node("g", "two", "cpu"), node("h", "two", "cuda:1", "GPU-1"),
               node("i", "three", "cuda:0", "GPU-1"), node("j", "three", "cuda:0", "GPU-2")},
              Config())
          .value();
  std::vector<int64_t> budgets;
  for (const NodeFacts& entry : facts) budgets.push_back(entry.budget_bytes);
  CHECK(budgets == std::vector<int64_t>{of_gpu / 2, of_gpu / 2, of_gpu, of_gpu, of_cpu / 2,
                                        of_cpu / 2, of_cpu, of_gpu / 2, of_gpu / 2, of_gpu});
}

}  // namespace
}  // namespace neurogrid
