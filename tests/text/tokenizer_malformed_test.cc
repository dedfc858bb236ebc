// Broken tokenizer files: an error that names the file and the fault, or the reference's result.
#include <catch2/catch_test_macros.hpp>
#include <catch2/matchers/catch_matchers_string.hpp>
#include <random>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/json.h"
#include "tests/support/golden.h"
#include "tests/support/test_data.h"
#include "tests/text/gguf_file.h"
#include "tests/text/golden_tokenizer.h"

namespace neurogrid {
namespace {

using Catch::Matchers::ContainsSubstring;

/// A sound tokenizer.json to be spoiled by replacing parts of its text.
const std::string kSound =
    R"({"added_tokens":[{"id":4,"content":"<s>","special":true,"normalized":false}],)"
    R"("normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":true},)"
    R"("post_processor":{"type":"TemplateProcessing","single":[{"SpecialToken":{"id":"<s>"}},)"
    R"({"Sequence":{"id":"A"}}],"special_tokens":{"<s>":{"ids":[4]}}},"decoder":{"type":"ByteLevel"},)"
    R"("model":{"type":"BPE","dropout":null,"vocab":{"a":0,"b":1,"ab":2,"c":3},"merges":["a b"]}})";

std::string Spoiled(const std::string& from, const std::string& to) {
  std::string json = kSound;
  REQUIRE(absl::StrReplaceAll({{from, to}}, &json) > 0);
  return json;
}

void CheckRefused(const std::string& json, const std::string& message) {
  const auto tokenizer = TokenizerOf(json);
  INFO(json.substr(0, 300));
  REQUIRE_FALSE(tokenizer.ok());
  CHECK(tokenizer.status().code() == absl::StatusCode::kInvalidArgument);
  CHECK_THAT(std::string(tokenizer.status().message()), ContainsSubstring("tokenizer.json: "));
  CHECK_THAT(std::string(tokenizer.status().message()), ContainsSubstring(message));
}

GgufFile ByteLevelGguf(const std::string& pre) {
  return GgufFile()
      .String("general.architecture", "llama")
      .String("tokenizer.ggml.model", "gpt2")
      .String("tokenizer.ggml.pre", pre);
}

void CheckGgufRefused(const GgufFile& file, const std::string& message) {
  const auto tokenizer = TokenizerOfGguf(file.Bytes());
  REQUIRE_FALSE(tokenizer.ok());
  CHECK_THAT(std::string(tokenizer.status().message()), ContainsSubstring("model.gguf"));
  CHECK_THAT(std::string(tokenizer.status().message()), ContainsSubstring(message));
}

}  // namespace

TEST_CASE("the file that the others here spoil is sound", "[tokenizer][malformed]") {
  const auto tokenizer = TokenizerOf(kSound).value();
  CHECK(IdsOf(*tokenizer, "abc", Origin::kInput, true) == std::vector<int32_t>{4, 2, 3});
}

TEST_CASE("parts that are not known are named", "[tokenizer][malformed]") {
  const std::string normalizer = R"("normalizer":null)";
  CheckRefused(
      Spoiled(normalizer,
              R"("normalizer":{"type":"Sequence","normalizers":[{"type":"BertNormalizer"}]})"),
      "normalizer \"BertNormalizer\" is not supported, only Sequence, NFC, NFD");
  CheckRefused(Spoiled(normalizer, R"("normalizer":{"type":"Replace","content":""})"),
               "normalizer Replace has no \"pattern\"");
  CheckRefused(Spoiled(R"({"type":"ByteLevel","add_prefix_space":false,"use_regex":true})",
                       R"({"type":"BertPreTokenizer"})"),
               "pre_tokenizer \"BertPreTokenizer\" is not supported, only Sequence, Split");
  CheckRefused(Spoiled(R"("decoder":{"type":"ByteLevel"})", R"("decoder":{"type":"WordPiece"})"),
               "decoder \"WordPiece\" is not supported, only Sequence, ByteLevel");
  CheckRefused(Spoiled(R"("decoder":{"type":"ByteLevel"})", R"("decoder":null)"),
               "there is no decoder");
  CheckRefused(Spoiled("TemplateProcessing", "RobertaProcessing"),
               "post_processor \"RobertaProcessing\" is not supported, only Sequence");
  CheckRefused(Spoiled(R"("type":"BPE")", R"("type":"Unigram")"), "model type \"Unigram\"");
  CheckRefused(Spoiled(R"("dropout":null)", R"("dropout":0.1)"), "model.dropout");
  CheckRefused(Spoiled(R"("dropout":null)", R"("end_of_word_suffix":"</w>")"),
               "model.end_of_word_suffix");
}

TEST_CASE("vocabularies that contradict themselves are refused", "[tokenizer][malformed]") {
  CheckRefused(Spoiled(R"("c":3)", R"("c":2)"), "tokens \"ab\" and \"c\" share the id 2");
  CheckRefused(Spoiled(R"("c":3)", R"("a":3)"), "stands twice");
  CheckRefused(Spoiled(R"("c":3)", R"("c":-1)"), "the id of token \"c\" is -1");
  CheckRefused(Spoiled(R"("c":3)", R"("c":2147483647)"), "the id of token \"c\" is 2147483647");
  CheckRefused(Spoiled(R"("c":3)", R"("c":"3")"), "the id of token \"c\" is \"3\"");
  CheckRefused(Spoiled(R"("c":3)", R"("c":3.5)"), "the id of token \"c\" is 3.5");
  CheckRefused(Spoiled(R"("id":4)", R"("id":3)"), "added token \"<s>\" has id 3, which is \"c\"");
  CheckRefused(Spoiled(R"("c":3)", R"("<s>":3)"),
               "added token \"<s>\" has id 4 but the vocabulary");
  CheckRefused(
      Spoiled(R"("added_tokens":[)", R"("added_tokens":[{"id":4,"content":"x","special":false},)"),
      "share the id 4");
  CheckRefused(Spoiled(R"("special":true)", R"("special":"yes")"),
               "added_tokens.special is a string, expected true or false");
  CheckRefused(Spoiled(R"("dropout":null)", R"("unk_token":"<unk>")"),
               "model.unk_token \"<unk>\" is not in the vocabulary");
}

TEST_CASE("merges of unknown tokens are refused", "[tokenizer][malformed]") {
  CheckRefused(Spoiled(R"(["a b"])", R"(["a x"])"), "needs the token \"x\"");
  CheckRefused(Spoiled(R"(["a b"])", R"(["b a"])"), "needs the token \"ba\"");
  CheckRefused(Spoiled(R"(["a b"])", R"(["ab"])"), "merge 0 is \"ab\", expected two tokens");
  CheckRefused(Spoiled(R"(["a b"])", R"(["a b "])"), "merge 0 is");
  CheckRefused(Spoiled(R"(["a b"])", R"([["a","b","c"]])"), "merge 0 is");
  CheckRefused(Spoiled(R"(["a b"])", R"([7])"), "merge 0 is 7");
  CheckRefused(Spoiled(R"(["a b"])", R"({})"), "model has no list \"merges\"");
}

TEST_CASE("a pair that is merged twice has its last rank", "[tokenizer][malformed]") {
  const auto tokenizer = TokenizerOf(Spoiled(R"("c":3},"merges":["a b"])",
                                             R"("c":3,"bc":5},"merges":["a b","b c","a b"])"))
                             .value();
  CHECK(IdsOf(*tokenizer, "abc") == std::vector<int32_t>{0, 5});
}

TEST_CASE("holes in the ids are ids without a token", "[tokenizer][malformed]") {
  const auto tokenizer = TokenizerOf(Spoiled(R"("c":3)", R"("c":1000)")).value();
  CHECK(IdsOf(*tokenizer, "abc") == std::vector<int32_t>{2, 1000});
  CHECK(tokenizer->vocab_size() == 1001);
  CHECK(tokenizer->Bytes(500).empty());
}

TEST_CASE("templates and patterns that make no sense are refused", "[tokenizer][malformed]") {
  CheckRefused(Spoiled(R"({"Sequence":{"id":"A"}})", R"({"SpecialToken":{"id":"<s>"}})"),
               "has 0 sequences");
  CheckRefused(Spoiled(R"("ids":[4])", R"("ids":[9000000])"), "the id of token \"<s>\" is 9000000");
  CheckRefused(Spoiled(R"("ids":[4])", R"("ids":[5])"), "adds id 5, which has no token");
  CheckRefused(Spoiled(R"({"SpecialToken":{"id":"<s>"}})", R"({"SpecialToken":{"id":"<z>"}})"),
               "lists no ids for \"<z>\"");
  const auto split = [](const std::string& pattern) {
    return Spoiled(
        R"("pre_tokenizer":{)",
        absl::StrCat(R"("pre_tokenizer":{"type":"Split","behavior":"Isolated","pattern":)", pattern,
                     R"(},"ignored":{)"));
  };
  CheckRefused(split(R"({"Regex":"(a"})"), "does not compile");
  CheckRefused(split(absl::StrCat(R"({"Regex":")", std::string(5000, 'a'), "\"}")),
               "longer than 4096");
  CheckRefused(split(R"({"String":""})"), "empty pattern");
  CheckRefused(split("{}"), "pre_tokenizer Split has no \"Regex\"");
}

TEST_CASE("what the reference's patterns may say and ours cannot is named",
          "[tokenizer][malformed]") {
  const auto pattern = [](const std::string& regex) {
    return Spoiled(R"("normalizer":null)",
                   absl::StrCat(R"("normalizer":{"type":"Replace","pattern":{"Regex":")", regex,
                                R"("},"content":""})"));
  };
  CheckRefused(pattern("[a-z&&[^b]]"), "an intersection of classes at byte 4");
  CheckRefused(pattern("[a[bc]]"), "a class inside of a class at byte 2");
  CheckRefused(pattern(R"([\\W_])"), R"(\W inside of a class)");
  CheckRefused(pattern(R"(\\d{1,3}+)"), "+ after a counted repeat");
  CheckRefused(pattern("(?s).*"), "(?s");
  CheckRefused(pattern("[]a]"), "a class that begins with ]");
  CHECK(TokenizerOf(pattern(R"(\\p{L}+(?i:x)[[:alpha:]]\\d{2})")).ok());
}

TEST_CASE("a pattern that explodes is cut off", "[tokenizer][malformed]") {
  const auto tokenizer =
      TokenizerOf(
          Spoiled(
              R"("pre_tokenizer":{"type":"ByteLevel",)",
              R"("pre_tokenizer":{"type":"Split","behavior":"Isolated","pattern":{"Regex":"(a+)+$"},)"))
          .value();
  const auto ids = tokenizer->Encode({{std::string(60, 'a') + "b", Origin::kInput}}, {});
  REQUIRE_FALSE(ids.ok());
  CHECK_THAT(std::string(ids.status().message()), ContainsSubstring("cannot split text"));
}

TEST_CASE("files that are no JSON objects, or not there, are refused", "[tokenizer][malformed]") {
  CheckRefused("[]", "expected an object");
  CheckRefused("{}", "there is no decoder");
  CheckRefused(kSound.substr(0, kSound.size() / 2), "at byte");
  CheckRefused(Spoiled("\"c\"", "\"\xff\""), "at byte");
  CheckRefused(absl::StrCat("{\"decoder\":", std::string(100, '['), std::string(100, ']'), "}"),
               "nested deeper");
  const auto absent = Tokenizer::FromDirectory("/nonexistent");
  CHECK(absent.status().code() == absl::StatusCode::kNotFound);
}

TEST_CASE("any change of a byte gives an error or a tokenizer that works",
          "[tokenizer][malformed]") {
  const std::string sound = ReadFile(Golden("tiny/llama") + "/tokenizer.json");
  std::mt19937 random(4);
  int refused = 0;
  for (int i = 0; i < 400; ++i) {
    std::string json = sound;
    for (int change = 0; change < 1 + i % 3; ++change) {
      json[random() % json.size()] = static_cast<char>(random());
    }
    const auto tokenizer = TokenizerOf(json);
    if (!tokenizer.ok()) {
      ++refused;
      continue;
    }
    const auto ids = (*tokenizer)->Encode({{"Hello <s> wörld", Origin::kInput}}, {});
    if (ids.ok()) Decode(**tokenizer, *ids, false);
  }
  CHECK(refused > 100);
}

TEST_CASE("GGUF vocabularies that contradict themselves are refused", "[tokenizer][malformed]") {
  const std::vector<std::string> tokens = {"a", "b", "ab"};
  const auto with = [&](const std::string& pre) {
    return ByteLevelGguf(pre).Strings("tokenizer.ggml.tokens", tokens);
  };
  const auto sound = [&] {
    return with("smollm").Integers("tokenizer.ggml.token_type", {1, 1, 1});
  };
  CHECK(TokenizerOfGguf(sound().Strings("tokenizer.ggml.merges", {"a b"}).Bytes()).ok());
  CheckGgufRefused(sound(), "tokenizer.ggml.merges");
  CheckGgufRefused(sound().Strings("tokenizer.ggml.merges", {"ab"}), "merges[0] is \"ab\"");
  CheckGgufRefused(sound().Strings("tokenizer.ggml.merges", {""}), "merges[0] is \"\"");
  CheckGgufRefused(sound().Strings("tokenizer.ggml.merges", {"a c"}), "needs the token \"c\"");
  CheckGgufRefused(
      sound().Strings("tokenizer.ggml.merges", {"a b"}).Integer("tokenizer.ggml.bos_token_id", 3),
      "tokenizer.ggml.bos_token_id is 3 but there are 3 tokens");
  CheckGgufRefused(with("smollm"), "tokenizer.ggml.token_type");
  CheckGgufRefused(with("smollm").Integers("tokenizer.ggml.token_type", {1, 1}),
                   "token_type has 2 entries but there are 3 tokens");
  CheckGgufRefused(with("smollm").Integers("tokenizer.ggml.token_type", {1, 1, 9}),
                   "token_type[2] is 9");
  CheckGgufRefused(with("unheard-of").Integers("tokenizer.ggml.token_type", {1, 1, 1}),
                   "tokenizer.ggml.pre \"unheard-of\" is not supported, only smollm, gpt-2");
  CheckGgufRefused(ByteLevelGguf("smollm")
                       .Strings("tokenizer.ggml.tokens", {"a", "\xff"})
                       .Integers("tokenizer.ggml.token_type", {1, 1}),
                   "");
  CheckGgufRefused(GgufFile().String("tokenizer.ggml.model", "bert"),
                   "tokenizer.ggml.model \"bert\" is not supported");
  CheckGgufRefused(GgufFile()
                       .String("tokenizer.ggml.model", "llama")
                       .Strings("tokenizer.ggml.tokens", tokens)
                       .Integers("tokenizer.ggml.token_type", {1, 1, 1})
                       .Floats("tokenizer.ggml.scores", {0}),
                   "tokenizer.ggml.scores has 1 entries but there are 3 tokens");
}

}  // namespace neurogrid
