// What holds for every tokenizer: provenance, limits, streams, BOS rules, threads.
#include "engine/text/tokenizer.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <random>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "engine/model/gguf.h"
#include "tests/support/golden.h"
#include "tests/text/gguf_file.h"
#include "tests/text/golden_tokenizer.h"

namespace neurogrid {
namespace {

std::vector<int32_t> SpecialIds(const Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    if (tokenizer.IsSpecial(id)) ids.push_back(id);
  }
  return ids;
}

int CountSpecial(const Tokenizer& tokenizer, const std::vector<int32_t>& ids) {
  int count = 0;
  // <unk> is what the model makes of unknown text; no spelling leads to it.
  for (const int32_t id : ids) count += tokenizer.IsSpecial(id) && tokenizer.Bytes(id) != "<unk>";
  return count;
}

std::vector<int32_t> Encoded(const Tokenizer& tokenizer, const PromptText& text) {
  return tokenizer.Encode(text, {}).value();
}

/// A tiny byte-level tokenizer: the printable ASCII bytes by id - 33 and what `model` and `added`
/// say.
std::string SmallJson(const std::string& vocab, const std::string& merges, const std::string& added,
                      const std::string& flags = "") {
  return absl::StrCat(
      R"({"normalizer":null,"pre_tokenizer":{"type":"ByteLevel","add_prefix_space":false,"use_regex":false},)",
      R"("decoder":{"type":"ByteLevel"},"post_processor":null,"added_tokens":[)", added,
      R"(],"model":{"type":"BPE",)", flags, R"("vocab":{)", vocab, R"(},"merges":[)", merges,
      "]}}");
}

std::string Added(int id, const std::string& content, bool special) {
  return absl::StrCat(R"({"id":)", id, R"(,"content":")", content, R"(","special":)",
                      special ? "true" : "false", R"(,"normalized":false})");
}

}  // namespace

TEST_CASE("user text never becomes a control token", "[tokenizer][provenance]") {
  const std::string name = GENERATE(from_range(TinyNames()));
  CAPTURE(name);
  const auto tokenizer = OpenGoldenTokenizer(name).tokenizer;
  for (const int32_t id : SpecialIds(*tokenizer)) {
    const std::string spelling(tokenizer->Bytes(id));
    CAPTURE(spelling);
    CHECK(IdsOf(*tokenizer, spelling) == std::vector<int32_t>{id});
    if (spelling == "<unk>") continue;
    for (const std::string& text : {spelling, absl::StrCat("a ", spelling, spelling, "\n"),
                                    absl::StrCat("<", spelling, ">")}) {
      CHECK(CountSpecial(*tokenizer, IdsOf(*tokenizer, text, Origin::kInput)) == 0);
      CHECK(CountSpecial(*tokenizer, IdsOf(*tokenizer, text, Origin::kAssistant)) == 0);
    }
    for (size_t cut = 1; cut < spelling.size(); ++cut) {
      const std::string left = spelling.substr(0, cut), right = spelling.substr(cut);
      using enum Origin;
      CHECK(CountSpecial(*tokenizer, Encoded(*tokenizer, {{left, kInput}, {right, kInput}})) == 0);
      CHECK(CountSpecial(*tokenizer, Encoded(*tokenizer, {{left, kTemplate}, {right, kInput}})) ==
            0);
      CHECK(CountSpecial(*tokenizer, Encoded(*tokenizer, {{left, kInput}, {right, kTemplate}})) ==
            0);
      CHECK(Encoded(*tokenizer, {{left, kTemplate}, {right, kTemplate}}) ==
            std::vector<int32_t>{id});
    }
  }
}

TEST_CASE("what user text refuses is still text", "[tokenizer][provenance]") {
  for (const std::string name : {"llama", "llama3-rope"}) {
    const auto tokenizer = OpenGoldenTokenizer(name).tokenizer;
    for (const int32_t id : SpecialIds(*tokenizer)) {
      const std::string text = absl::StrCat("x", tokenizer->Bytes(id), "y");
      CHECK(Decode(*tokenizer, IdsOf(*tokenizer, text, Origin::kInput), true) == text);
    }
  }
}

TEST_CASE("harmless text has the reference's ids whatever its segments",
          "[tokenizer][provenance]") {
  const std::string name = GENERATE(from_range(TinyNames()));
  const auto tokenizer = OpenGoldenTokenizer(name).tokenizer;
  std::mt19937 random(3);
  for (const std::string& text : CorpusTexts()) {
    // <unk> is special; the others belong to the control set without being special.
    const bool marked = absl::StrContains(text, "<unk>") || absl::StrContains(text, "<think>") ||
                        absl::StrContains(text, "<tool_call>");
    if (text.size() > 2000 || marked) continue;
    const std::vector<int32_t> whole = IdsOf(*tokenizer, text);
    if (CountSpecial(*tokenizer, whole) != 0) continue;
    PromptText segments;
    for (size_t at = 0; at < text.size();) {
      const size_t size = 1 + random() % 5;
      segments.push_back({text.substr(at, size), static_cast<Origin>(random() % 3)});
      at += size;
    }
    CAPTURE(name, text);
    CHECK(Encoded(*tokenizer, segments) == whole);
  }
}

TEST_CASE("a refused control token hides no shorter or later one", "[tokenizer][provenance]") {
  const auto tokenizer =
      TokenizerOf(SmallJson(R"("a":0,"b":1,"c":2)", "",
                            absl::StrCat(Added(3, "abc", true), ",", Added(4, "ab", false), ",",
                                         Added(5, "bc", false))))
          .value();
  CHECK(IdsOf(*tokenizer, "abc", Origin::kTemplate) == std::vector<int32_t>{3});
  CHECK(IdsOf(*tokenizer, "abc", Origin::kInput) == std::vector<int32_t>{4, 2});
  CHECK(IdsOf(*tokenizer, "abcbc", Origin::kInput) == std::vector<int32_t>{4, 2, 5});
  CHECK(Encoded(*tokenizer, {{"ab", Origin::kInput}, {"abc", Origin::kTemplate}}) ==
        std::vector<int32_t>{4, 3});
}

TEST_CASE("merges form control tokens from template text alone", "[tokenizer][provenance]") {
  const std::string vocab = R"("a":0,"b":1,"c":2,"ab":3,"abc":4)";
  const std::string merges = R"("a b","ab c")";
  // ab is a control token, spelled out in the vocabulary, but only found in the text by merging:
  // the added token itself is dropped where it touches a word.
  std::string added = Added(3, "ab", true);
  added.insert(added.size() - 1, R"(,"single_word":true)");
  const auto by_merges = TokenizerOf(SmallJson(vocab, merges, added)).value();
  CHECK(IdsOf(*by_merges, "abc", Origin::kTemplate) == std::vector<int32_t>{4});
  CHECK(IdsOf(*by_merges, "abc", Origin::kInput) == std::vector<int32_t>{0, 1, 2});
  CHECK(IdsOf(*by_merges, "abb", Origin::kTemplate) == std::vector<int32_t>{3, 1});
  CHECK(IdsOf(*by_merges, "abb", Origin::kInput) == std::vector<int32_t>{0, 1, 1});
  CHECK(Encoded(*by_merges, {{"ab", Origin::kTemplate}, {"b", Origin::kInput}}) ==
        std::vector<int32_t>{3, 1});
  CHECK(Encoded(*by_merges, {{"a", Origin::kTemplate}, {"bb", Origin::kInput}}) ==
        std::vector<int32_t>{0, 1, 1});

  SECTION("nor does a piece that is one") {
    const std::string flags = R"("ignore_merges":true,)";
    const auto direct = TokenizerOf(SmallJson(vocab, merges, Added(4, "abc", true), flags)).value();
    CHECK(IdsOf(*direct, "abc", Origin::kInput) == std::vector<int32_t>{3, 2});
  }
  SECTION("even when the same piece came from the template before") {
    std::string file = SmallJson(R"("a":0,"b":1,"c":2,"ab":3,"!":4)", R"("a b")", added);
    REQUIRE(absl::StrReplaceAll({{R"("use_regex":false)", R"("use_regex":true)"}}, &file) == 1);
    const auto words = TokenizerOf(file).value();
    using enum Origin;
    CHECK(Encoded(*words, {{"abb!", kTemplate}, {"abb", kInput}}) ==
          std::vector<int32_t>{3, 1, 4, 0, 1, 1});
    CHECK(Encoded(*words, {{"abb!", kInput}, {"abb", kTemplate}}) ==
          std::vector<int32_t>{0, 1, 1, 4, 3, 1});
  }
}

TEST_CASE("reasoning markers may come from the assistant, tool markers may not",
          "[tokenizer][provenance]") {
  const auto tokenizer = TokenizerOf(SmallJson(R"("<":0,">":1)", "",
                                               absl::StrCat(Added(5, "<think>", false), ",",
                                                            Added(6, "<tool_call>", false))))
                             .value();
  CHECK(IdsOf(*tokenizer, "<think>", Origin::kTemplate) == std::vector<int32_t>{5});
  CHECK(IdsOf(*tokenizer, "<think>", Origin::kAssistant) == std::vector<int32_t>{5});
  CHECK(IdsOf(*tokenizer, "<think>", Origin::kInput) == std::vector<int32_t>{0, 1});
  CHECK(IdsOf(*tokenizer, "<tool_call>", Origin::kTemplate) == std::vector<int32_t>{6});
  CHECK(IdsOf(*tokenizer, "<tool_call>", Origin::kAssistant) == std::vector<int32_t>{0, 1});
}

TEST_CASE("added tokens of the chat template join the control set", "[tokenizer][provenance]") {
  const auto tokenizer =
      TokenizerOf(SmallJson(R"("[":0,"]":1,"Ċ":2)", "",
                            absl::StrCat(Added(5, "[U]", false), ",", Added(6, "[V]", false), ",",
                                         Added(7, R"(\n\n)", false))))
          .value();
  CHECK(IdsOf(*tokenizer, "[U][V]", Origin::kInput) == std::vector<int32_t>{5, 6});
  tokenizer->AddControlText("{{ '[U]' + messages[0].content }}\n\n{% if x %}");
  CHECK(IdsOf(*tokenizer, "[U][V]", Origin::kInput) == std::vector<int32_t>{0, 1, 6});
  CHECK(IdsOf(*tokenizer, "[U][V]", Origin::kTemplate) == std::vector<int32_t>{5, 6});
  // Blank runs are no markers, even where the source contains them.
  CHECK(IdsOf(*tokenizer, "\n\n", Origin::kInput) == std::vector<int32_t>{7});
}

TEST_CASE("parse_special false treats all text as user text", "[tokenizer]") {
  const auto tokenizer = OpenGoldenTokenizer("llama3-rope").tokenizer;
  Tokenizer::EncodeOptions options;
  options.parse_special = false;
  const std::string text = "a<|eot_id|>b";
  const auto ids = tokenizer->Encode({{text, Origin::kTemplate}}, options).value();
  CHECK(ids == IdsOf(*tokenizer, text, Origin::kInput));
  CHECK(ids != IdsOf(*tokenizer, text, Origin::kTemplate));
}

TEST_CASE("encoding stops one token past the limit", "[tokenizer]") {
  const auto tokenizer = OpenGoldenTokenizer("llama").tokenizer;
  const std::string text = "one two three";
  Tokenizer::EncodeOptions options;
  options.add_special = true;
  const int64_t count = static_cast<int64_t>(IdsOf(*tokenizer, text, Origin::kInput, true).size());
  options.tokens_max = count;
  CHECK(tokenizer->Encode({{text, Origin::kInput}}, options).ok());
  options.tokens_max = count - 1;
  const absl::Status status = tokenizer->Encode({{text, Origin::kInput}}, options).status();
  CHECK(status.code() == absl::StatusCode::kResourceExhausted);
  CHECK(status.message() == absl::StrCat("the text has more than ", count - 1, " tokens"));
}

TEST_CASE("text that is not UTF-8 is refused", "[tokenizer]") {
  const auto tokenizer = OpenGoldenTokenizer("llama").tokenizer;
  const absl::Status status = tokenizer->Encode({{"ab\xff", Origin::kInput}}, {}).status();
  CHECK(status.code() == absl::StatusCode::kInvalidArgument);
  CHECK(status.message() == "the text is not UTF-8 at byte 2");
}

TEST_CASE("a stream of tokens gives the text of all of them", "[tokenizer]") {
  const std::string name = GENERATE(from_range(TinyNames()));
  CAPTURE(name);
  CHECK(StreamMismatches(*OpenGoldenTokenizer(name).tokenizer) == std::vector<std::string>());
}

TEST_CASE("a megabyte of one letter is encoded whole", "[tokenizer]") {
  // The first four have a token for every byte.
  const std::string name = GENERATE("llama", "llama3-rope", "qwen2", "lfm2", "mistral-window",
                                    "gemma3", "nemo", "lfm2-bias", "gguf/gemma3-F32.gguf");
  CAPTURE(name);
  const bool gguf = name.ends_with(".gguf");
  const auto tokenizer = gguf ? Tokenizer::FromGguf(*Gguf::Open(Golden(name)).value()).value()
                              : OpenGoldenTokenizer(name).tokenizer;
  const bool whole = name.starts_with("llama") || name == "qwen2" || name == "lfm2";
  for (const std::string letter :
       {"a", " ", "\n", "1", "\xc3\xa9", "\xf0\x9f\x98\x80", "\xcc\x81"}) {
    std::string text;
    while (text.size() < (size_t{1} << 20)) text += letter;
    const std::vector<int32_t> ids = IdsOf(*tokenizer, text, Origin::kInput);
    if (whole) {
      CHECK(Decode(*tokenizer, ids, true) == text);
    } else if (letter == "a" || letter == " " || letter == "1") {
      CHECK(ids.size() > text.size() / 32);
    }
  }
}

TEST_CASE("the Llama classes decide about BOS and EOS themselves", "[tokenizer]") {
  const auto ids = [](const std::string& config) {
    const std::string file =
        SmallJson(R"("a":0,"<s>":1,"</s>":2)", "",
                  absl::StrCat(Added(1, "<s>", true), ",", Added(2, "</s>", true)));
    const auto tokenizer = TokenizerOf(file, config).value();
    return IdsOf(*tokenizer, "a", Origin::kInput, true);
  };
  CHECK(
      ids(R"({"tokenizer_class":"PreTrainedTokenizerFast","bos_token":"<s>","add_bos_token":true})") ==
      std::vector<int32_t>{0});
  CHECK(ids(R"({"tokenizer_class":"LlamaTokenizer","bos_token":"<s>"})") ==
        std::vector<int32_t>{1, 0});
  CHECK(
      ids(R"({"tokenizer_class":"LlamaTokenizerFast","add_bos_token":false,"add_eos_token":true})") ==
      std::vector<int32_t>{0, 2});
  CHECK(ids(R"({"tokenizer_class":"GemmaTokenizer","bos_token":{"content":"<s>"}})") ==
        std::vector<int32_t>{1, 0});
}

TEST_CASE("a tokenizer answers for its tokens", "[tokenizer]") {
  const auto tokenizer = OpenGoldenTokenizer("llama3-rope").tokenizer;
  CHECK(tokenizer->Find("<|eot_id|>") == 2);
  CHECK(tokenizer->eos_id() == 2);
  CHECK(tokenizer->bos_id() == 1);
  CHECK(tokenizer->adds_bos());
  CHECK_FALSE(tokenizer->strips_leading_space());
  CHECK(tokenizer->IsSpecial(0));
  CHECK(tokenizer->Bytes(tokenizer->Find("Ġthe")) == " the");
  CHECK(tokenizer->Find(" the") == -1);
  CHECK(tokenizer->Find("no such token") == -1);
  CHECK(tokenizer->Bytes(-1).empty());
  CHECK(tokenizer->Bytes(tokenizer->vocab_size()).empty());
  CHECK_FALSE(tokenizer->IsSpecial(1 << 30));
  CHECK(tokenizer->class_name() == "PreTrainedTokenizerFast");
}

TEST_CASE("threads share a tokenizer", "[tokenizer]") {
  const auto tokenizer = OpenGoldenTokenizer("llama3-rope").tokenizer;
  const std::vector<std::string> texts = CorpusTexts();
  std::vector<std::vector<int32_t>> expected;
  for (const std::string& text : texts) expected.push_back(IdsOf(*tokenizer, text));
  std::vector<int> wrong(4, 0);
  std::vector<std::thread> threads;
  for (int& count : wrong) {
    threads.emplace_back([&] {
      for (size_t i = 0; i < texts.size(); ++i) count += IdsOf(*tokenizer, texts[i]) != expected[i];
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == std::vector<int>(4, 0));
}

TEST_CASE("by score, no control token and no byte token comes from its spelling",
          "[tokenizer][gguf]") {
  // "ab" is a control token with the best score, "bc" a normal one; a byte token spells itself.
  const std::string file =
      GgufFile()
          .String("general.architecture", "llama")
          .String("tokenizer.ggml.model", "llama")
          .Strings("tokenizer.ggml.tokens",
                   {"<unk>", "<s>", "</s>", "<0x64>", "a", "b", "c", "ab", "bc", "▁", "abc", "u"})
          .Floats("tokenizer.ggml.scores", {0, 0, 0, 0, -9, -9, -9, 0, -2, -9, -3, 0})
          .Integers("tokenizer.ggml.token_type", {2, 3, 3, 6, 1, 1, 1, 3, 1, 1, 1, 4})
          .Bool("tokenizer.ggml.add_space_prefix", false)
          .Bytes();
  const auto tokenizer = TokenizerOfGguf(file).value();
  const auto ids = [&](const std::string& text) { return IdsOf(*tokenizer, text, Origin::kInput); };
  CHECK(ids("ab") == std::vector<int32_t>{4, 5});
  CHECK(ids("abc") == std::vector<int32_t>{10});
  CHECK(ids("bcb") == std::vector<int32_t>{8, 5});
  CHECK(ids("d") == std::vector<int32_t>{3});
  CHECK(ids("z") == std::vector<int32_t>{0});
  CHECK(ids("<0x64>") == std::vector<int32_t>{0});  // neighbouring unknowns are one
  CHECK(ids("aub c") == std::vector<int32_t>{4, 11, 5, 9, 6});
  CHECK(IdsOf(*tokenizer, "ab") == std::vector<int32_t>{7});
  CHECK(tokenizer->adds_bos());
  CHECK(tokenizer->end_ids() == std::vector<int32_t>{2});
  CHECK_FALSE(tokenizer->strips_leading_space());
}

TEST_CASE("by score, user-defined tokens are found whole or merged first", "[tokenizer][gguf]") {
  const std::string file =
      GgufFile()
          .String("general.architecture", "llama")
          .String("tokenizer.ggml.model", "llama")
          .Strings("tokenizer.ggml.tokens",
                   {"<unk>", "<s>", "</s>", "<0xC3>", "a", "▁", "  ", "   ", "▁a", "a b", "aa"})
          .Floats("tokenizer.ggml.scores", {0, 0, 0, 0, -9, -9, -1000, -1000, -1, -1000, -5})
          .Integers("tokenizer.ggml.token_type", {2, 3, 3, 6, 1, 1, 4, 4, 1, 4, 1})
          .Bool("tokenizer.ggml.add_space_prefix", false)
          .Bytes();
  const auto tokenizer = TokenizerOfGguf(file).value();
  const auto ids = [&](const std::string& text) { return IdsOf(*tokenizer, text, Origin::kInput); };
  CHECK(ids("a a") == std::vector<int32_t>{4, 8});
  CHECK(ids("a  a") == std::vector<int32_t>{4, 6, 4});  // although "▁a" has the better score
  CHECK(ids("▁▁a") == std::vector<int32_t>{6, 4});
  CHECK(ids("a ▁ a") == std::vector<int32_t>{4, 7, 4});
  CHECK(ids("     a") == std::vector<int32_t>{7, 6, 4});  // the left run grows first
  CHECK(ids("a ba") == std::vector<int32_t>{9, 4});       // in the raw text, its space as it is
  CHECK(ids("a\xc3\xa9") == std::vector<int32_t>{4, 0});  // one of its two bytes has no token
  CHECK(Decode(*tokenizer, {4, 7, 4}, false) == "a   a");
}

}  // namespace neurogrid
