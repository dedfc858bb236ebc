#include "engine/text/chat_format.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/digest.h"

namespace neurogrid {
namespace {

/// Mistral's templates want 9 alphanumerics. Ours keep their first nine, so that the same call gets
/// the same id in every turn; strange ones are hashed.
std::string NineCharacters(const std::string& id) {
  const auto alphanumeric = [](absl::string_view text) {
    return std::all_of(text.begin(), text.end(),
                       [](char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)); });
  };
  if (id.size() == 9 && alphanumeric(id)) return id;
  absl::string_view ours = id;
  if (absl::ConsumePrefix(&ours, "call_") && ours.size() == 24 && alphanumeric(ours)) {
    return std::string(ours.substr(0, 9));
  }
  return HexOf(Sha256Of(id)).substr(0, 9);
}

void ShortenId(Json* id) {
  if (id != nullptr && id->is_string()) *id = Json(NineCharacters(id->as_string()));
}

/// A JSON value as a Python literal.
void AppendPython(const Json& value, std::string& out) {
  if (value.is_null()) {
    out += "None";
  } else if (value.is_bool()) {
    out += value.as_bool() ? "True" : "False";
  } else if (value.is_array()) {
    out += '[';
    for (size_t i = 0; i < value.as_array().size(); ++i) {
      if (i > 0) out += ", ";
      AppendPython(value.as_array()[i], out);
    }
    out += ']';
  } else if (value.is_object()) {
    out += '{';
    for (size_t i = 0; i < value.as_object().size(); ++i) {
      const JsonMember& member = value.as_object()[i];
      absl::StrAppend(&out, i > 0 ? ", " : "", ToString(Json(member.key)), ": ");
      AppendPython(member.value, out);
    }
    out += '}';
  } else {
    out += ToString(value);
  }
}

/// tool_calls as [f(a=1, b="x")].
std::string PythonCallsOf(const Json& calls) {
  std::string out = "[";
  for (const Json& call : calls.as_array()) {
    const Json* const function = call.Find("function");
    absl::StrAppend(&out, out.size() > 1 ? ", " : "", function->Find("name")->as_string(), "(");
    const Json& arguments = *function->Find("arguments");
    if (arguments.is_object()) {
      for (size_t i = 0; i < arguments.as_object().size(); ++i) {
        const JsonMember& member = arguments.as_object()[i];
        absl::StrAppend(&out, i > 0 ? ", " : "", member.key, "=");
        AppendPython(member.value, out);
      }
    } else {
      AppendPython(arguments, out);
    }
    out += ")";
  }
  return out + "]";
}

/// Arguments that are no JSON object stay text.
void ReadArguments(Json& calls) {
  for (Json& call : calls.as_array()) {
    Json* const arguments = call.Find("function")->Find("arguments");
    if (!arguments->is_string()) continue;
    absl::StatusOr<Json> parsed = ParseJson(arguments->as_string());
    if (parsed.ok() && parsed->is_object()) *arguments = *std::move(parsed);
  }
}

/// Calls that the template does not print stand in the content as WORD + INDEX + "." until the
/// prompt is rendered: the markers around them must be the template's own.
struct WrittenCalls {
  std::string word;                // that nobody wrote: it has the digest of all messages
  std::vector<std::string> calls;  // by index
};

void WriteIntoContent(Json& message, WrittenCalls& written) {
  Json* const content = message.Find("content");
  std::string text = absl::StrCat(written.word, written.calls.size(), ".");
  written.calls.push_back(PythonCallsOf(*message.Find("tool_calls")));
  if (content->is_string()) text += content->as_string();
  if (content->is_array()) {
    for (const Json& part : content->as_array()) text += part.Find("text")->as_string();
  }
  *content = Json(std::move(text));
  std::erase_if(message.as_object(),
                [](const JsonMember& member) { return member.key == "tool_calls"; });
}

/// Takes WORD + INDEX + "." off the front of a text. Null when it has none.
const std::string* TakeWritten(const WrittenCalls& written, absl::string_view& text) {
  absl::string_view rest = text;
  if (!absl::ConsumePrefix(&rest, written.word)) return nullptr;
  const size_t dot = rest.find('.');
  size_t index = 0;
  if (!absl::SimpleAtoi(rest.substr(0, dot), &index) || index >= written.calls.size()) {
    return nullptr;
  }
  text = rest.substr(dot + 1);
  return &written.calls[index];
}

PromptText WithWrittenCalls(const PromptText& prompt, const ChatFormat& format,
                            const WrittenCalls& written) {
  PromptText out;
  const auto add = [&](absl::string_view text, Origin origin) {
    if (text.empty()) return;
    if (!out.empty() && out.back().origin == origin) {
      out.back().text.append(text.data(), text.size());
    } else {
      out.push_back({std::string(text), origin});
    }
  };
  for (const TextSegment& segment : prompt) {
    absl::string_view rest = segment.text;
    while (segment.origin == Origin::kAssistant) {
      const size_t at = rest.find(written.word);
      if (at == absl::string_view::npos) break;
      add(rest.substr(0, at), segment.origin);
      rest.remove_prefix(at);
      const std::string* const calls = TakeWritten(written, rest);
      if (calls == nullptr) break;
      add(format.call_open.text, Origin::kTemplate);
      add(*calls, Origin::kAssistant);
      add(format.call_close.text, Origin::kTemplate);
    }
    add(rest, segment.origin);
  }
  return out;
}

}  // namespace

absl::StatusOr<PromptText> RenderChat(const ChatTemplate& chat_template, const ChatFormat& format,
                                      ChatTemplate::Input input) {
  WrittenCalls written;
  const bool writes = !format.prints_calls && format.tools == ToolSyntax::kPython;
  if (writes) {
    written.word = absl::StrCat("NEUROGRID-CALLS-", HexOf(Sha256Of(ToString(input.messages))), "-");
  }
  for (Json& message : input.messages.as_array()) {
    if (format.nine_character_ids) ShortenId(message.Find("tool_call_id"));
    Json* const calls = message.Find("tool_calls");
    if (calls == nullptr || !calls->is_array() || calls->as_array().empty()) continue;
    if (format.nine_character_ids) {
      for (Json& call : calls->as_array()) ShortenId(call.Find("id"));
    }
    if (!format.arguments_as_text) ReadArguments(*calls);
    Json* const content = message.Find("content");
    const bool empty = content->is_null() || *content == Json("");
    if (empty) *content = format.null_beside_calls ? Json() : Json("");
    if (writes) WriteIntoContent(message, written);
  }
  NG_ASSIGN_OR_RETURN(PromptText prompt, chat_template.Render(input));
  return written.calls.empty() ? prompt : WithWrittenCalls(prompt, format, written);
}

ReasoningStart ReasoningStartOf(const PromptText& prompt, const ChatFormat& format) {
  if (format.think_open.text.empty()) return ReasoningStart::kOutside;
  // Tags are short, and nobody puts many blanks behind one.
  std::string end;
  for (auto segment = prompt.rbegin(); segment != prompt.rend() && end.size() < 256; ++segment) {
    if (segment->origin == Origin::kInput) break;
    end = segment->text + end;
  }
  const absl::string_view text = absl::StripTrailingAsciiWhitespace(end);
  if (absl::EndsWith(text, format.think_open.text)) {
    return absl::StrContains(absl::string_view(end).substr(text.size()), '\n')
               ? ReasoningStart::kInside
               : ReasoningStart::kAfterOpenTag;
  }
  return absl::EndsWith(text, format.think_close.text) ? ReasoningStart::kAfterCloseTag
                                                       : ReasoningStart::kOutside;
}

absl::string_view NameOf(ToolSyntax syntax) {
  switch (syntax) {
    case ToolSyntax::kNone:
      return "";
    case ToolSyntax::kTagged:
      return "tagged_json";
    case ToolSyntax::kBareJson:
      return "bare_json";
    case ToolSyntax::kJsonList:
      return "json_list";
    case ToolSyntax::kPython:
      return "python";
  }
  return "";
}

}  // namespace neurogrid
