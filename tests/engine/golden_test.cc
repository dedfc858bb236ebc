// Tiny checkpoints against the reference implementation's own runs (models.md 7.1).
#include "tests/support/golden.h"

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cmath>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "engine/device.h"
#include "engine/model/safetensors.h"
#include "tests/engine/chain.h"
#include "tests/support/test_data.h"

namespace neurogrid {
namespace {

std::unique_ptr<Checkpoint> Open(const std::string& path) {
  auto checkpoint = Checkpoint::Open(path);
  REQUIRE(checkpoint.ok());
  return *std::move(checkpoint);
}

std::unique_ptr<Device> Cpu(int threads = 2) {
  auto device = MakeDevice("cpu", threads);
  REQUIRE(device.ok());
  return *std::move(device);
}

double LargestOf(const std::vector<float>& values) {
  double largest = 0;
  for (const float v : values) largest = std::max(largest, std::abs(double{v}));
  return largest;
}

double DeviationOf(const std::vector<float>& values) {
  double mean = 0;
  for (const float v : values) mean += v / static_cast<double>(values.size());
  double sum = 0;
  for (const float v : values) sum += (v - mean) * (v - mean);
  return std::sqrt(sum / static_cast<double>(values.size()));
}

/// Tokens up to the first whose margin is below `bound`: beyond it rounding may choose another.
size_t DecidedTokens(const std::vector<float>& margins, double bound) {
  const auto close = [&](float margin) { return margin < bound; };
  return static_cast<size_t>(std::find_if(margins.begin(), margins.end(), close) - margins.begin());
}

constexpr int kPromptLengths[] = {1, 2, 5, 47, 96};

}  // namespace

TEST_CASE("float32 logits and hidden states are the reference's", "[golden]") {
  const std::string model = GENERATE("tiny/llama", "tiny/llama3-rope");
  CAPTURE(model);
  const std::unique_ptr<Checkpoint> checkpoint = Open(Golden(model));
  const Reference reference(Golden(model + "/reference.safetensors"));
  const std::unique_ptr<Device> device = Cpu();
  Chain chain(*checkpoint, device->ops(), Precision::kF32, {1, 2, 3});
  for (const int length : kPromptLengths) {
    const std::string p = absl::StrCat("p", length, ".");
    CAPTURE(length);
    const std::vector<float>& expected = reference[p + "logits"];
    const double tolerance = 5e-5 * std::max(1.0, LargestOf(expected));
    const std::vector<float> logits = LogitsOf(chain, reference.Ids(p + "ids"));
    CHECK(ErrorOf(logits, expected).max <= tolerance);
    const std::vector<float>& hidden = reference[p + "hidden"];  // [layers + 1, length, hidden]
    const size_t size = hidden.size() / 5;
    for (size_t layer = 0; layer < 4; ++layer) {
      CAPTURE(layer);
      const std::vector<float> expected_hidden(hidden.begin() + (layer + 1) * size,
                                               hidden.begin() + (layer + 2) * size);
      CHECK(ErrorOf(chain.hidden(layer), expected_hidden).max <= tolerance);
    }
    CHECK(Greedy(chain, reference.Ids(p + "ids"), 32) == reference.Ids(p + "greedy"));
  }
}

TEST_CASE("bfloat16 logits err no more than the reference's own bfloat16 run", "[golden]") {
  const std::string model = GENERATE("tiny/llama", "tiny/llama3-rope");
  CAPTURE(model);
  const std::unique_ptr<Checkpoint> checkpoint = Open(Golden(model));
  const Reference reference(Golden(model + "/reference.safetensors"));
  const std::unique_ptr<Device> device = Cpu();
  Chain chain(*checkpoint, device->ops(), Precision::kBf16);
  for (const int length : kPromptLengths) {
    const std::string p = absl::StrCat("p", length, ".");
    CAPTURE(length);
    const std::vector<float>& expected = reference[p + "logits"];
    const Error allowed = ErrorOf(reference[p + "logits_bf16_run"], expected);
    const double floor = 0.01 * DeviationOf(expected);
    const Error error = ErrorOf(LogitsOf(chain, reference.Ids(p + "ids")), expected);
    CHECK(error.max <= std::max(floor, 1.5 * allowed.max));
    CHECK(error.mean <= std::max(floor, 1.5 * allowed.mean));
    const size_t decided = DecidedTokens(reference[p + "greedy_margin"], 4 * error.max);
    std::vector<int32_t> greedy = reference.Ids(p + "greedy");
    greedy.resize(decided);
    CHECK(Greedy(chain, reference.Ids(p + "ids"), static_cast<int>(decided)) == greedy);
  }
}

TEST_CASE("int8 weights give the logits of the rounded weights", "[golden]") {
  const std::unique_ptr<Checkpoint> checkpoint = Open(Golden("tiny/llama"));
  const Reference reference(Golden("tiny/llama/reference.safetensors"));
  const Reference rounded(Golden("tiny/llama/w8a16_reference.safetensors"));
  const std::unique_ptr<Device> device = Cpu();
  Chain chain(*checkpoint, device->ops(), Precision::kInt8);
  for (const int length : kPromptLengths) {
    const std::string p = absl::StrCat("p", length, ".");
    CAPTURE(length);
    const std::vector<float>& expected = rounded[p + "logits"];
    // The bound is that of bfloat16 activations: the rounded weights themselves are exact.
    const Error allowed = ErrorOf(reference[p + "logits_bf16_run"], reference[p + "logits"]);
    const double floor = 0.01 * DeviationOf(expected);
    const Error error = ErrorOf(LogitsOf(chain, rounded.Ids(p + "ids")), expected);
    CHECK(error.max <= std::max(floor, 1.5 * allowed.max));
    CHECK(error.mean <= std::max(floor, 1.5 * allowed.mean));
    const size_t decided = DecidedTokens(rounded[p + "greedy_margin"], 4 * error.max);
    std::vector<int32_t> greedy = rounded.Ids(p + "greedy");
    greedy.resize(decided);
    CHECK(Greedy(chain, rounded.Ids(p + "ids"), static_cast<int>(decided)) == greedy);
  }
}

TEST_CASE("a bias on q, k and v enters where the file has one", "[golden]") {
  // The qwen2 family is Llama's layer with these biases; only its numbers are needed here.
  const std::optional<std::string> folder = SharedData("golden/tiny/qwen2");
  if (!folder) SKIP("golden/tiny/qwen2 is not beside the project");
  ModelConfig config = Open(Golden("tiny/llama"))->config();
  config.tied_embeddings = true;
  config.qkv_bias = true;
  config.ropes[0].theta = 1e6;
  auto file = OpenSafetensors(*folder + "/model.safetensors");
  REQUIRE(file.ok());
  WeightStore weights;
  for (const SafetensorsFile::NamedTensor& named : file->tensors) {
    weights.Add(named.name, {.tensor = named.tensor, .file = *folder});
  }
  const Reference reference(*folder + "/reference.safetensors");
  const std::unique_ptr<Device> device = Cpu();
  Chain chain(config, weights, device->ops(), Precision::kF32);
  const std::vector<float>& expected = reference["p47.logits"];
  const Error error = ErrorOf(LogitsOf(chain, reference.Ids("p47.ids")), expected);
  CHECK(error.max <= 5e-5 * std::max(1.0, LargestOf(expected)));
}

TEST_CASE("a GGUF copy gives the bits of the safetensors", "[golden]") {
  const std::unique_ptr<Checkpoint> directory = Open(Golden("tiny/llama"));
  const std::unique_ptr<Checkpoint> gguf = Open(Golden("gguf/llama-F32.gguf"));
  const Reference reference(Golden("tiny/llama/reference.safetensors"));
  const std::unique_ptr<Device> device = Cpu();
  Chain from_directory(*directory, device->ops(), Precision::kF32);
  Chain from_gguf(*gguf, device->ops(), Precision::kF32);
  for (const int length : kPromptLengths) {
    const std::vector<int32_t> ids = reference.Ids(absl::StrCat("p", length, ".ids"));
    const std::vector<float> a = LogitsOf(from_directory, ids);
    const std::vector<float> b = LogitsOf(from_gguf, ids);
    REQUIRE(a.size() == b.size());
    CHECK(std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
  }
}

}  // namespace neurogrid
