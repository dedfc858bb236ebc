// Token ids of rendered prompts against those of the reference tokenizers, with and without regard
// to where the text comes from.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "engine/text/chat_template.h"
#include "engine/text/tokenizer.h"
#include "tests/support/golden.h"
#include "tests/support/test_data.h"

namespace neurogrid {
namespace {

/// A published template beside the tokenizer its ids were made with.
struct Published {
  std::string name;
  std::string tokenizer;  // "": SmolLM2's GGUF file
};

const std::vector<Published>& PublishedTemplates() {
  static const auto* const all = new std::vector<Published>{{"llama3_1", "llama3_1"},
                                                            {"llama3_1_tools", "llama3_1"},
                                                            {"llama3_2", "llama3_1"},
                                                            {"mistral_nemo", "mistral_nemo"},
                                                            {"llama2_by_hand", "llama2"},
                                                            {"qwen2_5", "qwen2_5"},
                                                            {"qwq", "qwen2_5"},
                                                            {"qwen3", "qwen3"},

                                                            {"gemma2", "gemma2"},
                                                            {"gemma3", "gemma3"},
                                                            {"smollm2", ""}};
  return *all;
}

absl::StatusOr<std::unique_ptr<Tokenizer>> TokenizerNamed(const std::string& name) {
  if (!name.empty()) return Tokenizer::FromDirectory(*PublishedTokenizer(name));
  return Tokenizer::FromGguf(*Gguf::Open(*SmolLm2()).value());
}

/// Whether some text that is not the template's spells a token that only the template may write.
bool Forges(const Tokenizer& tokenizer, const PromptText& text, const std::vector<int32_t>& whole) {
  for (const TextSegment& segment : text) {
    if (segment.origin == Origin::kTemplate) continue;
    for (const int32_t id : whole) {
      const absl::string_view bytes = tokenizer.Bytes(id);
      const bool marker = bytes.size() > 2 && tokenizer.Find(bytes) == id &&
                          (absl::StartsWith(bytes, "<") || absl::StartsWith(bytes, "["));
      if (marker && absl::StrContains(segment.text, bytes)) return true;
    }
  }
  return false;
}

TEST_CASE("ids of rendered prompts are the reference's, and no text but the template's counts",
          "[chat_template][R31]") {
  const Published published = GENERATE(from_range(PublishedTemplates()));
  CAPTURE(published.name);
  const auto source = SharedData("golden/templates/sources/" + published.name + ".jinja");
  const auto rendered = SharedData("golden/templates/rendered/" + published.name + ".jsonl");
  if (!source.has_value() || !rendered.has_value()) SKIP("published templates are not here");
  if (published.tokenizer.empty() && !SmolLm2().has_value()) SKIP("the default model is not here");
  const auto tokenizer = TokenizerNamed(published.tokenizer).value();
  ChatTemplateSources sources;
  sources.templates.push_back({"default", ReadFile(*source)});
  sources.special_tokens =
      *ReadJson(TestData("golden/templates/special_tokens.json.xz")).Find(published.name);
  tokenizer->AddControlText(sources.templates[0].source);
  const auto chat = ChatTemplate::Compile(std::move(sources)).value();
  const Json conversations = ReadJson(TestData("golden/templates/conversations.json.xz"));
  std::istringstream in(ReadFile(*rendered));
  int compared = 0;
  int forged = 0;
  for (std::string line; std::getline(in, line);) {
    const Json wanted = ParseJson(line).value();
    const Json* const wanted_ids = wanted.Find("ids");
    if (wanted_ids == nullptr) continue;
    const auto conversation = static_cast<size_t>(wanted.Find("conversation")->as_integer());
    const std::string mode = wanted.Find("mode")->as_string();
    CAPTURE(conversation, mode);
    const Json& asked = conversations.as_array()[conversation];
    ChatTemplate::Input input;
    input.messages = *asked.Find("messages");
    if (const Json* const tools = asked.Find("tools")) input.tools = *tools;
    if (const Json* const kwargs = asked.Find("kwargs")) input.kwargs = *kwargs;
    input.add_generation_prompt = mode == "generation";
    input.continue_final_message = mode == "continue";
    input.now = absl::FromCivil(absl::CivilSecond(2024, 7, 26, 13, 5, 9), absl::UTCTimeZone());
    const PromptText text = chat->Render(input).value();
    std::vector<int32_t> ids;
    for (const Json& id : wanted_ids->as_array()) {
      ids.push_back(static_cast<int32_t>(id.as_integer()));
    }
    PromptText trusted = text;
    for (TextSegment& segment : trusted) segment.origin = Origin::kTemplate;
    CHECK(tokenizer->Encode(trusted, {}).value() == ids);
    const std::vector<int32_t> own = tokenizer->Encode(text, {}).value();
    const bool forges = Forges(*tokenizer, text, ids);
    if (!forges) CHECK(own == ids);
    forged += own != ids ? 1 : 0;
    ++compared;
  }
  CHECK(compared >= 39);
  // The conversation with control tokens in its content; Gemma 2 raises on its system message.
  CHECK(forged >= (published.name == "gemma2" ? 0 : 1));
  CHECK(forged < compared / 2);
}

}  // namespace
}  // namespace neurogrid
