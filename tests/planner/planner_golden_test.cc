// The worked examples of the planner: cuts exact, figures within 2 %.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_floating_point.hpp>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/planner.h"

namespace neurogrid {
namespace {

using Catch::Matchers::WithinRel;

constexpr double kFigure = 0.02;
constexpr int64_t kMiB = 1 << 20;

/// Budget: the driver's total less context and modules, less max(512 MiB, 2 %).
NodeFacts Card(const char* id, int64_t total_mib, double gigabytes_per_s, double teraflops) {
  NodeFacts node;
  node.id = id;
  const double reserve = std::max(512.0, 0.02 * static_cast<double>(total_mib));
  node.budget_bytes = static_cast<int64_t>((static_cast<double>(total_mib - 640) - reserve) * kMiB);
  node.read_bandwidth = gigabytes_per_s * 1e9;
  node.matmul_rate = teraflops * 1e12;
  return node;
}

NodeFacts Gh200() {
  NodeFacts node = Card("gh200", 97'871, 3000, 500);
  node.with_coordinator = true;
  return node;
}
NodeFacts Rtx4090(const char* id = "rtx4090") { return Card(id, 24'564, 756, 120); }
NodeFacts Rtx2080() { return Card("rtx2080ti", 11'264, 462, 9); }
NodeFacts Rtx3060(const char* id) { return Card(id, 12'288, 270, 22); }

ModelFacts Model(const char* name, int layers, int64_t layer_bytes, int64_t kv, int64_t embedding,
                 int64_t hidden, int64_t attention_width) {
  ModelFacts model;
  model.name = name;
  model.precision = "bf16";
  for (int l = 0; l < layers; ++l) model.layers.push_back({layer_bytes, layer_bytes / 2, kv, 0});
  model.embedding_bytes = embedding;
  model.head_bytes = embedding + 2 * hidden;
  model.head_parameters = embedding / 2;
  model.attention_width = attention_width;
  model.row_bytes = 2 * hidden + 40;
  model.workspace_bytes = 256 * kMiB;
  return model;
}
ModelFacts Nemo() {
  return Model("mistral-nemo", 40, 545'280'000, 4096, 1'342'177'280, 5120, 4096);
}
ModelFacts Llama13() {
  return Model("llama-2-13b", 40, 634'408'960, 20'480, 327'680'000, 5120, 5120);
}
ModelFacts Llama8() {
  return Model("llama-3.1-8b", 32, 436'224'000, 4096, 1'050'673'152, 4096, 4096);
}

WorkloadConfig Work(const char* profile, int streams, int prompt, int output) {
  return {profile, streams, prompt, output};
}

std::string Message(const absl::StatusOr<Plan>& plan) {
  return std::string(plan.status().message());
}

struct Expected {
  std::vector<std::pair<std::string, LayerRange>> stages;
  int groups = 0;  // 0: not stated
  double one = 0;  // tok/s
  double all = 0;  // tok/s
  int64_t kv_tokens = 0;
};

Plan CheckPlan(const ModelFacts& model, const std::vector<NodeFacts>& nodes,
               const WorkloadConfig& workload, const Expected& expected) {
  const absl::StatusOr<Plan> plan = PlanStages(model, nodes, {}, workload, {});
  INFO(plan.status().message());
  REQUIRE(plan.ok());
  INFO(plan->explanation);
  std::vector<std::pair<std::string, LayerRange>> stages;
  for (const PlannedStage& stage : plan->stages) stages.emplace_back(stage.node, stage.layers);
  CHECK(stages == expected.stages);
  if (expected.groups > 0) CHECK(plan->decode_groups == expected.groups);
  if (expected.one > 0)
    CHECK_THAT(plan->single_stream_tokens_per_s, WithinRel(expected.one, kFigure));
  if (expected.all > 0) CHECK_THAT(plan->tokens_per_s, WithinRel(expected.all, kFigure));
  if (expected.kv_tokens > 0) {
    CHECK_THAT(static_cast<double>(plan->pages * 16),
               WithinRel(static_cast<double>(expected.kv_tokens), kFigure));
  }
  return *plan;
}

TEST_CASE("Nemo 12B on three unlike cards", "[planner][golden]") {
  const std::vector<NodeFacts> cards = {Gh200(), Rtx4090(), Rtx2080()};
  SECTION("1a: one stream runs on the fastest alone") {
    CheckPlan(Nemo(), cards, Work("latency", 1, 4096, 1024),
              {{{"gh200", {0, 40}}}, 0, 121, 0, 458'592});
  }
  SECTION("1b: 256 streams are worth a second card, and the cache spreads over both") {
    CheckPlan(Nemo(), cards, Work("throughput", 256, 1024, 512),
              {{{"gh200", {0, 33}}, {"rtx4090", {33, 40}}}, 2, 72, 5539, 594'048});
  }
  SECTION("1c: the small card enters when only its memory helps") {
    CheckPlan(
        Nemo(), cards, Work("throughput", 400, 1024, 512),
        {{{"rtx2080ti", {0, 1}}, {"gh200", {1, 33}}, {"rtx4090", {33, 40}}}, 2, 64, 5071, 627'008});
  }
}

TEST_CASE("Llama 2 13B on three unlike cards", "[planner][golden]") {
  const std::vector<NodeFacts> cards = {Gh200(), Rtx4090(), Rtx2080()};
  SECTION("2a: one stream runs on the fastest alone") {
    CheckPlan(Llama13(), cards, Work("latency", 1, 3072, 1024),
              {{{"gh200", {0, 40}}}, 0, 102, 0, 89'840});
  }
  SECTION("2b: 64 streams need a second card's memory; a third gains under 3 %") {
    CheckPlan(Llama13(), cards, Work("throughput", 64, 1024, 512),
              {{{"rtx4090", {0, 8}}, {"gh200", {8, 40}}}, 2, 66, 1706, 115'216});
  }
  SECTION("2c: 24 + 11 GB hold 13B") {
    CheckPlan(Llama13(), {Rtx4090(), Rtx2080()}, Work("latency", 1, 3072, 1024),
              {{{"rtx2080ti", {0, 7}}, {"rtx4090", {7, 40}}}, 0, 23, 0, 4464});
  }
  SECTION("2d: 16 streams do not fit, and the error counts") {
    const absl::StatusOr<Plan> plan =
        PlanStages(Llama13(), {Rtx4090(), Rtx2080()}, {}, Work("throughput", 16, 1024, 512), {});
    CHECK(
        Message(plan).starts_with("llama-2-13b (bf16) does not fit: short of 11.55 GB\n"
                                  "  needs 46.70 GB = "));
    CHECK(Message(plan).find("has 35.15 GB") != std::string::npos);
  }
}

TEST_CASE("Llama 3.1 8B on two equal cards", "[planner][golden]") {
  NodeFacts first = Rtx4090("a");
  first.with_coordinator = true;
  const std::vector<NodeFacts> cards = {first, Rtx4090("b")};
  SECTION("3a: one stream stays on one") {
    CheckPlan(Llama8(), cards, Work("balanced", 1, 1024, 512), {{{"a", {0, 32}}}, 0, 49, 0, 0});
  }
  SECTION("3a: 32 streams take both") {
    CheckPlan(Llama8(), cards, Work("balanced", 32, 1024, 512),
              {{{"a", {0, 17}}, {"b", {17, 32}}}, 2, 48, 1145, 227'104});
  }
  SECTION("3a: 128 streams cut in the middle") {
    CheckPlan(Llama8(), cards, Work("balanced", 128, 1024, 512),
              {{{"a", {0, 16}}, {"b", {16, 32}}}, 0, 0, 2481, 0});
  }
}

TEST_CASE("Nemo 12B on two equal cards", "[planner][golden]") {
  NodeFacts first = Rtx4090("a");
  first.with_coordinator = true;
  const std::vector<NodeFacts> cards = {first, Rtx4090("b")};
  SECTION("3b: below the knee one decode group is best") {
    CheckPlan(Nemo(), cards, Work("balanced", 64, 1024, 512),
              {{{"a", {0, 20}}, {"b", {20, 40}}}, 1, 31, 1261, 146'880});
  }
  SECTION("3b: one card is short of 1.05 GB") {
    const absl::StatusOr<Plan> plan =
        PlanStages(Nemo(), {first}, {}, Work("latency", 1, 4096, 1024), {});
    CHECK(
        Message(plan).starts_with("mistral-nemo (bf16) does not fit: short of 1.05 GB\n"
                                  "  needs 25.60 GB = "));
  }
}

/// Nemo with int8 layers (one scale of 4 bytes an output row), embedding and head in bf16.
ModelFacts NemoInt8() {
  ModelFacts model = Nemo();
  model.precision = "int8";
  for (LayerFacts& layer : model.layers) layer.weight_bytes = 545'280'000 / 2 + 45'056 * 4;
  return model;
}

TEST_CASE("4: two 12 GB cards are short for Nemo in bf16, and the error says what helps",
          "[planner][golden]") {
  const std::vector<NodeFacts> cards = {Rtx3060("rtx3060-a"), Rtx3060("rtx3060-b")};
  const WorkloadConfig work = Work("latency", 1, 3072, 1024);
  ModelFacts nemo = Nemo();
  nemo.smaller.push_back(NemoInt8());
  const absl::StatusOr<Plan> plan = PlanStages(nemo, cards, {}, work, {});
  const std::string message = Message(plan);
  CHECK(message.starts_with(
      "mistral-nemo (bf16) does not fit: short of 2.35 GB\n"
      "  needs 25.70 GB = weights 24.50 + workspace 0.54 (2 stages) + KV 0.67 (1 x 4096 tokens);  "
      "has 23.35 GB = rtx3060-a 11.68 + rtx3060-b 11.68\n"
      "  fits with: --quantization int8 (weights 13.60 GB, room for 56,"));
  CHECK(
      message.ends_with(" tokens), or one more node with a budget of 3.64 GB (6 layers)\n"
                        "  does not help: a shorter context (weights and workspace alone are short "
                        "of 1.68 GB)"));
  CheckPlan(NemoInt8(), cards, work,
            {{{"rtx3060-a", {0, 20}}, {"rtx3060-b", {20, 40}}}, 0, 20.5, 0, 56'256});
}

}  // namespace
}  // namespace neurogrid
