// Ids and decodings equal those of the reference tokenizers (models.md 7.1).
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "engine/model/gguf.h"
#include "tests/support/golden.h"
#include "tests/support/test_data.h"
#include "tests/text/golden_tokenizer.h"

namespace neurogrid {

TEST_CASE("tiny tokenizers of every kind give the reference's ids and texts", "[tokenizer]") {
  const std::string name = GENERATE(from_range(TinyNames()));
  CAPTURE(name);
  const GoldenTokenizer golden = OpenGoldenTokenizer(name);
  CHECK(CorpusMismatches(*golden.tokenizer, golden.reference) == std::vector<std::string>());
}

TEST_CASE("unusual pipelines give the reference's ids", "[tokenizer]") {
  // Added tokens of every flag, Metaspace and Split in every mode, patterns without a scanner, unk.
  CHECK(VariantMismatches(ReadFile(TestData("golden/tokenizers/variants.jsonl.xz"))) ==
        std::vector<std::string>());
}

TEST_CASE("every part that a tokenizer.json may name does what it does in the reference",
          "[tokenizer]") {
  CHECK(ComponentMismatches(ReadFile(TestData("golden/tokenizers/components.jsonl.xz"))) ==
        std::vector<std::string>());
}

TEST_CASE("a GGUF file's tokenizer gives the ids of its tokenizer.json", "[tokenizer]") {
  const std::string name = GENERATE("llama", "qwen3", "lfm2", "gemma3");
  CAPTURE(name);
  const auto gguf = Gguf::Open(Golden("gguf/" + name + "-F32.gguf")).value();
  const auto tokenizer = Tokenizer::FromGguf(*gguf).value();
  const GoldenTokenizer golden = OpenGoldenTokenizer(name);
  CHECK(CorpusMismatches(*tokenizer, golden.reference) == std::vector<std::string>());
  CHECK(tokenizer->bos_id() == golden.tokenizer->bos_id());
  CHECK(tokenizer->eos_id() == golden.tokenizer->eos_id());
  CHECK(tokenizer->adds_bos() == golden.tokenizer->adds_bos());
  CHECK(tokenizer->strips_leading_space() == golden.tokenizer->strips_leading_space());
  for (const int32_t id : golden.tokenizer->end_ids()) {
    CHECK(std::count(tokenizer->end_ids().begin(), tokenizer->end_ids().end(), id) == 1);
  }
}

TEST_CASE("SmolLM2's GGUF file gives the reference's ids and texts", "[tokenizer]") {
  const auto golden = OpenSmolLm2Tokenizer();
  if (!golden.has_value()) SKIP("SmolLM2 is not in the cache folder");
  const Tokenizer& tokenizer = *golden->tokenizer;
  CHECK(CorpusMismatches(tokenizer, golden->reference) == std::vector<std::string>());
  CHECK(AddedTokenMismatches(tokenizer, golden->added) == std::vector<std::string>());
  CHECK(tokenizer.vocab_size() == 49152);
  CHECK_FALSE(tokenizer.adds_bos());
  CHECK(tokenizer.eos_id() == 2);
  CHECK(tokenizer.end_ids() == std::vector<int32_t>{2, 0});
}

TEST_CASE("Gemma 3's GGUF file gives the ids and texts of its tokenizer.json", "[tokenizer]") {
  const std::optional<std::string> path = Gemma3();
  const std::optional<std::string> references = SharedData("golden/tokenizers");
  if (!path.has_value()) SKIP("Gemma 3 270M is not in the cache folder");
  if (!references.has_value()) SKIP("no published tokenizers here");
  const auto gguf = Gguf::Open(*path).value();
  const auto tokenizer = Tokenizer::FromGguf(*gguf).value();
  // The file calls <unused0> a control token, tokenizer.json does not call it special.
  CHECK(CorpusMismatches(*tokenizer, ReadFile(*references + "/gemma3.jsonl.xz")) ==
        std::vector<std::string>{"line 350 (control text) decoded without special: \"\" instead of "
                                 "\"<unused0>\""});
  CHECK(tokenizer->bos_id() == 2);
  CHECK(tokenizer->end_ids() == std::vector<int32_t>{1, 106});  // <eos>, <end_of_turn>
}

TEST_CASE("published tokenizers give the reference's ids and texts", "[tokenizer]") {
  const std::string name = GENERATE(from_range(PublishedNames()));
  CAPTURE(name);
  const auto golden = OpenPublishedTokenizer(name);
  if (!golden.has_value()) SKIP("no published tokenizers here");
  CHECK(CorpusMismatches(*golden->tokenizer, golden->reference) == std::vector<std::string>());
  CHECK(AddedTokenMismatches(*golden->tokenizer, golden->added) == std::vector<std::string>());
  CHECK(StreamMismatches(*golden->tokenizer) == std::vector<std::string>());
}

}  // namespace neurogrid
