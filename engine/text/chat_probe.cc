// The probes: small conversations whose renderings tell what a template does.
#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/text/chat_format.h"
#include "engine/text/json_scanner.h"

namespace neurogrid {
namespace {

constexpr absl::string_view kName = "neurogrid_probe";
constexpr absl::string_view kValue = "probe value";

/// Tags that models know which no probe shows (models.md 6.5).
constexpr std::pair<absl::string_view, absl::string_view> kReasoningTags[] = {
    {"<think>", "</think>"}, {"[THINK]", "[/THINK]"}};

Json Message(absl::string_view role, Json content) {
  Json message{Json::Object()};
  message.Set("role", role);
  message.Set("content", std::move(content));
  return message;
}

Json ProbeTool() {
  const Json parameters =
      Json::Object{{"type", "object"},
                   {"properties", Json::Object{{"probe_key", Json::Object{{"type", "string"}}}}}};
  return Json::Object{
      {"type", "function"},
      {"function",
       Json::Object{{"name", kName}, {"description", "probe"}, {"parameters", parameters}}}};
}

/// The text of a rendering, or "" where the template raises.
std::string Render(const ChatTemplate& chat, Json::Array messages, bool tools) {
  ChatTemplate::Input input;
  input.messages = Json(std::move(messages));
  if (tools) input.tools = Json::Array{ProbeTool()};
  input.add_generation_prompt = false;
  input.now = absl::UnixEpoch();
  const absl::StatusOr<PromptText> prompt = chat.Render(input);
  std::string text;
  if (!prompt.ok()) return text;
  for (const TextSegment& segment : *prompt) text += segment.text;
  return text;
}

bool Mentions(const ChatTemplate& chat, absl::string_view word) {
  return std::any_of(chat.sources().begin(), chat.sources().end(),
                     [&](const ChatTemplateSources::Named& named) {
                       return absl::StrContains(named.source, word);
                     });
}

bool TakesTools(const ChatTemplate& chat) {
  for (const bool system : {false, true}) {
    Json::Array messages;
    if (system) messages.push_back(Message("system", "probe"));
    messages.push_back(Message("user", "probe"));
    if (absl::StrContains(Render(chat, std::move(messages), true), kName)) return true;
  }
  return false;
}

/// A question, a call and its result.
Json::Array Calling(const ChatFormat& format) {
  const std::string id = format.nine_character_ids ? "abcDEF123" : "call_0123456789abcdefABCDEFGH";
  const Json arguments = Json::Object{{"probe_key", kValue}};
  const Json function =
      Json::Object{{"name", kName},
                   {"arguments", format.arguments_as_text ? Json(ToString(arguments)) : arguments}};
  Json call = Message("assistant", format.null_beside_calls ? Json() : Json(""));
  call.Set("tool_calls",
           Json::Array{Json::Object{{"id", id}, {"type", "function"}, {"function", function}}});
  Json result = Message("tool", "probe");
  result.Set("tool_call_id", id);
  return {Message("user", "probe"), std::move(call), std::move(result)};
}

int Occurrences(absl::string_view word, absl::string_view text) {
  int count = 0;
  for (size_t at = 0; (at = text.find(word, at)) != absl::string_view::npos; ++at) ++count;
  return count;
}

/// Tries the forms of a call in the history. The rendering of the first one that shows it.
std::string ProbeCalls(const ChatTemplate& chat, ChatFormat& format) {
  const std::string without = Render(chat, {Message("user", "probe")}, format.takes_tools);
  const auto prints = [&](absl::string_view word, const std::string& shown) {
    return Occurrences(word, shown) > Occurrences(word, without);
  };
  for (const bool nine : {false, true}) {
    for (const bool null : {true, false}) {
      for (const bool text : {false, true}) {
        format.nine_character_ids = nine;
        format.null_beside_calls = null;
        format.arguments_as_text = text;
        const std::string shown = Render(chat, Calling(format), format.takes_tools);
        // The tool's description has the name too, but not the value.
        const bool whole = prints(kName, shown) && absl::StrContains(shown, kValue);
        if (!whole || prints("None", shown) || prints("null", shown)) continue;
        format.prints_calls = true;
        return shown;
      }
    }
  }
  format.nine_character_ids = format.null_beside_calls = format.arguments_as_text = false;
  return "";
}

/// <tag> at the end of a text, [TAG] too; "" for none.
absl::string_view TagBefore(absl::string_view text) {
  text = absl::StripTrailingAsciiWhitespace(text);
  if (text.empty()) return "";
  const size_t begin = text.rfind(text.back() == ']' ? '[' : '<');
  if ((text.back() != '>' && text.back() != ']') || begin == absl::string_view::npos) return "";
  return text.substr(begin);
}

/// The tag that closes `open`, when it stands at the front of a text.
absl::string_view TagBehind(absl::string_view open, absl::string_view text) {
  text = absl::StripLeadingAsciiWhitespace(text);
  if (open.size() < 3) return "";
  const std::string close = absl::StrCat(open.substr(0, 1), "/", open.substr(1));
  return absl::StartsWith(text, close) ? text.substr(0, close.size()) : "";
}

Marker MarkerOf(const Tokenizer& tokenizer, absl::string_view text) {
  const int32_t id = text.empty() ? -1 : tokenizer.Find(text);
  return {std::string(text), id};
}

/// The end of the JSON value at the front of a text, or 0.
size_t JsonEnd(absl::string_view text) {
  JsonScanner scanner;
  for (size_t i = 0; i < text.size(); ++i) {
    const JsonScanner::Step step = scanner.Push(text[i]);
    if (step == JsonScanner::Step::kDone) return i + 1;
    if (step != JsonScanner::Step::kMore) return 0;
  }
  return 0;
}

/// Reads from the text around a call how this model writes one.
void ReadCallSyntax(absl::string_view shown, const Tokenizer& tokenizer, ChatFormat& format) {
  // The call's name is the last one: the tool's description stands before it, wherever that is.
  const size_t name = shown.rfind(absl::StrCat("\"", kName, "\""));
  if (name == absl::string_view::npos) return;
  const size_t brace = shown.rfind('{', name);
  if (brace == absl::string_view::npos) return;
  const size_t end = JsonEnd(shown.substr(brace));
  if (end == 0 || !absl::StrContains(shown.substr(brace, end), kValue)) return;
  absl::string_view before = absl::StripTrailingAsciiWhitespace(shown.substr(0, brace));
  const absl::string_view behind = shown.substr(brace + end);
  if (absl::EndsWith(before, "[")) {
    before.remove_suffix(1);
    format.tools = ToolSyntax::kJsonList;
    format.call_open = MarkerOf(tokenizer, TagBefore(before));
    if (format.call_open.text.empty()) format.tools = ToolSyntax::kNone;
    return;
  }
  const absl::string_view open = TagBefore(before);
  const absl::string_view close = TagBehind(open, behind);
  if (!close.empty()) {
    format.tools = ToolSyntax::kTagged;
    format.call_open = MarkerOf(tokenizer, open);
    format.call_close = MarkerOf(tokenizer, close);
    return;
  }
  format.tools = ToolSyntax::kBareJson;
  if (tokenizer.Find("<|python_tag|>") >= 0) {
    format.call_open = MarkerOf(tokenizer, "<|python_tag|>");
  }
}

void FindCalls(const ChatTemplate& chat, const Tokenizer& tokenizer, ChatFormat& format) {
  const std::string shown = ProbeCalls(chat, format);
  if (format.prints_calls) {
    ReadCallSyntax(shown, tokenizer, format);
  } else if (tokenizer.Find("<|tool_call_start|>") >= 0 || Mentions(chat, "<|tool_list_start|>")) {
    format.tools = ToolSyntax::kPython;
    format.call_open = MarkerOf(tokenizer, "<|tool_call_start|>");
    format.call_close = MarkerOf(tokenizer, "<|tool_call_end|>");
  }
}

void FindReasoning(const ChatTemplate& chat, const Tokenizer& tokenizer, ChatFormat& format) {
  constexpr absl::string_view kThought = "neurogrid thought";
  Json message = Message("assistant", "probe");
  message.Set("reasoning_content", kThought);
  const std::string shown = Render(chat, {Message("user", "probe"), std::move(message)}, false);
  absl::string_view open;
  absl::string_view close;
  if (const size_t at = shown.find(kThought.data(), 0, kThought.size()); at != std::string::npos) {
    open = TagBefore(absl::string_view(shown).substr(0, at));
    close = TagBehind(open, absl::string_view(shown).substr(at + kThought.size()));
  }
  for (const auto& [known_open, known_close] : kReasoningTags) {
    if (!close.empty()) break;
    const bool tokens = tokenizer.Find(known_open) >= 0 && tokenizer.Find(known_close) >= 0;
    if (!tokens && !Mentions(chat, known_close)) continue;
    open = known_open;
    close = known_close;
  }
  if (close.empty()) return;
  format.think_open = MarkerOf(tokenizer, open);
  format.think_close = MarkerOf(tokenizer, close);
  if (format.think_close.id >= 0) {
    format.think_close_ids = {format.think_close.id};
    return;
  }
  const absl::StatusOr<std::vector<int32_t>> ids =
      tokenizer.Encode({{format.think_close.text, Origin::kTemplate}}, {});
  if (ids.ok()) format.think_close_ids = *ids;
}

}  // namespace

ChatFormat FindChatFormat(const ChatTemplate& chat_template, const Tokenizer& tokenizer) {
  ChatFormat format;
  format.takes_tools = TakesTools(chat_template);
  format.reads_enable_thinking = Mentions(chat_template, "enable_thinking");
  format.reads_reasoning_effort = Mentions(chat_template, "reasoning_effort");
  format.reads_date = chat_template.reads_clock() || Mentions(chat_template, "date_string");
  FindCalls(chat_template, tokenizer, format);
  FindReasoning(chat_template, tokenizer, format);
  return format;
}

}  // namespace neurogrid
