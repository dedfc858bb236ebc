// Ids and decodings equal those of the reference tokenizers (models.md 7.1).
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "engine/model/gguf.h"
#include "tests/support/golden.h"
#include "tests/support/test_data.h"
#include "tests/text/golden_tokenizer.h"

namespace neurogrid {

TEST_CASE("tiny tokenizers of every kind give the reference's ids and texts", "[tokenizer]") {
  const std::string name =
      GENERATE("llama", "llama3-rope", "lfm2-bias", "mistral-window", "nemo", "gemma3");
  CAPTURE(name);
  const GoldenTokenizer golden = OpenGoldenTokenizer(name);
  CHECK(CorpusMismatches(*golden.tokenizer, golden.reference) == std::vector<std::string>());
}

TEST_CASE("unusual pipelines give the reference's ids", "[tokenizer]") {
  // Added tokens of every flag, Metaspace and Split in every mode, patterns without a scanner, unk.
  CHECK(VariantMismatches(ReadFile(TestData("golden/tokenizers/variants.jsonl.xz"))) ==
        std::vector<std::string>());
}

TEST_CASE("a GGUF file's tokenizer gives the ids of its tokenizer.json", "[tokenizer]") {
  const auto gguf = Gguf::Open(Golden("gguf/llama-F32.gguf")).value();
  const auto tokenizer = Tokenizer::FromGguf(*gguf).value();
  const GoldenTokenizer golden = OpenGoldenTokenizer("llama");
  CHECK(CorpusMismatches(*tokenizer, golden.reference) == std::vector<std::string>());
  CHECK(tokenizer->bos_id() == 1);
  CHECK(tokenizer->adds_bos());
  CHECK(tokenizer->end_ids() == std::vector<int32_t>{2});
  CHECK(tokenizer->strips_leading_space());
}

TEST_CASE("SmolLM2's GGUF file gives the reference's ids and texts", "[tokenizer]") {
  const std::optional<std::string> path = SmolLm2();
  if (!path.has_value()) SKIP("SmolLM2 is not in the cache folder");
  const auto gguf = Gguf::Open(*path).value();
  const auto tokenizer = Tokenizer::FromGguf(*gguf).value();
  const auto reference = [](const std::string& name) {
    return ReadFile(TestData("golden/tokenizers/" + name));
  };
  CHECK(CorpusMismatches(*tokenizer, reference("smollm2.jsonl.xz")) == std::vector<std::string>());
  CHECK(AddedTokenMismatches(*tokenizer, reference("smollm2.added.jsonl.xz")) ==
        std::vector<std::string>());
  CHECK(tokenizer->vocab_size() == 49152);
  CHECK_FALSE(tokenizer->adds_bos());
  CHECK(tokenizer->eos_id() == 2);
  CHECK(tokenizer->end_ids() == std::vector<int32_t>{2, 0});
}

TEST_CASE("published tokenizers give the reference's ids and texts", "[tokenizer]") {
  const std::optional<std::string> packed = SharedData("tokenizers/tokenizers.tar.xz");
  const std::optional<std::string> references = SharedData("golden/tokenizers");
  if (!packed.has_value() || !references.has_value()) SKIP("no published tokenizers here");
  const std::string name = GENERATE("llama2", "llama3_1", "mistral_nemo");
  CAPTURE(name);
  const TemporaryFolder folder;
  const std::string unpack = "tar -xJf '" + *packed + "' -C '" + folder.path() + "' ./" + name;
  REQUIRE(std::system(unpack.c_str()) == 0);
  const auto tokenizer = Tokenizer::FromDirectory(folder.path() + "/" + name).value();
  CHECK(CorpusMismatches(*tokenizer, ReadFile(*references + "/" + name + ".jsonl.xz")) ==
        std::vector<std::string>());
  CHECK(AddedTokenMismatches(*tokenizer, ReadFile(*references + "/" + name + ".added.jsonl.xz")) ==
        std::vector<std::string>());
}

}  // namespace neurogrid
