// Ids that the reference gives for the corpus, and the comparison with a tokenizer of ours.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/text/tokenizer.h"

namespace neurogrid {

/// A tiny tokenizer of the golden data: "llama", "llama3-rope", "lfm2-bias", "mistral-window",
/// "nemo" or "gemma3".
struct GoldenTokenizer {
  std::unique_ptr<Tokenizer> tokenizer;
  std::string reference;  // lines of tokenizer_ids.jsonl
};
GoldenTokenizer OpenGoldenTokenizer(const std::string& name);

/// The tokenizer of a tokenizer.json with these contents, and tokenizer_config.json if not empty.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerOf(const std::string& json,
                                                       const std::string& config = "");

/// The tokenizer of a GGUF file with these bytes.
absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerOfGguf(const std::string& bytes);

/// What differs from the reference's lines: ids without and with special tokens, and both
/// decodings. Empty when nothing does.
std::vector<std::string> CorpusMismatches(const Tokenizer& tokenizer, const std::string& reference);

/// The same for the added tokens of NAME.added.jsonl, in the surroundings that file knows.
std::vector<std::string> AddedTokenMismatches(const Tokenizer& tokenizer,
                                              const std::string& reference);

/// The same for variants.jsonl: unusual pipelines, each with its own tokenizer.json and ids.
std::vector<std::string> VariantMismatches(const std::string& variants);

/// Ids of a text of one origin; the test fails when there are none.
std::vector<int32_t> IdsOf(const Tokenizer& tokenizer, absl::string_view text,
                           Origin origin = Origin::kTemplate, bool add_special = false);

/// The lines of the corpus that are UTF-8.
std::vector<std::string> CorpusTexts();

}  // namespace neurogrid
