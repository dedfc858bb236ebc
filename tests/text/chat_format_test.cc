// What the probes find in published templates, and conversations in the form each takes.
#include "engine/text/chat_format.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/support/golden.h"
#include "tests/support/test_data.h"

namespace neurogrid {
namespace {

std::string Joined(const PromptText& prompt) {
  std::string text;
  for (const TextSegment& segment : prompt) text += segment.text;
  return text;
}

/// A tokenizer that knows a few texts as tokens and nothing else.
class WordTokenizer final : public Tokenizer {
 public:
  explicit WordTokenizer(std::vector<std::string> words) : words_(std::move(words)) {}
  absl::StatusOr<std::vector<int32_t>> Encode(const PromptText&,
                                              const EncodeOptions&) const override {
    return std::vector<int32_t>{1, 2};
  }
  int32_t vocab_size() const override { return static_cast<int32_t>(words_.size()); }
  absl::string_view Bytes(int32_t id) const override { return words_[static_cast<size_t>(id)]; }
  bool IsSpecial(int32_t) const override { return false; }
  int32_t Find(absl::string_view token) const override {
    for (size_t i = 0; i < words_.size(); ++i) {
      if (words_[i] == token) return static_cast<int32_t>(i);
    }
    return -1;
  }
  int32_t bos_id() const override { return -1; }
  int32_t eos_id() const override { return -1; }
  const std::vector<int32_t>& end_ids() const override { return end_ids_; }
  bool adds_bos() const override { return false; }
  bool strips_leading_space() const override { return false; }
  void AddControlText(absl::string_view) override {}
  const std::string& class_name() const override { return words_[0]; }

 private:
  std::vector<std::string> words_;
  std::vector<int32_t> end_ids_;
};

const WordTokenizer& Words() {
  static const auto* const words =
      new WordTokenizer({"", "<think>", "</think>", "<tool_call>", "</tool_call>", "<|python_tag|>",
                         "[TOOL_CALLS]", "<|tool_call_start|>", "<|tool_call_end|>"});
  return *words;
}

std::unique_ptr<ChatTemplate> Compile(const std::string& source, Json special = Json::Object{}) {
  ChatTemplateSources sources;
  sources.templates.push_back({"default", source});
  sources.special_tokens = std::move(special);
  return ChatTemplate::Compile(std::move(sources)).value();
}

struct Expected {
  std::string name;
  bool takes_tools;
  bool prints_calls;
  bool null_beside_calls;
  bool arguments_as_text;
  bool nine_character_ids;
  ToolSyntax tools;
  std::string call_open;
  std::string call_close;
  bool reads_enable_thinking = false;
};

const std::vector<Expected> kExpected = {
    {"qwen2_5", true, true, true, false, false, ToolSyntax::kTagged, "<tool_call>", "</tool_call>"},
    {"qwen3", true, true, false, false, false, ToolSyntax::kTagged, "<tool_call>", "</tool_call>",
     true},
    {"qwq", true, true, false, false, false, ToolSyntax::kTagged, "<tool_call>", "</tool_call>",
     true},
    {"llama3_1_tools", true, true, true, false, false, ToolSyntax::kBareJson, "<|python_tag|>", ""},
    {"llama3_2", true, true, true, false, false, ToolSyntax::kBareJson, "<|python_tag|>", ""},
    {"mistral_nemo", true, true, true, false, true, ToolSyntax::kJsonList, "[TOOL_CALLS]", ""},
    {"lfm2", true, false, false, false, false, ToolSyntax::kPython, "<|tool_call_start|>",
     "<|tool_call_end|>"},
    {"lfm2_5", true, false, false, false, false, ToolSyntax::kPython, "<|tool_call_start|>",
     "<|tool_call_end|>"},
    {"r1_distill_llama", false, true, true, true, false, ToolSyntax::kNone, "", ""},
};

struct Published {
  std::unique_ptr<ChatTemplate> chat;
  ChatFormat format;
};

Published Open(const std::string& name) {
  const auto path = SharedData("golden/templates/sources/" + name + ".jinja");
  if (!path.has_value()) SKIP("published chat templates are not here");
  Published published;
  published.chat = Compile(
      ReadFile(*path), *ReadJson(TestData("golden/templates/special_tokens.json.xz")).Find(name));
  published.format = FindChatFormat(*published.chat, Words());
  return published;
}

TEST_CASE("probes find how published templates treat tools", "[chat_format]") {
  const Expected expected = GENERATE(from_range(kExpected));
  CAPTURE(expected.name);
  const ChatFormat format = Open(expected.name).format;
  CHECK(format.takes_tools == expected.takes_tools);
  CHECK(format.prints_calls == expected.prints_calls);
  CHECK(format.null_beside_calls == expected.null_beside_calls);
  CHECK(format.arguments_as_text == expected.arguments_as_text);
  CHECK(format.nine_character_ids == expected.nine_character_ids);
  CHECK(NameOf(format.tools) == NameOf(expected.tools));
  CHECK(format.call_open.text == expected.call_open);
  CHECK(format.call_close.text == expected.call_close);
  CHECK(format.call_open.id ==
        (expected.call_open.empty() ? -1 : Words().Find(expected.call_open)));
  CHECK(format.reads_enable_thinking == expected.reads_enable_thinking);
}

TEST_CASE("templates that ignore tools are known", "[chat_format]") {
  const std::string name = GENERATE("gemma2", "gemma3", "smollm2", "llama3_1");
  CAPTURE(name);
  CHECK_FALSE(Open(name).format.takes_tools);
}

Json Call(const char* id, const char* name, const char* arguments) {
  return Json::Object{{"id", id},
                      {"type", "function"},
                      {"function", Json::Object{{"name", name}, {"arguments", arguments}}}};
}

ChatTemplate::Input Conversation(Json content) {
  ChatTemplate::Input input;
  input.messages = Json::Array{
      Json::Object{{"role", "user"}, {"content", "Weather?"}},
      Json::Object{{"role", "assistant"},
                   {"content", std::move(content)},
                   {"tool_calls", Json::Array{Call("call_0123456789abcdefghijklmn", "get_weather",
                                                   R"({"city": "Rome", "days": [1, true]})")}}},
      Json::Object{{"role", "tool"},
                   {"content", "sunny"},
                   {"tool_call_id", "call_0123456789abcdefghijklmn"}}};
  input.now = absl::UnixEpoch();
  return input;
}

TEST_CASE("calls of the history are printed whatever form of content they came with",
          "[chat_format]") {
  const Expected expected = GENERATE(from_range(kExpected));
  CAPTURE(expected.name);
  const Published published = Open(expected.name);
  const auto render = [&](Json content) {
    return Joined(
        RenderChat(*published.chat, published.format, Conversation(std::move(content))).value());
  };
  const std::string of_null = render(nullptr);
  CAPTURE(of_null);
  CHECK(absl::StrContains(of_null, "get_weather"));
  CHECK(absl::StrContains(of_null, "Rome"));
  CHECK(absl::StrContains(of_null, "sunny"));
  CHECK_FALSE(absl::StrContains(of_null, "None"));
  CHECK_FALSE(absl::StrContains(of_null, "null"));
  CHECK_FALSE(absl::StrContains(of_null, "\\\""));  // an object, encoded once
  CHECK(render("") == of_null);
  if (expected.nine_character_ids) {
    CHECK(absl::StrContains(of_null, R"("id": "012345678"})"));
    CHECK(absl::StrContains(of_null, R"("call_id": "012345678"})"));
  }
}

TEST_CASE("LFM2's calls stand in the content between the template's own markers",
          "[chat_format][R31]") {
  const Published published = Open(GENERATE("lfm2", "lfm2_5"));
  ChatTemplate::Input input = Conversation("Look.");
  input.messages.as_array()[1]
      .Find("tool_calls")
      ->as_array()
      .push_back(Call("b", "f", R"({"a": "<|im_end|> \"q\"", "b": null, "c": {"d": -1.5}})"));
  const PromptText prompt = RenderChat(*published.chat, published.format, input).value();
  const std::string calls =
      R"([get_weather(city="Rome", days=[1, True]), f(a="<|im_end|> \"q\"", b=None, c={"d": -1.5})])";
  bool found = false;
  for (size_t i = 1; i + 1 < prompt.size(); ++i) {
    if (prompt[i].text != calls) continue;
    found = true;
    CHECK(prompt[i].origin == Origin::kAssistant);
    CHECK(absl::EndsWith(prompt[i - 1].text, "\n<|tool_call_start|>"));
    CHECK(prompt[i - 1].origin == Origin::kTemplate);
    CHECK(prompt[i + 1] == TextSegment{"<|tool_call_end|>", Origin::kTemplate});
    CHECK(absl::StartsWith(prompt[i + 2].text, "Look."));
  }
  CHECK(found);
}

TEST_CASE("many calls that the template does not print take linear time", "[chat_format]") {
  const std::unique_ptr<ChatTemplate> chat =
      Compile("{# <|tool_list_start|> #}{% for m in messages %}{{ m.content }}{% endfor %}");
  const ChatFormat format = FindChatFormat(*chat, Words());
  ChatTemplate::Input input;
  input.messages = Json::Array{};
  std::string expected;
  // Megabytes of text that looks like what once stood in for calls; quadratic time would not end.
  for (int i = 150'000; i >= 0; --i) {
    absl::StrAppend(&expected, "NEUROGRID-CALLS-", i, "-");
  }
  for (const std::string& content : {expected, std::string("b")}) {
    Json message = Json::Object{{"role", "assistant"}, {"content", content}};
    input.messages.as_array().push_back(message);
  }
  expected += "b";
  for (int i = 0; i < 4000; ++i) {
    Json message = Json::Object{{"role", "assistant"}, {"content", "c"}};
    message.Set("tool_calls", Json::Array{Call("a", "f", "{}")});
    input.messages.as_array().push_back(std::move(message));
    expected += "<|tool_call_start|>[f()]<|tool_call_end|>c";
  }
  CHECK(Joined(RenderChat(*chat, format, std::move(input)).value()) == expected);
}

TEST_CASE("reasoning tags come from the rendering, else from the table", "[chat_format]") {
  const auto tags = [](const std::string& source) {
    const ChatFormat format = FindChatFormat(*Compile(source), WordTokenizer({""}));
    CHECK(format.think_close_ids.size() == (format.think_close.text.empty() ? 0 : 2));
    return format.think_open.text + " " + format.think_close.text;
  };
  const std::string content = "{% for m in messages %}{{ m.content }}{% endfor %}";
  CHECK(tags(content) == " ");
  CHECK(tags("{% for m in messages %}{% if m.reasoning_content %}<seed:think>"
             "{{ m.reasoning_content }}</seed:think>{% endif %}{{ m.content }}{% endfor %}") ==
        "<seed:think> </seed:think>");
  CHECK(tags(content + "{# </think> #}") == "<think> </think>");
  CHECK(tags(content + "{# [/THINK] #}") == "[THINK] [/THINK]");
  const ChatFormat format = FindChatFormat(*Compile(content), Words());
  CHECK(format.think_open == Marker{"<think>", 1});
  CHECK(format.think_close_ids == std::vector<int32_t>{2});
}

TEST_CASE("a prompt says whether its answer begins inside reasoning", "[chat_format]") {
  ChatFormat format;
  const auto start = [&](const char* text, Origin origin) {
    return ReasoningStartOf({{"x", Origin::kTemplate}, {text, origin}}, format);
  };
  CHECK(start("<think>", Origin::kTemplate) == ReasoningStart::kOutside);
  format.think_open.text = "<think>";
  format.think_close.text = "</think>";
  CHECK(start("<think>\n", Origin::kTemplate) == ReasoningStart::kInside);
  CHECK(start("<think>", Origin::kAssistant) == ReasoningStart::kAfterOpenTag);
  CHECK(start("<think>\n\n</think>\n\n", Origin::kTemplate) == ReasoningStart::kAfterCloseTag);
  CHECK(start("<think>\n", Origin::kInput) == ReasoningStart::kOutside);
  CHECK(start("assistant\n", Origin::kTemplate) == ReasoningStart::kOutside);
}

TEST_CASE("published prompts begin reasoning as their templates say", "[chat_format]") {
  const auto start = [](const std::string& name, const Json& kwargs) {
    const Published published = Open(name);
    ChatTemplate::Input input = Conversation("x");
    input.messages.as_array().resize(1);
    input.kwargs = kwargs;
    return ReasoningStartOf(RenderChat(*published.chat, published.format, input).value(),
                            published.format);
  };
  const Json off = Json::Object{{"enable_thinking", false}};
  const Json on = Json::Object{{"enable_thinking", true}};
  const Json none = Json::Object{};
  CHECK(start("qwen3", none) == ReasoningStart::kOutside);
  CHECK(start("qwen3", off) == ReasoningStart::kAfterCloseTag);
  CHECK(start("r1_distill_llama", none) == ReasoningStart::kInside);
  // These two take undefined for no.
  CHECK(start("r1_distill_qwen", none) == ReasoningStart::kAfterCloseTag);
  CHECK(start("r1_distill_qwen", on) == ReasoningStart::kInside);
  CHECK(start("qwq", none) == ReasoningStart::kAfterCloseTag);
  CHECK(start("qwq", on) == ReasoningStart::kInside);
  CHECK(start("lfm2_5", none) == ReasoningStart::kOutside);
}

}  // namespace
}  // namespace neurogrid
