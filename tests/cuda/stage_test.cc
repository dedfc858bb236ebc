// Stages on a CUDA device: drawing, errors, memory.
#include "engine/stage.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <numeric>

#include "common/rng.h"
#include "engine/sampler.h"
#include "tests/cuda/cuda_support.h"
#include "tests/engine/golden_support.h"

namespace neurogrid {
namespace {

using Catch::Matchers::ContainsSubstring;

constexpr int kVocab = 263;

std::unique_ptr<Stage> Load(const Checkpoint& checkpoint, Device& device, LayerRange layers) {
  const StageOptions options{
      .layers = layers, .precision = Precision::kBf16, .limits = TestLimits(kVocab)};
  auto stage = Stage::Load(checkpoint, device, options);
  INFO(stage.status().ToString());
  REQUIRE(stage.ok());
  return *std::move(stage);
}

Batch OneRow(int position, int32_t token) {
  Batch batch = BatchOf({{.ids = {token},
                          .first = position,
                          .pages = {4, 2},
                          .source = position == 0 ? -1 : 5,
                          .slot = 5}});
  batch.sampled_rows = {0};
  batch.sampling.resize(1);
  batch.sampling[0].seed = 99;
  batch.sampling[0].position = position + 1;
  batch.sampling[0].temperature = 0.8f;
  batch.sampling[0].top_p = 0.95f;
  return batch;
}

std::vector<int32_t> Generate(const std::vector<std::unique_ptr<Stage>>& stages, int count) {
  std::vector<int32_t> drawn = {17};
  for (int position = 0; position < count; ++position) {
    ConstTensor activations;
    for (const std::unique_ptr<Stage>& stage : stages) {
      const auto output = stage->Run(OneRow(position, drawn.back()), activations);
      REQUIRE(output.ok());
      activations = output->activations;
      if (!output->sampled.empty()) drawn.push_back(output->sampled[0].token);
    }
  }
  return drawn;
}

/// Every parameter of a sampling row, from a seed.
SamplingRow RandomRow(uint64_t seed) {
  const auto random = [&](int salt, int below) {
    return static_cast<int>(SplitMix64(seed * 100 + static_cast<uint64_t>(salt)) %
                            static_cast<uint64_t>(below));
  };
  SamplingRow row;
  row.seed = SplitMix64(seed);
  row.position = random(0, 5000);
  row.temperature = random(1, 3) == 0 ? 0 : 0.2f * static_cast<float>(1 + random(2, 9));
  row.top_p = random(3, 2) == 0 ? 1 : 0.1f * static_cast<float>(1 + random(4, 9));
  row.min_p = random(5, 3) == 0 ? 0.01f * static_cast<float>(random(6, 20)) : 0;
  row.top_k = random(7, 2) == 0 ? 0 : 1 + random(8, 50);
  row.repetition_penalty = 1 + 0.1f * static_cast<float>(random(9, 4));
  row.presence_penalty = 0.2f * static_cast<float>(random(10, 3));
  row.frequency_penalty = 0.1f * static_cast<float>(random(11, 3));
  row.top_logprobs = random(12, 3) - 1;
  for (int32_t id = 0; id < random(13, 40); ++id) {
    row.counts.push_back({id, random(14, 3), random(15, 2) == 0});
  }
  row.bias = {{3, 2.5f}, {8, -100.0f}, {41, -1.25f}, {3, -0.7f}, {3, 1.1f}, {41, 0.3f}, {8, 5.0f}};
  if (random(16, 2) == 0) row.banned = {0, 9, 200, 9};
  return row;
}

}  // namespace

TEST_CASE("a GPU refuses int8-a8 by name", "[cuda]") {
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/llama");
  const std::unique_ptr<Device> device = TestDevice();
  const StageOptions options{.layers = {0, checkpoint->config().layers_count()},
                             .precision = Precision::kInt8A8,
                             .limits = TestLimits(kVocab)};
  CHECK(Stage::Load(*checkpoint, *device, options).status() ==
        absl::UnimplementedError("a GPU has no kernels for int8-a8, which rounds activations to 8 "
                                 "bits: use int8 there"));
}

TEST_CASE("stages on a CUDA device draw the tokens that one stage draws", "[cuda][stage]") {
  const std::string model = GENERATE("llama", "lfm2");
  SeedFor(model);
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + model);
  const std::unique_ptr<Device> device = Cuda();
  const int layers = checkpoint->config().layers_count();
  std::vector<std::unique_ptr<Stage>> one, three;
  one.push_back(Load(*checkpoint, *device, {0, layers}));
  for (const LayerRange range : {LayerRange{0, 1}, {1, 3}, {3, layers}}) {
    three.push_back(Load(*checkpoint, *device, range));
    CHECK(three.back()->determinism_class() == one[0]->determinism_class());
  }
  CHECK_THAT(one[0]->determinism_class(), ContainsSubstring("cuda/"));
  const std::vector<int32_t> drawn = Generate(one, 12);
  CHECK(drawn.size() == 13);
  CHECK(Generate(three, 12) == drawn);
}

TEST_CASE("a CUDA device draws from logits what the CPU draws", "[cuda]") {
  const std::unique_ptr<Device> device = Cuda();
  constexpr size_t kRows = 40;
  const int ids = GENERATE(290, 5003);
  CAPTURE(ids);
  const auto count = static_cast<size_t>(ids);
  const size_t stride = count + 9;
  std::vector<float> logits(kRows * stride);
  for (size_t i = 0; i < logits.size(); ++i) {
    logits[i] = static_cast<float>(SplitMix64(i) % 4096) / 256 - 8;
  }
  std::vector<SamplingRow> rows;
  for (uint64_t i = 0; i < kRows; ++i) rows.push_back(RandomRow(i));
  rows[7].target = 33;
  rows[7].top_logprobs = 20;
  const auto memory = device->ops().Upload(logits);
  REQUIRE(memory.ok());
  const Batch none;
  device->ops().BeginBatch(none);
  const std::vector<SampledToken> found = device->ops().Sample(
      {(*memory)->data(), DType::kF32, Shape({kRows, static_cast<int64_t>(stride)})}, rows, ids);
  REQUIRE(device->ops().Health().ok());
  Sampler sampler(ids);
  for (size_t i = 0; i < kRows; ++i) {
    CAPTURE(i);
    const SampledToken expected =
        sampler.Sample(absl::MakeSpan(&logits[i * stride], count), rows[i]);
    CHECK(found[i].failed == expected.failed);
    CHECK(found[i].token == expected.token);
    CHECK(std::abs(found[i].logprob - expected.logprob) < 1e-5f);
    REQUIRE(found[i].top.size() == expected.top.size());
    for (size_t k = 0; k < expected.top.size(); ++k) {
      CHECK(found[i].top[k].id == expected.top[k].id);
      CHECK(std::abs(found[i].top[k].logprob - expected.top[k].logprob) < 1e-5f);
    }
  }
}

#if defined(NG_SIMT)  // a GPU would not be the same afterwards
TEST_CASE("an error of the device ends its stage, and says what was found", "[cuda][stage]") {
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/llama");
  const std::unique_ptr<Device> device = Cuda();
  const std::unique_ptr<Stage> stage = Load(*checkpoint, *device, {0, 4});
  REQUIRE(stage->Run(OneRow(0, 17), {}).ok());
  simt::SetFailure("an illegal memory access");
  const auto failed = stage->Run(OneRow(1, 17), {});
  CHECK_THAT(std::string(failed.status().message()), ContainsSubstring("an illegal memory access"));
  const uint64_t kernels = simt::KernelsRun();
  simt::TakeFailure();  // A device that has failed is not trusted again.
  CHECK_FALSE(stage->Run(OneRow(2, 17), {}).ok());
  CHECK(simt::KernelsRun() == kernels);
}

#endif

TEST_CASE("a CUDA device reports what it is, and refuses what it has not", "[cuda]") {
  const std::unique_ptr<Device> device = Cuda();
  const DeviceReport report = device->Report();
  CHECK(report.kind == "cuda:0");
  CHECK(!report.name.empty());
  CHECK(report.memory_free_bytes > 0);
  CHECK(report.memory_free_bytes <= report.memory_total_bytes);
  CHECK(report.read_bandwidth > 0);
  CHECK(report.matmul_rate > 0);
  CHECK(report.row_rate >= 0);  // 0: not told apart
  CHECK(report.op_seconds > 0);
  const auto absent = CudaDevice::Open(77);
  CHECK(absent.status().code() == absl::StatusCode::kNotFound);
  CHECK_THAT(std::string(absent.status().message()), ContainsSubstring("cuda:77"));
  const auto memory = device->ops().Allocate(report.memory_total_bytes + 1);
  CHECK(memory.status().code() == absl::StatusCode::kResourceExhausted);
  CHECK(device->ops().Allocate(1024).ok());
}

TEST_CASE("a CUDA device refuses shapes that its kernels do not take", "[cuda]") {
  const std::unique_ptr<Device> device = Cuda();
  const auto none = [](int64_t, int64_t, float*) { return absl::OkStatus(); };
  const auto matrix = device->ops().Pack({.outputs = 16, .inputs = 12}, none);
  CHECK_THAT(std::string(matrix.status().message()), ContainsSubstring("12 inputs"));
  const auto heads = device->ops().Reserve({.rows_max = 1, .head_dim = 264});
  CHECK_THAT(std::string(heads.message()), ContainsSubstring("head_dim is 264"));
}

}  // namespace neurogrid
