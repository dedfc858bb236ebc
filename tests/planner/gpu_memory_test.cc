// What the planner makes of GPUs: bytes as they lie there, and weights that stay on the host.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "coordinator/plan_cost.h"
#include "coordinator/plan_facts.h"
#include "coordinator/planner.h"
#include "tests/planner/reported_gpu.h"

namespace neurogrid {
namespace {

/// Of three layers of 100 MB, of which a GPU makes 120.
ModelFacts Model() {
  ModelFacts model;
  model.name = "tiny";
  model.precision = "bf16";
  for (int l = 0; l < 3; ++l) model.layers.push_back({100'000'000, 50'000'000, 1024, 0});
  model.embedding_bytes = model.head_bytes = 10'000'000;
  model.head_parameters = 5'000'000;
  model.attention_width = 64;
  model.row_bytes = 168;
  model.workspace_bytes = 1'000'000;
  ModelFacts gpu = model;
  for (LayerFacts& layer : gpu.layers) layer.weight_bytes = 120'000'000;
  gpu.workspace_bytes = 30'000'000;
  model.on_gpu.push_back(gpu);
  return model;
}

NodeFacts Gpu(const char* id, int64_t budget_bytes) {
  NodeFacts node = {id, budget_bytes, 1e12, 1e14, 250'000, true, true};
  node.is_gpu = true;
  return node;
}

const WorkloadConfig kOne = {"latency", 1, 100, 60};  // ten pages
constexpr int64_t kPages = int64_t{10} * 16 * 3 * 1024;
constexpr int64_t kOnGpu = 3 * 120'000'000 + 2 * 10'000'000 + 30'000'000 + kPages;

TEST_CASE("a GPU is planned with the bytes that a GPU takes", "[planner][gpu]") {
  const auto fits = PlanStages(Model(), {Gpu("a", kOnGpu)}, {}, kOne, {});
  REQUIRE(fits.ok());
  CHECK(fits->stages.at(0).fixed_bytes == kOnGpu - kPages);
  CHECK(fits->pages == 10);
  const auto short_of = PlanStages(Model(), {Gpu("a", kOnGpu - 1)}, {}, kOne, {});
  CHECK(absl::StrContains(short_of.status().message(), "weights 0.38 + workspace 0.03"));

  NodeFacts processor = Gpu("a", kOnGpu);
  processor.is_gpu = false;
  const auto on_processor = PlanStages(Model(), {processor}, {}, kOne, {});
  REQUIRE(on_processor.ok());
  CHECK(on_processor->stages.at(0).fixed_bytes == 3 * 100'000'000 + 2 * 10'000'000 + 1'000'000);
}

TEST_CASE("weights that stay on the host cost the time to read them there", "[planner][gpu]") {
  NodeFacts node = Gpu("a", kOnGpu);
  const double whole_ms =
      1e3 / PlanStages(Model(), {node}, {}, kOne, {})->single_stream_tokens_per_s;
  // 100 MB of it are the host's, at 50 GB/s: 2 ms in place of 0.1.
  node.slow_bytes = 100'000'000;
  node.slow_bandwidth = 50e9;
  const auto plan = PlanStages(Model(), {node}, {}, kOne, {});
  REQUIRE(plan.ok());
  CHECK_THAT(1e3 / plan->single_stream_tokens_per_s,
             Catch::Matchers::WithinAbs(whole_ms + 1.9, 0.001));
  // Where there is room before them they stay unused.
  node.budget_bytes += 100'000'000;
  CHECK_THAT(1e3 / PlanStages(Model(), {node}, {}, kOne, {})->single_stream_tokens_per_s,
             Catch::Matchers::WithinAbs(whole_ms, 0.001));
}

TEST_CASE("a second GPU is used before memory of the host is", "[planner][gpu]") {
  NodeFacts node = Gpu("a", kOnGpu);
  node.slow_bytes = 200'000'000;
  node.slow_bandwidth = 50e9;
  const auto plan = PlanStages(Model(), {node, Gpu("b", kOnGpu / 2)}, {}, kOne, {});
  REQUIRE(plan.ok());
  CHECK(plan->stages.size() == 2);
}

TEST_CASE("a limit on a node's memory takes the host's part first", "[planner][gpu]") {
  NodeFacts node = Gpu("a", kOnGpu + 100'000'000);
  node.slow_bytes = 100'000'000;
  node.slow_bandwidth = 1e6;  // any byte of it would be felt
  Placement placement;
  placement.nodes["a"].memory_limit_gb = kOnGpu / 1e9;
  const auto plan = PlanStages(Model(), {node}, {}, kOne, placement);
  REQUIRE(plan.ok());
  CHECK(plan->single_stream_tokens_per_s > 100);
}

TEST_CASE("a stand-in for a node's memory may exceed the device's only where memory is managed",
          "[planner][gpu]") {
  ReportedNode node = ReportedGpu();
  Config config;
  config.peer_vram_gb["a"] = 16;
  const auto refused = FactsOf({node}, config);
  CHECK(absl::StrContains(refused.status().message(), "peer_vram_gb gives node a 16000000000"));
  config.managed_memory = true;
  const auto facts = FactsOf({node}, config);
  REQUIRE(facts.ok());
  CHECK(facts->at(0).is_gpu);
  CHECK(facts->at(0).budget_bytes == 16'000'000'000 - (int64_t{512} << 20));
}

TEST_CASE("8-bit activations are refused where a node computes on a GPU, by name",
          "[planner][gpu]") {
  const auto [rounds, instead] =
      GENERATE(table<std::string, std::string>({{"int8-a8", "int8"}, {"blocks-a8", "auto"}}));
  ReportedNode node = ReportedGpu();
  Config config;
  config.quantization = rounds;
  CHECK(FactsOf({node}, config).status() ==
        absl::InvalidArgumentError(absl::StrCat("node a computes on cuda:0, but --quantization ",
                                                rounds, " is for processors alone; ", instead,
                                                " runs on every device")));
  config.quantization = instead;
  CHECK(FactsOf({node}, config).ok());
  config.quantization = rounds;
  node.device_kind = "cpu";
  CHECK(FactsOf({node}, config).ok());
}

TEST_CASE("the host's memory behind a GPU is the slow end of its budget", "[planner][gpu]") {
  ReportedNode node = ReportedGpu();
  node.memory_total_bytes = node.memory_free_bytes = int64_t{24} << 30;
  node.host_memory_bytes = int64_t{16} << 30;
  node.host_bandwidth = 5e10;
  auto facts = FactsOf({node}, Config());
  REQUIRE(facts.ok());
  CHECK(facts->at(0).slow_bytes == int64_t{16} << 30);
  CHECK(facts->at(0).slow_bandwidth == 5e10);
  CHECK(facts->at(0).budget_bytes == (int64_t{24} << 30) - (int64_t{512} << 20));

  ReportedNode other = node;  // on the same host
  other.id = "b";
  other.device_kind = "cuda:1";
  facts = FactsOf({node, other}, Config());
  REQUIRE(facts.ok());
  CHECK(facts->at(1).slow_bytes == int64_t{8} << 30);
  CHECK(facts->at(1).budget_bytes == (int64_t{16} << 30) - (int64_t{512} << 20));
}

}  // namespace
}  // namespace neurogrid
