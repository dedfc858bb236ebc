// What a precision changes in a model's answers: accuracy_bench MODEL TEXT PRECISION... Predictions
// are compared with those in bf16, token by token, on windows of the text of which the second half
// counts, as llama.cpp's llama-perplexity does; accuracy.py sets both beside each other. One line
// of JSON for each precision.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/mapped_file.h"
#include "engine/device.h"
#include "engine/model/checkpoint.h"
#include "engine/model/gguf.h"
#include "engine/text/tokenizer.h"
#include "tests/engine/chain.h"
#include "tests/engine/input_rounding.h"
#include "tests/engine/rounded_weights.h"

namespace neurogrid {
namespace {

constexpr size_t kWindowTokens = 512;

/// One position's prediction beside the one that it should be.
struct Difference {
  double divergence = 0;  // Kullback-Leibler, nats
  bool same_top = false;
  double loss = 0;  // of the text's own next token, nats
  double loss_of_base = 0;
};

/// log(sum of exp(logits)).
double LogSum(const float* logits, int vocab) {
  const double most = double{*std::max_element(logits, logits + vocab)};
  double sum = 0;
  for (int i = 0; i < vocab; ++i) sum += std::exp(double{logits[i]} - most);
  return most + std::log(sum);
}

Difference Compare(const float* found, const float* base, int vocab, int32_t next) {
  const double found_sum = LogSum(found, vocab);
  const double base_sum = LogSum(base, vocab);
  Difference difference;
  for (int i = 0; i < vocab; ++i) {
    const double log_p = double{base[i]} - base_sum;
    difference.divergence += std::exp(log_p) * (log_p - (double{found[i]} - found_sum));
  }
  difference.same_top =
      std::max_element(found, found + vocab) - found == std::max_element(base, base + vocab) - base;
  difference.loss = found_sum - double{found[next]};
  difference.loss_of_base = base_sum - double{base[next]};
  return difference;
}

std::vector<Difference> Differences(Chain& chain, Chain& base, const std::vector<int32_t>& ids) {
  std::vector<Difference> differences;
  const auto vocab = static_cast<size_t>(chain.vocab());
  for (size_t first = 0; first + kWindowTokens <= ids.size(); first += kWindowTokens) {
    const auto begin = ids.begin() + static_cast<std::ptrdiff_t>(first);
    const std::vector<int32_t> window(begin, begin + kWindowTokens);
    const std::vector<float> found = LogitsOf(chain, window);
    const std::vector<float> expected = LogitsOf(base, window);
    for (size_t i = kWindowTokens / 2; i + 1 < kWindowTokens; ++i) {
      differences.push_back(Compare(found.data() + i * vocab, expected.data() + i * vocab,
                                    chain.vocab(), window[i + 1]));
    }
  }
  return differences;
}

/// Prints them and returns their mean divergence.
double Print(absl::string_view name, const std::vector<Difference>& differences) {
  const auto count = static_cast<double>(differences.size());
  std::vector<double> divergences;
  double same = 0, sum = 0, loss = 0, loss_of_base = 0;
  for (const Difference& d : differences) {
    divergences.push_back(d.divergence);
    sum += d.divergence;
    same += d.same_top ? 1 : 0;
    loss += d.loss;
    loss_of_base += d.loss_of_base;
  }
  std::sort(divergences.begin(), divergences.end());
  std::printf(
      "{\"precision\": \"%s\", \"positions\": %zu, \"mean_kl\": %.6f, \"median_kl\": %.6f, "
      "\"kl_99\": %.6f, \"same_top_percent\": %.3f, \"perplexity\": %.4f, \"perplexity_bf16\": "
      "%.4f}\n",
      std::string(name).c_str(), differences.size(), sum / count,
      divergences[divergences.size() / 2], divergences[divergences.size() * 99 / 100],
      100 * same / count, std::exp(loss / count), std::exp(loss_of_base / count));
  std::fflush(stdout);
  return sum / count;
}

/// Whether every precision passes.
absl::StatusOr<bool> Run(const std::string& model, const std::string& text,
                         absl::Span<char* const> names) {
  std::vector<Precision> precisions;
  for (const char* const name : names) {
    NG_ASSIGN_OR_RETURN(precisions.emplace_back(), ParsePrecision(name));
  }
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<Checkpoint> checkpoint, Checkpoint::Open(model));
  std::unique_ptr<Tokenizer> tokenizer;
  if (model.ends_with(".gguf")) {
    NG_ASSIGN_OR_RETURN(const auto gguf, Gguf::Open(model));
    NG_ASSIGN_OR_RETURN(tokenizer, Tokenizer::FromGguf(*gguf));
  } else {
    NG_ASSIGN_OR_RETURN(tokenizer, Tokenizer::FromDirectory(model));
  }
  NG_ASSIGN_OR_RETURN(std::string words, ReadSmallFile(text, size_t{1} << 30));
  const PromptText prompt = {{std::move(words), Origin::kTemplate}};
  NG_ASSIGN_OR_RETURN(const std::vector<int32_t> ids, tokenizer->Encode(prompt, {}));
  if (ids.size() < kWindowTokens) {
    return absl::InvalidArgumentError(text + " has fewer than 512 tokens");
  }
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, MakeDevice("cpu", 0));
  Chain base(*checkpoint, device->ops(), Precision::kBf16);
  double allowed = 0;
  {
    constexpr int64_t kGroup = 32;
    const RoundedWeights weights(checkpoint->weights(), kGroup);
    InputRoundingOps ops(
        device->ops(), [](const Matrix&) { return kGroup; }, /*spreads=*/false);
    Chain chain(checkpoint->config(), weights.store(), ops, Precision::kF32);
    allowed = Print("q8_0 arithmetic", Differences(chain, base, ids));
  }
  bool passes = true;
  for (const Precision precision : precisions) {
    Chain chain(*checkpoint, device->ops(), precision);
    const double found = Print(NameOf(precision), Differences(chain, base, ids));
    std::printf("%s %s the gate\n", std::string(NameOf(precision)).c_str(),
                found <= allowed ? "passes" : "fails");
    passes = passes && found <= allowed;
  }
  return passes;
}

}  // namespace
}  // namespace neurogrid

int main(int argc, char** argv) {
  if (argc < 4) {
    std::fprintf(stderr, "usage: accuracy_bench FILE.gguf|FOLDER TEXT PRECISION...\n");
    return 2;
  }
  const absl::StatusOr<bool> passes =
      neurogrid::Run(argv[1], argv[2], {argv + 3, static_cast<size_t>(argc - 3)});
  if (passes.ok()) return *passes ? 0 : 1;
  std::fprintf(stderr, "%s\n", std::string(passes.status().message()).c_str());
  return 2;
}
