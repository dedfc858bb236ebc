// What the golden tests share: the tiny models, their prompts, the bounds of models.md 7.1.
#pragma once

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/model/checkpoint.h"
#include "tests/engine/chain.h"
#include "tests/engine/cpu_support.h"
#include "tests/engine/test_device.h"
#include "tests/support/golden.h"

namespace neurogrid {

/// Every tiny model of models.md 7.2. Some differ from others in numbers alone, which are nothing
/// to AddressSanitizer.
inline std::vector<std::string> TinyModels() {
  if (kAddressSanitizer)
    return {"llama", "nemo", "qwen2", "qwen3", "lfm2", "lfm2-bias", "gemma2", "gemma3"};
  return {"llama",      "llama3-rope", "mistral-window", "nemo",   "qwen2", "qwen3",
          "qwen3-yarn", "lfm2",        "lfm2-bias",      "gemma2", "gemma3"};
}

inline std::unique_ptr<Checkpoint> OpenGolden(const std::string& name) {
  auto checkpoint = Checkpoint::Open(Golden(name));
  INFO(checkpoint.status().ToString());
  REQUIRE(checkpoint.ok());
  return *std::move(checkpoint);
}

/// "p5." for each prompt that a reference file holds.
inline std::vector<std::string> PromptsOf(const Reference& reference) {
  std::vector<std::string> prompts;
  for (const int length : {1, 2, 5, 7, 8, 9, 40, 47, 96}) {
    const std::string prompt = absl::StrCat("p", length, ".");
    if (reference.Has(prompt + "logits")) prompts.push_back(prompt);
  }
  return prompts;
}

/// Tokens before the first whose margin is below `bound`: beyond it rounding may choose another.
inline size_t DecidedTokens(const std::vector<float>& margins, double bound) {
  const auto close = [&](float margin) { return margin < bound; };
  return static_cast<size_t>(std::find_if(margins.begin(), margins.end(), close) - margins.begin());
}

/// models.md 7.1, row "float32".
inline double ToleranceOf(const std::vector<float>& logits) {
  double largest = 1;
  for (const float v : logits) largest = std::max(largest, std::abs(double{v}));
  return 5e-5 * largest;
}

inline double DeviationOf(const std::vector<float>& values) {
  double mean = 0;
  for (const float v : values) mean += v / static_cast<double>(values.size());
  double sum = 0;
  for (const float v : values) sum += (v - mean) * (v - mean);
  return std::sqrt(sum / static_cast<double>(values.size()));
}

/// models.md 7.1, row "bf16": 1.5 times the errors of the reference's own bfloat16 run, or the
/// floor.
inline Error AllowedInBf16(const Reference& reference, const std::string& prompt) {
  const std::vector<float>& exact = reference[prompt + "logits"];
  const Error own = ErrorOf(reference[prompt + "logits_bf16_run"], exact);
  const double floor = 0.01 * DeviationOf(exact);
  return {.max = std::max(floor, 1.5 * own.max), .mean = std::max(floor, 1.5 * own.mean)};
}

/// Tokens that are drawn after each prompt: references have 32.
inline int GreedyTokens() {
  if (kAddressSanitizer) return 3;
  return UsualDepth() == Depth::kEverything ? 32 : 8;
}

/// The most likely tokens after each prompt, as far as each of `expected` goes.
inline void CheckGreedy(Chain& chain, const std::vector<std::vector<int32_t>>& prompts,
                        std::vector<std::vector<int32_t>> expected) {
  size_t longest = 0;
  for (std::vector<int32_t>& tokens : expected) {
    tokens.resize(std::min(tokens.size(), static_cast<size_t>(GreedyTokens())));
    longest = std::max(longest, tokens.size());
  }
  auto found = GreedyOfAll(chain, prompts, static_cast<int>(longest));
  for (size_t i = 0; i < prompts.size(); ++i) {
    CAPTURE(prompts[i].size());
    found[i].resize(expected[i].size());
    CHECK(found[i] == expected[i]);
  }
}

/// The most likely tokens of `exact` after each prompt, as far as logits that err by `errors[i]`
/// decide them.
inline void CheckDecidedGreedy(Chain& chain, Chain& exact,
                               const std::vector<std::vector<int32_t>>& prompts,
                               const std::vector<double>& errors) {
  std::vector<std::vector<int32_t>> greedy;
  for (Continuation& continued : ContinueAll(exact, prompts, GreedyTokens())) {
    continued.tokens.resize(DecidedTokens(continued.margins, 4 * errors[greedy.size()]));
    greedy.push_back(std::move(continued.tokens));
  }
  CheckGreedy(chain, prompts, greedy);
}

/// Cuts before every layer but the first, so that Chain::hidden shows each one.
inline std::vector<int> EveryLayer(const Checkpoint& checkpoint) {
  std::vector<int> cuts;
  for (int layer = 1; layer < checkpoint.config().layers_count(); ++layer) cuts.push_back(layer);
  return cuts;
}

/// After each layer of the last forward, a stage a layer: `hidden` is the reference's [layers + 1,
/// tokens, hidden], its first entry the embedding.
inline void CheckHidden(const Chain& chain, const std::vector<float>& hidden, size_t layers,
                        double tolerance) {
  const size_t size = hidden.size() / (layers + 1);
  for (size_t layer = 0; layer < layers; ++layer) {
    CAPTURE(layer);
    const std::vector<float> expected(
        hidden.begin() + static_cast<std::ptrdiff_t>((layer + 1) * size),
        hidden.begin() + static_cast<std::ptrdiff_t>((layer + 2) * size));
    CHECK(ErrorOf(chain.hidden(layer), expected).max <= tolerance);
  }
}

}  // namespace neurogrid
