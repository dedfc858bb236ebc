// No text of a user, a system message or a tool becomes a control token (models.md 5.5): every
// control token of every family, through the family's own chat template.
#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "engine/text/chat_template.h"
#include "tests/support/golden.h"
#include "tests/support/test_data.h"
#include "tests/text/golden_tokenizer.h"

namespace neurogrid {
namespace {

/// A tokenizer with its chat template, and the tokens that only the template may write.
struct Family {
  std::unique_ptr<Tokenizer> tokenizer;
  std::unique_ptr<ChatTemplate> chat;  // null: a model without one
  std::set<int32_t> control;
};

/// Added tokens of a tokenizer.json by id; of a GGUF file those of type 3.
std::map<int32_t, std::string> AddedTokens(const std::string& path) {
  std::map<int32_t, std::string> added;
  if (path.ends_with(".gguf")) {
    const auto gguf = Gguf::Open(path).value();
    const auto* tokens = gguf->Strings("tokenizer.ggml.tokens").value();
    const auto* types = gguf->Integers("tokenizer.ggml.token_type").value();
    for (size_t id = 0; id < tokens->size(); ++id) {
      if ((*types)[id] == 3) added[static_cast<int32_t>(id)] = (*tokens)[id];
    }
    return added;
  }
  const Json file = ReadJson(path + "/tokenizer.json");
  for (const Json& token : file.Find("added_tokens")->as_array()) {
    added[static_cast<int32_t>(token.Find("id")->as_integer())] =
        token.Find("content")->as_string();
  }
  return added;
}

/// What models.md 5.5 calls control: special tokens, those in the template's source, and markers.
std::set<int32_t> ControlSet(const Tokenizer& tokenizer,
                             const std::map<int32_t, std::string>& added,
                             const std::string& source) {
  std::set<int32_t> control;
  for (const auto& [id, content] : added) {
    const bool blank =
        absl::StrReplaceAll(content, {{"▁", ""}, {" ", ""}, {"\n", ""}, {"\t", ""}}).empty();
    const bool marker = content == "<think>" || content == "</think>" || content == "<tool_call>" ||
                        content == "</tool_call>";
    const bool in_source = !blank && absl::StrContains(source, content);
    // No spelling leads to <unk>: it is what the model makes of unknown text.
    if (content == "<unk>") continue;
    if (tokenizer.IsSpecial(id) || in_source || marker) control.insert(id);
  }
  return control;
}

/// Names of the published families whose template is not in their tokenizer_config.json.
std::optional<std::string> TemplateBeside(const std::string& name) {
  if (name == "llama2") return TestData("golden/templates/sources/llama2_by_hand.jinja");
  return SharedData("golden/templates/sources/" + name + ".jinja");
}

std::optional<Family> OpenFamily(const std::string& name) {
  const bool tiny = absl::StartsWith(name, "tiny/");
  const std::optional<std::string> path = tiny                ? Golden(name)
                                          : name == "smollm2" ? SmolLm2()
                                                              : PublishedTokenizer(name);
  if (!path.has_value()) return std::nullopt;
  Family family;
  ChatTemplateSources sources;
  if (name == "smollm2") {
    const auto gguf = Gguf::Open(*path).value();
    family.tokenizer = Tokenizer::FromGguf(*gguf).value();
    sources = ChatTemplateSourcesOfGguf(*gguf).value();
  } else {
    family.tokenizer = Tokenizer::FromDirectory(*path).value();
    sources = ChatTemplateSourcesOfDirectory(*path).value();
  }
  if (sources.templates.empty() && !tiny) {
    sources.templates.push_back({"default", ReadFile(TemplateBeside(name).value())});
  }
  std::string source;
  if (!sources.templates.empty()) {
    family.chat = ChatTemplate::Compile(std::move(sources)).value();
    source = family.chat->source();
    family.tokenizer->AddControlText(source);
  }
  family.control = ControlSet(*family.tokenizer, AddedTokens(*path), source);
  return family;
}

std::vector<std::string> FamilyNames() {
  std::vector<std::string> names = PublishedNames();
  names.push_back("smollm2");
  for (const std::string& name : TinyNames()) names.push_back("tiny/" + name);
  return names;
}

std::vector<int32_t> ControlIds(const Family& family, const PromptText& text) {
  std::vector<int32_t> ids = family.tokenizer->Encode(text, {}).value();
  std::erase_if(ids, [&](int32_t id) { return !family.control.contains(id); });
  return ids;
}

/// Conversations that show `content` in one of the places that are not the template's.
Json Conversation(const std::string& place, const std::string& content) {
  const auto message = [](const char* role, const std::string& text) {
    return Json(Json::Object{{"role", Json(role)}, {"content", Json(text)}});
  };
  if (place == "user") return Json(Json::Array{message("user", content)});
  if (place == "system") {
    return Json(Json::Array{message("system", content), message("user", "x")});
  }
  Json call = Json(Json::Object{
      {"id", Json("abcdefghi")},
      {"type", Json("function")},
      {"function", Json(Json::Object{{"name", Json("f")}, {"arguments", Json(Json::Object{})}})}});
  Json asks = message("assistant", "");
  asks.Set("tool_calls", Json(Json::Array{std::move(call)}));
  Json answer = message("tool", content);
  answer.Set("tool_call_id", Json("abcdefghi"));
  answer.Set("name", Json("f"));
  return Json(Json::Array{message("user", "x"), std::move(asks), std::move(answer)});
}

}  // namespace

TEST_CASE("no control token of any family comes from the content of a message",
          "[tokenizer][provenance]") {
  const std::string name = GENERATE(from_range(FamilyNames()));
  CAPTURE(name);
  const std::optional<Family> family = OpenFamily(name);
  if (!family.has_value()) SKIP("this tokenizer is not here");
  const Tokenizer& tokenizer = *family->tokenizer;
  CHECK(family->control.size() >= 2);
  std::vector<std::string> spellings;
  for (const int32_t id : family->control) {
    const std::string spelling(tokenizer.Bytes(id));
    spellings.push_back(spelling);
    // The template may write it, and nobody else, in whatever company.
    CHECK(IdsOf(tokenizer, spelling) == std::vector<int32_t>{id});
    for (const std::string& text :
         {spelling, absl::StrCat("a", spelling, spelling, " ", spelling, "\n", spelling)}) {
      CHECK(ControlIds(*family, {{text, Origin::kInput}}).empty());
    }
  }
  if (family->chat == nullptr) return;
  const std::string forged =
      absl::StrCat(absl::StrJoin(spellings, ""), " ", absl::StrJoin(spellings, " "), "\n",
                   absl::StrJoin(spellings, "\n"));
  int rendered = 0;
  for (const std::string place : {"user", "system", "tool"}) {
    CAPTURE(place);
    ChatTemplate::Input input;
    input.messages = Conversation(place, "y");
    const absl::StatusOr<PromptText> harmless = family->chat->Render(input);
    if (!harmless.ok()) continue;  // the template knows no such role
    ++rendered;
    input.messages = Conversation(place, forged);
    const PromptText prompt = family->chat->Render(input).value();
    CHECK(ControlIds(*family, prompt) == ControlIds(*family, *harmless));
    // And the comparison can fail: were the content the template's, its tokens would be found.
    PromptText trusted = prompt;
    for (TextSegment& segment : trusted) segment.origin = Origin::kTemplate;
    CHECK(ControlIds(*family, trusted).size() >= spellings.size());
  }
  CHECK(rendered >= 1);
}

}  // namespace neurogrid
