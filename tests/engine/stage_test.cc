// A stage from load to sampled tokens: the seam that workers run on.
#include "engine/stage.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cstring>

#include "engine/batch_check.h"
#include "engine/model/stage_memory.h"
#include "engine/workspace_bytes.h"
#include "tests/engine/allocation_count.h"
#include "tests/engine/chain.h"
#include "tests/engine/test_device.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

constexpr int kVocab = 263;

std::unique_ptr<Checkpoint> Open(const std::string& name) {
  auto checkpoint = Checkpoint::Open(Golden(name));
  REQUIRE(checkpoint.ok());
  return *std::move(checkpoint);
}

std::unique_ptr<Stage> Load(const Checkpoint& checkpoint, Device& device, LayerRange layers,
                            Precision precision = Precision::kBf16) {
  const StageOptions options{.layers = layers,
                             .precision = precision,
                             .limits = TestLimits(kVocab, WidestWindow(checkpoint.config()))};
  auto stage = Stage::Load(checkpoint, device, options);
  REQUIRE(stage.ok());
  return *std::move(stage);
}

/// The emulator's usual tests take one precision where all go the same way.
bool IsUsual(Precision precision) {
  return UsualDepth() == Depth::kEverything || precision == Precision::kBf16;
}

/// Draws `count` tokens after `prompt`, one at a time, through all stages.
std::vector<int32_t> Generate(const std::vector<std::unique_ptr<Stage>>& stages,
                              const std::vector<int32_t>& prompt, SamplingRow row, int count) {
  std::vector<int32_t> drawn;
  SequencePart slice{.ids = prompt, .first = 0, .pages = {4, 2, 8, 6}, .source = -1, .slot = 5};
  const BatchLimits& limits = stages.front()->options().limits;
  while (static_cast<int>(drawn.size()) < count) {
    Batch batch = BatchOf({slice}, limits.window);
    const int end = slice.first + batch.rows();
    row.position = end;
    batch.sampled_rows = {batch.rows() - 1};
    batch.sampling = {row};
    REQUIRE(CheckBatch(batch, limits).ok());
    ConstTensor activations;
    for (const std::unique_ptr<Stage>& stage : stages) {
      auto output = stage->Run(batch, activations);
      REQUIRE(output.ok());
      activations = output->activations;
      for (const SampledToken& token : output->sampled) drawn.push_back(token.token);
    }
    slice = {.ids = {drawn.back()}, .first = end, .pages = slice.pages, .source = 5, .slot = 5};
  }
  return drawn;
}

}  // namespace

TEST_CASE("stages draw the tokens that one stage draws", "[stage]") {
  // Untied and tied, with convolutions, with windows.
  const std::string model = GENERATE("tiny/llama", "tiny/llama3-rope", "tiny/lfm2", "tiny/gemma3");
  const Precision precision = GENERATE(from_range(WeightPrecisions()));
  if (!IsUsual(precision)) return;
  const int count = UsualDepth() == Depth::kEverything ? 40 : 6;
  CAPTURE(model, NameOf(precision));
  const std::unique_ptr<Checkpoint> checkpoint = Open(model);
  const std::unique_ptr<Device> device = TestDevice();
  SamplingRow row;
  row.seed = 99;
  row.temperature = 0.8f;
  row.top_p = 0.95f;
  const std::vector<int32_t> prompt = {5, 100, 7, 42, 250, 3};
  std::vector<std::unique_ptr<Stage>> one;
  const int layers = checkpoint->config().layers_count();
  one.push_back(Load(*checkpoint, *device, {0, layers}, precision));
  const std::vector<int32_t> expected = Generate(one, prompt, row, count);
  for (const std::vector<int>& cuts : {std::vector<int>{0, 2, layers}, {0, 1, 3, layers}}) {
    std::vector<std::unique_ptr<Stage>> stages;
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      stages.push_back(Load(*checkpoint, *device, {cuts[i], cuts[i + 1]}, precision));
      CHECK(stages.back()->determinism_class() == one[0]->determinism_class());
    }
    CHECK(Generate(stages, prompt, row, count) == expected);
  }
}

namespace {

/// A row of each of three sequences, in pages and slots of their own; `tokens` as in Batch.
Batch ThreeRows(const std::vector<int32_t>& tokens, int position, int window) {
  std::vector<SequencePart> slices;
  for (int s = 0; s < 3; ++s) {
    SequencePart slice{.ids = {tokens[static_cast<size_t>(s)]},
                       .first = position,
                       .pages = {},
                       .source = position == 0 ? -1 : s,
                       .slot = s};
    for (int page = 0; page * kPageTokens <= position; ++page) slice.pages.push_back(3 * page + s);
    slices.push_back(slice);
  }
  Batch batch = BatchOf(slices, window);
  for (int s = 0; s < 3; ++s) {
    SamplingRow row;
    row.seed = static_cast<uint64_t>(s) + 7;
    row.position = position + 1;
    row.temperature = s == 0 ? 0.0f : 0.9f;
    row.top_logprobs = 3;
    batch.sampled_rows.push_back(s);
    batch.sampling.push_back(row);
  }
  return batch;
}

}  // namespace

TEST_CASE("a step may take its tokens from what the step before draws", "[stage]") {
  const std::string model = GENERATE("tiny/llama", "tiny/lfm2", "tiny/gemma3");
  CAPTURE(model);
  const std::unique_ptr<Checkpoint> checkpoint = Open(model);
  const std::unique_ptr<Device> device = TestDevice();
  const int layers = checkpoint->config().layers_count();
  const std::unique_ptr<Stage> stage = Load(*checkpoint, *device, {0, layers});
  const int window = WidestWindow(checkpoint->config());
  const auto tokens_of = [](const std::vector<SampledToken>& sampled) {
    std::vector<int32_t> tokens;
    for (const SampledToken& token : sampled) tokens.push_back(token.token);
    return tokens;
  };
  // The sequences change places: each row goes on from another row's draw.
  const auto turned = [](const std::vector<int32_t>& tokens) {
    return std::vector<int32_t>{tokens[1], tokens[2], tokens[0]};
  };
  constexpr int kSteps = 20;
  std::vector<std::vector<SampledToken>> expected;
  std::vector<int32_t> tokens = {5, 100, 42};
  for (int step = 0; step < kSteps; ++step) {
    expected.push_back(stage->Run(ThreeRows(tokens, step, window), {}).value().sampled);
    tokens = turned(tokens_of(expected.back()));
  }
  const std::vector<int32_t> drawn = {DrawnBefore(1), DrawnBefore(2), DrawnBefore(0)};
  REQUIRE(stage->Queue(ThreeRows({5, 100, 42}, 0, window), {}).ok());
  for (int step = 0; step < kSteps; ++step) {
    CAPTURE(step);
    if (step + 1 < kSteps) REQUIRE(stage->Queue(ThreeRows(drawn, step + 1, window), {}).ok());
    while (!stage->Done()) {
    }
    const auto output = stage->Collect();
    REQUIRE(output.ok());
    const auto at = static_cast<size_t>(step);
    REQUIRE(tokens_of(output->sampled) == tokens_of(expected[at]));
    for (size_t i = 0; i < 3; ++i) CHECK(output->sampled[i].logprob == expected[at][i].logprob);
  }
}

TEST_CASE("a stage takes no token that the step before did not draw", "[stage]") {
  const std::unique_ptr<Checkpoint> checkpoint = Open("tiny/llama");
  const std::unique_ptr<Device> device = TestDevice();
  const int layers = checkpoint->config().layers_count();
  const std::unique_ptr<Stage> stage = Load(*checkpoint, *device, {0, layers});
  const std::unique_ptr<Stage> first = Load(*checkpoint, *device, {0, 1});
  Batch batch = ThreeRows({5, DrawnBefore(0), 42}, 0, 0);
  CHECK(stage->Run(batch, {}).status().code() == absl::StatusCode::kInvalidArgument);
  CHECK(first->Run(batch, {}).status().code() == absl::StatusCode::kInvalidArgument);
  REQUIRE(stage->Run(ThreeRows({5, 6, 7}, 0, 0), {}).ok());
  batch.tokens[1] = DrawnBefore(3);
  CHECK(stage->Run(batch, {}).status().code() == absl::StatusCode::kInvalidArgument);
  batch.tokens[1] = DrawnBefore(2);
  CHECK(stage->Run(batch, {}).status().code() == absl::StatusCode::kInvalidArgument);  // of none
}

TEST_CASE("Run allocates nothing that grows with a batch", "[stage]") {
  // The emulator allocates at each launch, a GPU's inputs are lists on the host (up to 16 KiB
  // here); what is allocated on the device is counted by the tests of graphs.
  if (ThisColumn() != Column::kCpu) return;
  const Precision precision = GENERATE(from_range(WeightPrecisions()));
  const std::string model = GENERATE("tiny/llama", "tiny/lfm2-bias", "tiny/gemma2");
  CAPTURE(model, NameOf(precision));
  const std::unique_ptr<Checkpoint> checkpoint = Open(model);
  const std::unique_ptr<Device> device = TestDevice();
  const int layers = checkpoint->config().layers_count();
  const std::unique_ptr<Stage> stage = Load(*checkpoint, *device, {0, layers}, precision);
  SequencePart slice{.ids = std::vector<int32_t>(400, 7), .first = 0, .pages = {}, .slot = 1};
  for (int32_t page = 0; page < 25; ++page) slice.pages.push_back(page);
  Batch batch = BatchOf({slice}, stage->options().limits.window);
  batch.sampled_rows = {100, 399};
  batch.sampling.resize(2);
  batch.sampling[1].top_p = 0.9f;
  // 400 rows of the narrowest activation alone take 38,400 bytes.
  const int64_t allocated = AllocatedBytesOf([&] { CHECK(stage->Run(batch, {}).ok()); });
  CHECK(allocated < 4096);
}

TEST_CASE("a stage knows the memory it takes", "[stage]") {
  const std::unique_ptr<Checkpoint> checkpoint = Open("tiny/llama");
  const std::unique_ptr<Device> device = TestDevice();
  const std::unique_ptr<Stage> whole = Load(*checkpoint, *device, {0, 4});
  const std::unique_ptr<Stage> head = Load(*checkpoint, *device, {0, 1});
  const std::unique_ptr<Stage> tail = Load(*checkpoint, *device, {1, 4});
  CHECK(head->memory().weight_bytes + tail->memory().weight_bytes == whole->memory().weight_bytes);
  // 16 tokens x (keys, values) x 2 heads x 24 values x 2 bytes, for each layer.
  CHECK(head->memory().page_bytes == 16 * 2 * 2 * 24 * 2);
  CHECK(tail->memory().page_bytes == 3 * head->memory().page_bytes);
  CHECK(whole->memory().state_bytes == 0);
  CHECK(whole->memory().workspace_bytes ==
        StageWorkspaceBytes(checkpoint->config(), whole->options()));
  // The last stage holds logits of 512 rows x 263 ids x 4 bytes, and the rows they come from.
  const int64_t difference = tail->memory().workspace_bytes - head->memory().workspace_bytes;
  CHECK(difference >= 512 * (263 * 4 + 96 * 2));
  CHECK(difference < 512 * (263 * 4 + 96 * 2) + 512);
}

TEST_CASE("loading reports its progress up to the end", "[stage]") {
  const std::string model = GENERATE("tiny/llama", "tiny/lfm2-bias");
  const std::unique_ptr<Checkpoint> checkpoint = Open(model);
  const std::unique_ptr<Device> device = TestDevice();
  const int count = checkpoint->config().layers_count();
  const LayerRange layers =
      GENERATE_COPY(LayerRange{0, count}, LayerRange{0, 1}, LayerRange{1, 2}, LayerRange{3, count});
  std::vector<int64_t> done;
  int64_t total = 0;
  const StageOptions options{.layers = layers, .limits = TestLimits(kVocab)};
  const auto stage = Stage::Load(*checkpoint, *device, options, [&](int64_t now, int64_t of) {
    done.push_back(now);
    total = of;
  });
  REQUIRE(stage.ok());
  CHECK(std::is_sorted(done.begin(), done.end()));
  CHECK(done.back() == total);
  CHECK(total > 0);
}

TEST_CASE("a stage refuses what does not fit it", "[stage]") {
  const std::unique_ptr<Checkpoint> checkpoint = Open("tiny/llama");
  const std::unique_ptr<Device> device = TestDevice();
  SECTION("layers that the model does not have") {
    for (const LayerRange layers : {LayerRange{0, 5}, {-1, 2}, {2, 2}, {3, 1}}) {
      const StageOptions options{.layers = layers, .limits = TestLimits(kVocab)};
      const auto stage = Stage::Load(*checkpoint, *device, options);
      CHECK(stage.status().code() == absl::StatusCode::kInvalidArgument);
      CHECK(stage.status().message().find(layers.ToString()) != absl::string_view::npos);
    }
  }
  SECTION("a vocabulary larger than the model's") {
    const StageOptions options{.layers = {0, 4}, .limits = TestLimits(kVocab + 1)};
    const auto stage = Stage::Load(*checkpoint, *device, options);
    CHECK(stage.status().message().find("vocab_size is 264") != absl::string_view::npos);
  }
  SECTION("no slot for the state of a model that has one, or more taps than are computed") {
    const std::unique_ptr<Checkpoint> recurrent = Open("tiny/lfm2");
    StageOptions options{.layers = {0, 1}, .limits = TestLimits(kVocab)};
    options.limits.slots = 0;
    const auto without_slots = Stage::Load(*recurrent, *device, options);
    CHECK(without_slots.status().message() == "stage limit slots is 0, outside [1, 1048576]");
    ModelConfig config = recurrent->config();
    config.conv_taps = 17;
    options.limits.slots = 1;
    const auto many_taps =
        Transformer::Load(config, recurrent->weights(), device->ops(), options, nullptr);
    CHECK(many_taps.status().message() == "the model's convolutions have 17 taps, outside [1, 16]");
  }
  SECTION("heads that its kernels do not take, before any weights are read") {
    const StageOptions options{.layers = {0, 4}, .limits = TestLimits(kVocab)};
    const auto refusal = [&](const ModelConfig& config) {
      const auto stage = Transformer::Load(config, WeightStore(), device->ops(), options, nullptr);
      CHECK(stage.status().code() == absl::StatusCode::kInvalidArgument);
      return std::string(stage.status().message());
    };
    ModelConfig wide = checkpoint->config();
    wide.head_dim = 264;
    CHECK(refusal(wide).find("head_dim is 264: ") == 0);
    if (ThisColumn() == Column::kCpu) return;
    ModelConfig grouped = checkpoint->config();
    grouped.query_heads = 34;
    grouped.kv_heads = 2;
    CHECK(refusal(grouped) ==
          "there are 34 query heads and 2 of keys and values: CUDA kernels take up to 16 query "
          "heads for each of those");
  }
  SECTION("more pages than there is memory") {
    StageOptions options{.layers = {0, 4}, .limits = TestLimits(kVocab)};
    options.limits.pages = 1 << 30;
    const auto stage = Stage::Load(*checkpoint, *device, options);
    CHECK(stage.status().code() == absl::StatusCode::kResourceExhausted);
  }
  SECTION("activations of another shape or dtype") {
    const std::unique_ptr<Stage> stage = Load(*checkpoint, *device, {1, 4});
    const Batch batch = BatchOf({SequencePart{.ids = {1, 2}, .first = 0, .pages = {0}}});
    const std::vector<float> values(2 * 96);
    CHECK(!stage->Run(batch, {values.data(), DType::kF32, Shape({2, 96})}).ok());
    CHECK(!stage->Run(batch, {values.data(), DType::kBF16, Shape({1, 96})}).ok());
    CHECK(!stage->Run(batch, {}).ok());
    CHECK(stage->Run(batch, {values.data(), DType::kBF16, Shape({2, 96})}).ok());
  }
}

TEST_CASE("ids beyond the tokenizer are never drawn", "[stage]") {
  const std::unique_ptr<Checkpoint> checkpoint = Open("tiny/llama");
  const std::unique_ptr<Device> device = TestDevice();
  StageOptions options{.layers = {0, 4}, .limits = TestLimits(kVocab)};
  options.limits.vocab_size = 10;
  const auto stage = Stage::Load(*checkpoint, *device, options);
  REQUIRE(stage.ok());
  Batch batch = BatchOf({SequencePart{.ids = {1, 2, 3}, .first = 0, .pages = {0}}});
  batch.sampled_rows = {2};
  batch.sampling.resize(1);
  batch.sampling[0].temperature = 100;
  batch.sampling[0].top_logprobs = 20;
  const int32_t step = UsualDepth() == Depth::kEverything ? 1 : 10;
  for (int32_t position = 3; position < 200; position += step) {
    batch.sampling[0].position = position;
    const auto output = (*stage)->Run(batch, {});
    REQUIRE(output.ok());
    CHECK(output->sampled[0].token < 10);
    CHECK(output->sampled[0].top.size() == 10);
  }
}

}  // namespace neurogrid
