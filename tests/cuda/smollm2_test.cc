// A real model in its own blocks on a GPU, when both are on this machine. The emulator would take
// hours.
#if !defined(NG_SIMT)
#include <catch2/catch_test_macros.hpp>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "tests/cuda/cuda_support.h"
#include "tests/engine/golden_support.h"
#include "tests/support/test_data.h"

namespace neurogrid {
namespace {

std::vector<std::vector<int32_t>> Prompts() {
  const Json json = ReadJson(Golden("smollm2/reference.json"));
  std::vector<std::vector<int32_t>> prompts;
  for (const Json& prompt : json.Find("prompts")->as_array()) {
    std::vector<int32_t>& ids = prompts.emplace_back();
    for (const Json& id : prompt.Find("ids")->as_array()) {
      ids.push_back(static_cast<int32_t>(id.as_integer()));
    }
  }
  return prompts;
}

}  // namespace

TEST_CASE("SmolLM2 in its own blocks says on a GPU what it says on a CPU", "[cuda][smollm2]") {
  const std::optional<std::string> path = SmolLm2();
  if (!path) SKIP("SmolLM2-135M-Instruct is not on this machine");
  const auto checkpoint = Checkpoint::Open(*path).value();
  const std::unique_ptr<Device> gpu = Cuda();
  const std::unique_ptr<Device> cpu = MakeDevice("cpu", 8).value();
  Chain exact(*checkpoint, cpu->ops(), Precision::kF32);
  Chain on_cpu(*checkpoint, cpu->ops(), Precision::kAuto);
  Chain on_gpu(*checkpoint, gpu->ops(), Precision::kAuto);
  const std::vector<std::vector<int32_t>> prompts = Prompts();
  std::vector<float> exact_logits, cpu_logits, gpu_logits;
  for (const std::vector<int32_t>& ids : prompts) {
    const auto add = [&](Chain& chain, std::vector<float>& all) {
      const std::vector<float> logits = LogitsOf(chain, ids);
      all.insert(all.end(), logits.begin(), logits.end());
    };
    add(exact, exact_logits);
    add(on_cpu, cpu_logits);
    add(on_gpu, gpu_logits);
  }
  const Error cpu_error = ErrorOf(cpu_logits, exact_logits);
  const Error gpu_error = ErrorOf(gpu_logits, exact_logits);
  const Error between = ErrorOf(gpu_logits, cpu_logits);
  std::printf(
      "SmolLM2 in blocks: mean and largest error of a logit, CPU %.4f %.3f, GPU %.4f %.3f\n",
      cpu_error.mean, cpu_error.max, gpu_error.mean, gpu_error.max);
  // Both round the activations in the same places; the factor is that of models.md 7.1.
  CHECK(gpu_error.mean <= 1.5 * cpu_error.mean);
  CHECK(gpu_error.mean > 0);

  constexpr int kTokens = 48;
  const std::vector<Continuation> expected = ContinueAll(on_cpu, prompts, kTokens);
  const std::vector<std::vector<int32_t>> found = GreedyOfAll(on_gpu, prompts, kTokens);
  size_t decided_tokens = 0;
  size_t equal_tokens = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    CAPTURE(i);
    // Either logit of a pair may be off by what the two devices differ by.
    const size_t decided = DecidedTokens(expected[i].margins, 2 * between.max);
    const std::vector<int32_t>& tokens = expected[i].tokens;
    CHECK(std::equal(tokens.begin(), tokens.begin() + static_cast<std::ptrdiff_t>(decided),
                     found[i].begin()));
    decided_tokens += decided;
    const auto unequal = std::mismatch(tokens.begin(), tokens.end(), found[i].begin()).first;
    equal_tokens += static_cast<size_t>(unequal - tokens.begin());
  }
  std::printf(
      "SmolLM2 in blocks: %zu tokens decided, %zu equal before the first other one, of %zu\n",
      decided_tokens, equal_tokens, kTokens * prompts.size());
  CHECK(decided_tokens > 0);
}

}  // namespace neurogrid
#endif
