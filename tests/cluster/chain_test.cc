// Steps through chains of real stages: any number of them gives the tokens of one.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <chrono>
#include <thread>

#include "engine/stage.h"
#include "tests/cluster/cluster_fixture.h"

namespace neurogrid {
namespace {

/// Two sequences: a greedy one and a seeded one; the first step holds both prompts.
struct Conversation {
  explicit Conversation(int vocab_size) {
    for (int i = 0; i < 5; ++i) ids[0].push_back((37 * i + 11) % vocab_size);
    for (int i = 0; i < 9; ++i) ids[1].push_back((53 * i + 7) % vocab_size);
  }

  Batch Next() {
    Batch batch;
    batch.sequence_offsets = {0};
    batch.page_offsets = {0};
    for (size_t s = 0; s < 2; ++s) {
      for (size_t p = done[s]; p < ids[s].size(); ++p) {
        batch.tokens.push_back(ids[s][p]);
        batch.positions.push_back(static_cast<int32_t>(p));
      }
      done[s] = ids[s].size();
      batch.sequence_offsets.push_back(batch.rows());
      for (size_t page = 0; page * kPageTokens < ids[s].size(); ++page) {
        batch.pages.push_back(static_cast<int32_t>(2 * page + s));
      }
      batch.page_offsets.push_back(static_cast<int32_t>(batch.pages.size()));
      batch.state_slots.push_back(static_cast<int32_t>(s));
      batch.state_sources.push_back(-1);
      batch.sampled_rows.push_back(batch.rows() - 1);
      SamplingRow row;
      row.seed = 5 + s;
      row.position = static_cast<int32_t>(ids[s].size());
      row.temperature = s == 0 ? 0.0f : 1.0f;
      row.top_logprobs = 2;
      batch.sampling.push_back(row);
    }
    return batch;
  }

  void Append(const std::vector<SampledToken>& sampled) {
    REQUIRE(sampled.size() == 2);
    for (size_t s = 0; s < 2; ++s) {
      CHECK_FALSE(sampled[s].failed);
      ids[s].push_back(sampled[s].token);
      logprobs.push_back(sampled[s].logprob);
    }
  }

  std::vector<int32_t> ids[2];
  size_t done[2] = {0, 0};
  std::vector<float> logprobs;
};

constexpr int kSteps = 20;

Conversation OfOneStage(const Checkpoint& checkpoint, Precision precision) {
  const std::unique_ptr<Device> device = MakeDevice("cpu", 1).value();
  StageOptions options;
  options.layers = {.first = 0, .last = checkpoint.config().layers_count()};
  options.precision = precision;
  options.limits = TestLimits(checkpoint.config());
  const std::unique_ptr<Stage> stage = Stage::Load(checkpoint, *device, options).value();
  Conversation conversation(checkpoint.config().vocab_size);
  for (int i = 0; i < kSteps; ++i) {
    const Batch batch = conversation.Next();
    conversation.Append(stage->Run(batch, ConstTensor()).value().sampled);
  }
  return conversation;
}

Conversation OfCluster(ClusterFixture& fixture, uint64_t epoch, const Checkpoint& checkpoint) {
  Conversation conversation(checkpoint.config().vocab_size);
  fixture.recorder.results.clear();
  for (uint64_t i = 0; i < kSteps; ++i) {
    const absl::Status submitted = fixture.cluster->Submit(epoch, 100 + i, conversation.Next());
    INFO(submitted.ToString());
    REQUIRE(submitted.ok());
    REQUIRE(fixture.recorder.Wait([&] { return fixture.recorder.results.size() == i + 1; }));
    const StepResult& result = fixture.recorder.results.back();
    INFO(result.status.ToString());
    REQUIRE(result.status.ok());
    CHECK(result.id == 100 + i);
    conversation.Append(result.sampled);
  }
  return conversation;
}

TEST_CASE("a chain of any length gives the tokens of one stage", "[cluster]") {
  const std::string path = Golden("tiny/llama");
  const auto checkpoint = Checkpoint::Open(path).value();
  const std::string precision = GENERATE("bf16", "f32");
  CAPTURE(precision);
  const Conversation expected =
      OfOneStage(*checkpoint, precision == "f32" ? Precision::kF32 : Precision::kBf16);
  ClusterFixture fixture(LocalDevice{.device = "cpu", .threads = 1, .model_path = path});
  for (const char* name : {"a", "b", "c"}) fixture.AddWorker(name, path);
  REQUIRE(fixture.WaitForMembers(4));
  // "local" runs in the coordinator's process; it stands alone, first, in the middle and last.
  for (const std::vector<std::string>& nodes : std::vector<std::vector<std::string>>{
           {"a"}, {"local"}, {"b", "a"}, {"local", "c"}, {"a", "local", "b"}, {"c", "local"}}) {
    CAPTURE(nodes.size(), nodes.front());
    const uint64_t epoch = fixture.Activate(nodes, *checkpoint, precision);
    const Conversation got = OfCluster(fixture, epoch, *checkpoint);
    CHECK(got.ids[0] == expected.ids[0]);
    CHECK(got.ids[1] == expected.ids[1]);
    CHECK(got.logprobs == expected.logprobs);
    CHECK(fixture.recorder.results.back().times.size() == nodes.size());
  }
}

TEST_CASE("a worker's device and how it is are the coordinator's to show", "[cluster]") {
  ClusterFixture fixture;
  Worker::Options options = fixture.OptionsFor(fixture.EnrollAs("a").value());
  options.device.uuid = "GPU-1";
  options.device.driver = "580.1";
  options.device.power_limit_w = 700;
  options.device.host_memory_bytes = 1 << 20;
  options.device.host_bandwidth = 5e10;
  options.gauges = [] {
    return DeviceGauges{.temperature_c = 41,
                        .utilization = 0.5,
                        .clock_mhz = 1755,
                        .throttle = Throttle::kHeat,
                        .ecc_errors = 0};
  };
  fixture.workers.emplace_back(std::move(options), Golden("tiny/llama"));
  REQUIRE(fixture.WaitForMembers(1));
  const NodeReport report = fixture.cluster->Nodes().at(0).report;
  CHECK(report.version == NG_VERSION);
  CHECK(report.device_uuid == "GPU-1");
  CHECK(report.driver == "580.1");
  CHECK(report.power_limit_w == 700);
  CHECK(report.host_memory_bytes == 1 << 20);
  CHECK(report.host_bandwidth == 5e10);
  const auto now = [&] { return fixture.cluster->Nodes().at(0).gauges; };
  for (int wait = 0; wait < 2000 && !now().temperature_c; ++wait) {  // ends a hang
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  const NodeGauges gauges = now();
  CHECK(gauges.temperature_c == 41);
  CHECK(gauges.utilization == 0.5);
  CHECK(gauges.clock_mhz == 1755);
  CHECK(gauges.throttle == "heat");
  CHECK(gauges.ecc_errors == 0);
  CHECK_FALSE(gauges.power_w.has_value());
  CHECK_FALSE(gauges.memory_used_bytes.has_value());
}

}  // namespace
}  // namespace neurogrid
