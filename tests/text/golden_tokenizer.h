// Ids that the reference gives for the corpus, and the comparison with a tokenizer of ours.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/text/tokenizer.h"

namespace neurogrid {

struct GoldenTokenizer {
  std::unique_ptr<Tokenizer> tokenizer;
  std::string reference;   // lines of NAME.jsonl
  std::string added = "";  // lines of NAME.added.jsonl; "" for the tiny ones
};

/// The tokenizers of the eleven tiny models: one of every kind.
std::vector<std::string> TinyNames();
GoldenTokenizer OpenGoldenTokenizer(const std::string& name);

/// The published tokenizer.json files, which stay outside the tree; nothing where they are absent.
std::vector<std::string> PublishedNames();
std::optional<GoldenTokenizer> OpenPublishedTokenizer(const std::string& name);

/// The one in SmolLM2's GGUF file; nothing where that is absent.
std::optional<GoldenTokenizer> OpenSmolLm2Tokenizer();

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

/// Corpus texts whose tokens, streamed one by one or all at once after any one of them, give
/// another text than Decode, special tokens left out.
std::vector<std::string> StreamMismatches(const Tokenizer& tokenizer);

/// The same for variants.jsonl: unusual pipelines, each with its own tokenizer.json and ids.
std::vector<std::string> VariantMismatches(const std::string& variants);

/// The same for components.jsonl: each part that a tokenizer.json may name, ids and decoded texts.
std::vector<std::string> ComponentMismatches(const std::string& components);

/// Ids of a text of one origin; the test fails when there are none.
std::vector<int32_t> IdsOf(const Tokenizer& tokenizer, absl::string_view text,
                           Origin origin = Origin::kTemplate, bool add_special = false);

/// The lines of the corpus that are UTF-8.
std::vector<std::string> CorpusTexts();

}  // namespace neurogrid
