// A real model, when it is on this machine, against the reference implementation.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <cmath>

#include "absl/strings/str_format.h"
#include "tests/engine/chain.h"
#include "tests/engine/test_device.h"
#include "tests/support/golden.h"
#include "tests/support/test_data.h"

namespace neurogrid {
namespace {

std::vector<int32_t> Integers(const Json& array) {
  std::vector<int32_t> values;
  for (const Json& value : array.as_array()) {
    values.push_back(static_cast<int32_t>(value.as_integer()));
  }
  return values;
}

struct Fixture {
  Fixture(const std::string& path, Precision precision) {
    auto opened = Checkpoint::Open(path);
    REQUIRE(opened.ok());
    checkpoint = *std::move(opened);
    device = TestDevice();
    chain = std::make_unique<Chain>(*checkpoint, device->ops(), precision);
  }
  std::unique_ptr<Checkpoint> checkpoint;
  std::unique_ptr<Device> device;
  std::unique_ptr<Chain> chain;
  Json json = ReadJson(Golden("smollm2/reference.json"));
  Reference reference{Golden("smollm2/reference.safetensors")};
};

double LogLikelihood(const float* logits, int vocab, int32_t id) {
  const float max = *std::max_element(logits, logits + vocab);
  double sum = 0;
  for (int i = 0; i < vocab; ++i) sum += std::exp(double{logits[i]} - max);
  return logits[id] - max - std::log(sum);
}

}  // namespace

TEST_CASE("SmolLM2 in float32 gives the reference's logits and continuations", "[smollm2]") {
  const std::optional<std::string> path = SmolLm2();
  if (!path) SKIP("SmolLM2-135M-Instruct is not on this machine");
  Fixture f(*path, Precision::kF32);
  const int vocab = f.chain->vocab();
  constexpr double kBound = 1e-3;  // models.md 7.1, real checkpoints
  const Json::Array& prompts = f.json.Find("prompts")->as_array();
  std::vector<std::vector<int32_t>> asked;
  int64_t decided_tokens = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const std::string key = absl::StrFormat("prompt%02d.", i);
    CAPTURE(key);
    const std::vector<int32_t> ids = Integers(*prompts[i].Find("ids"));
    const std::vector<float> logits = LogitsOf(*f.chain, ids);
    if (f.reference.Has(key + "last_logits")) {
      const std::vector<float> last(logits.end() - vocab, logits.end());
      CHECK(ErrorOf(last, f.reference[key + "last_logits"]).max <= kBound);
    }
    const std::vector<float>& top5 = f.reference[key + "top5_logits"];
    const Json::Array& top5_ids = prompts[i].Find("top5_ids")->as_array();
    double worst = 0;
    for (size_t row = 0; row < ids.size(); ++row) {
      const std::vector<int32_t> five = Integers(top5_ids[row]);
      for (size_t j = 0; j < five.size(); ++j) {
        const float found = logits[row * static_cast<size_t>(vocab) + static_cast<size_t>(five[j])];
        worst = std::max(worst, std::abs(double{found} - double{top5[row * 5 + j]}));
      }
    }
    CHECK(worst <= kBound);
    asked.push_back(ids);
  }
  const std::vector<std::vector<int32_t>> greedy = GreedyOfAll(*f.chain, asked, 48);
  for (size_t i = 0; i < prompts.size(); ++i) {
    const std::string key = absl::StrFormat("prompt%02d.", i);
    CAPTURE(key);
    const std::vector<float>& margins = f.reference[key + "greedy_margin"];
    const auto close = std::find_if(margins.begin(), margins.end(),
                                    [](float margin) { return margin < 2 * kBound; });
    const auto decided = close - margins.begin();
    const std::vector<int32_t> expected = Integers(*prompts[i].Find("greedy"));
    CHECK(std::equal(expected.begin(), expected.begin() + decided, greedy[i].begin()));
    decided_tokens += decided;
  }
  CHECK(decided_tokens > 500);  // of 624: margins below the bound are rare
}

/// How far the five most likely logits of every position of every prompt are from the reference's.
Error TopLogitsError(const Fixture& f) {
  const Json::Array& prompts = f.json.Find("prompts")->as_array();
  const auto vocab = static_cast<size_t>(f.chain->vocab());
  std::vector<float> found;
  std::vector<float> expected;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const std::vector<float> logits = LogitsOf(*f.chain, Integers(*prompts[i].Find("ids")));
    const std::vector<float>& top5 = f.reference[absl::StrFormat("prompt%02d.top5_logits", i)];
    const Json::Array& top5_ids = prompts[i].Find("top5_ids")->as_array();
    for (size_t row = 0; row < top5_ids.size(); ++row) {
      for (const int32_t id : Integers(top5_ids[row])) {
        found.push_back(logits[row * vocab + static_cast<size_t>(id)]);
      }
    }
    expected.insert(expected.end(), top5.begin(), top5.end());
  }
  return ErrorOf(found, expected);
}

TEST_CASE("SmolLM2 in its own blocks errs as it does in bf16", "[smollm2]") {
  const std::optional<std::string> path = SmolLm2();
  if (!path) SKIP("SmolLM2-135M-Instruct is not on this machine");
  const Error in_bf16 = TopLogitsError(Fixture(*path, Precision::kBf16));
  const Error in_blocks = TopLogitsError(Fixture(*path, Precision::kAuto));
  CAPTURE(in_bf16.max, in_bf16.mean, in_blocks.max, in_blocks.mean);
  // The rounding of activations, which both share, is most of the error, and falls as it may: the
  // factor is that of models.md 7.1. The largest of 4,745 errors is a single position's, where the
  // residual stream rounds the other way; another order of f32 sums alone moves it by a third, so
  // it judges nothing.
  CHECK(in_blocks.mean <= 1.5 * in_bf16.mean);
  CHECK(in_blocks.mean > 0);
}

TEST_CASE("SmolLM2 predicts a text as well as the reference", "[smollm2]") {
  const std::optional<std::string> path = SmolLm2();
  if (!path) SKIP("SmolLM2-135M-Instruct is not on this machine");
  const Precision precision =
      GENERATE(Precision::kF32, Precision::kBf16, Precision::kInt8, Precision::kAuto);
  CAPTURE(NameOf(precision));
  Fixture f(*path, precision);
  const int vocab = f.chain->vocab();
  const Json& perplexity = *f.json.Find("perplexity");
  const std::vector<int32_t> ids = Integers(*perplexity.Find("ids"));
  const std::vector<float> logits = LogitsOf(*f.chain, ids, 256);
  const std::vector<float>& expected = f.reference["perplexity.nll"];
  double sum = 0;
  double worst = 0;
  for (size_t i = 0; i + 1 < ids.size(); ++i) {
    const double nll =
        -LogLikelihood(logits.data() + i * static_cast<size_t>(vocab), vocab, ids[i + 1]);
    sum += nll;
    worst = std::max(worst, std::abs(nll - double{expected[i]}));
  }
  const double mean = sum / static_cast<double>(ids.size() - 1);
  const double difference = std::abs(mean - perplexity.Find("mean_nll")->as_number());
  if (precision == Precision::kAuto) {
    const double expected_perplexity = perplexity.Find("perplexity")->as_number();
    CHECK(std::abs(std::exp(mean) - expected_perplexity) <= 0.05);
  }
  if (precision == Precision::kF32) {
    CHECK(worst <= 2e-3);  // twice the bound of a logit: the token's own and the sum's
    CHECK(difference <= 1e-4);
  } else {
    // Rounding noise has no preferred sign: the mean over 885 tokens moves by far less than a
    // token.
    CHECK(difference <= 0.01);
  }
}

}  // namespace neurogrid
