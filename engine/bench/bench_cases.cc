#include "engine/bench/bench_cases.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/model/stage_memory.h"

namespace neurogrid {
namespace {

/// The flag `name` as whole numbers of [low, high], or else those of `fallback` that lie there.
absl::StatusOr<std::vector<int>> Numbers(absl::string_view name, const std::string& text,
                                         absl::string_view fallback, int low, int high) {
  std::vector<int> numbers;
  for (const absl::string_view word :
       absl::StrSplit(text.empty() ? fallback : text, ',', absl::SkipEmpty())) {
    int number = 0;
    const bool fits = absl::SimpleAtoi(word, &number) && number >= low && number <= high;
    if (!fits && text.empty()) continue;
    if (!fits) {
      return absl::InvalidArgumentError(absl::StrCat(
          "--", name, ": \"", word, "\" must be a whole number from ", low, " to ", high));
    }
    numbers.push_back(number);
  }
  return numbers;
}

BenchCase Decoding(BenchCase::Kind kind, int sequences, int depth, int tokens) {
  return {.kind = kind, .sequences = sequences, .depth = depth, .steps = tokens, .tokens = tokens};
}

}  // namespace

const char* BenchCase::name() const {
  switch (kind) {
    case Kind::kPrefill:
      return "prefill";
    case Kind::kDecode:
      return "decode";
    case Kind::kBatch:
      return "batch";
  }
  NG_CHECK(false);
}

absl::StatusOr<std::vector<BenchCase>> BenchCases(const BenchOptions& options, bool gpu,
                                                  const ModelConfig& model) {
  const int room = model.max_positions - options.decode_tokens;
  if (room < 0) {
    return absl::InvalidArgumentError(absl::StrCat("--decode: ", options.decode_tokens,
                                                   " is more than the ", model.max_positions,
                                                   " tokens that the model has"));
  }
  constexpr int kSequencesMax = 1024;
  NG_ASSIGN_OR_RETURN(
      const std::vector<int> prompts,
      Numbers("prompt", options.prompts, gpu ? "512,2048,8192" : "512", 1, model.max_positions));
  const int longest = prompts.empty() ? 0 : *std::max_element(prompts.begin(), prompts.end());
  NG_ASSIGN_OR_RETURN(
      const std::vector<int> prompt_depths,
      Numbers("prompt-depths", options.prompt_depths, "0", 0, model.max_positions - longest));
  NG_ASSIGN_OR_RETURN(const std::vector<int> depths,
                      Numbers("depths", options.depths, gpu ? "0,4096,32768" : "0", 0, room));
  NG_ASSIGN_OR_RETURN(
      const std::vector<int> batches,
      Numbers("batches", options.batches, gpu ? "1,8,64,256" : "1,8,32", 1, kSequencesMax));
  const int suits = gpu ? std::min(1024, room) : 0;
  const int batch_depth = options.batch_depth >= 0 ? options.batch_depth : suits;
  if (batch_depth > room) {
    return absl::InvalidArgumentError(
        absl::StrCat("--batch-depth: ", batch_depth, " is more than the ", room,
                     " tokens that the model has before those it decodes"));
  }
  std::vector<BenchCase> cases;
  for (const int tokens : prompts) {
    const int rows = std::min(tokens, options.chunk_tokens);
    for (const int depth : prompt_depths) {
      cases.push_back({.kind = BenchCase::Kind::kPrefill,
                       .depth = depth,
                       .steps = (tokens + rows - 1) / rows,
                       .rows = rows,
                       .tokens = tokens});
    }
  }
  for (const int depth : depths) {
    cases.push_back(Decoding(BenchCase::Kind::kDecode, 1, depth, options.decode_tokens));
  }
  for (const int sequences : batches) {
    const bool seen = std::find(depths.begin(), depths.end(), batch_depth) != depths.end();
    if (sequences == 1 && seen) continue;
    cases.push_back(
        Decoding(BenchCase::Kind::kBatch, sequences, batch_depth, options.decode_tokens));
  }
  return cases;
}

BatchLimits LimitsFor(const std::vector<BenchCase>& cases, const ModelConfig& model) {
  BatchLimits limits;
  for (const BenchCase& c : cases) {
    limits.rows_max = std::max(limits.rows_max, c.sequences * c.rows);
    limits.sequences_max = std::max(limits.sequences_max, c.sequences);
    limits.pages = std::max(limits.pages, c.sequences * c.pages_each());
    limits.positions_max = std::max(limits.positions_max, c.pages_each() * kPageTokens);
  }
  limits.samples_max = limits.sequences_max;
  limits.window = WidestWindow(model);
  if (limits.window > 0) limits.window_pages = limits.pages;
  if (!AttendsToAll(model)) limits.pages = 0;
  if (model.conv_taps > 0) limits.slots = limits.sequences_max;
  limits.vocab_size = model.vocab_size;
  return limits;
}

}  // namespace neurogrid
