#include "engine/text/chat_template.h"

#include <utility>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/text/jinja.h"

namespace neurogrid {
namespace {

using jinja::Rendering;
using jinja::Text;

constexpr absl::string_view kRaisedPayload = "neurogrid/raise_exception";

/// Stands at the end of a message to be continued while it is rendered. Its own last space shows
/// whether the template keeps white space there.
constexpr absl::string_view kEndMark = "NEUROGRID-CONTINUES-HERE ";

/// Puts the mark behind the last message's content, or behind its last part that has text.
absl::StatusOr<Json> WithEndMark(const Json& messages) {
  Json marked = messages;
  Json* const content = marked.is_array() && !marked.as_array().empty()
                            ? marked.as_array().back().Find("content")
                            : nullptr;
  Json* text = content;
  if (content != nullptr && content->is_array()) {
    text = nullptr;
    for (Json& part : content->as_array()) {
      if (Json* const found = part.Find("text")) text = found;
    }
  }
  if (text == nullptr || !text->is_string()) {
    return absl::InvalidArgumentError(
        "continue_final_message: the last message has no text to continue");
  }
  *text = Json(absl::StrCat(text->as_string(), kEndMark));
  return marked;
}

/// Cuts the prompt right after the last message's content, as transformers does: without the white
/// space at its end when the template strips that.
absl::StatusOr<Text> CutAtMark(const Text& prompt) {
  const absl::string_view bytes = prompt.bytes();
  const absl::string_view stripped = kEndMark.substr(0, kEndMark.size() - 1);
  const size_t place = jinja::FindLast(bytes, stripped);
  if (place == absl::string_view::npos) {
    return absl::InvalidArgumentError(
        "continue_final_message: the chat template does not print the last message as it is, so "
        "there is no place to continue it");
  }
  if (absl::StartsWith(bytes.substr(place), kEndMark)) return prompt.Slice(0, place);
  return prompt.Slice(0, jinja::Strip(bytes.substr(0, place), nullptr, false, true).second);
}

Json TextMessage(absl::string_view role, Json content) {
  Json message{Json::Object()};
  message.Set("role", Json(role));
  message.Set("content", std::move(content));
  return message;
}

class CompiledChatTemplate final : public ChatTemplate {
 public:
  CompiledChatTemplate(ChatTemplateSources sources, size_t chosen,
                       std::unique_ptr<jinja::Template> plain,
                       std::unique_ptr<jinja::Template> with_tools)
      : sources_(std::move(sources)),
        chosen_(chosen),
        plain_(std::move(plain)),
        with_tools_(std::move(with_tools)) {
    takes_content_lists_ = ProbeContentLists();
    reads_clock_ = ProbeClock();
  }

  absl::StatusOr<PromptText> Render(const Input& input) const override {
    if (input.continue_final_message) {
      Input marked = input;
      NG_ASSIGN_OR_RETURN(marked.messages, WithEndMark(input.messages));
      marked.continue_final_message = false;
      marked.add_generation_prompt = false;
      NG_ASSIGN_OR_RETURN(const Text whole, RenderChecked(marked));
      NG_ASSIGN_OR_RETURN(const Text cut, CutAtMark(whole));
      return cut.Segments();
    }
    NG_ASSIGN_OR_RETURN(const Text whole, RenderChecked(input));
    return whole.Segments();
  }

  const std::string& source() const override { return sources_.templates[chosen_].source; }
  const std::vector<ChatTemplateSources::Named>& sources() const override {
    return sources_.templates;
  }
  bool takes_content_lists() const override { return takes_content_lists_; }
  bool reads_clock() const override { return reads_clock_; }

 private:
  absl::StatusOr<Text> RenderChecked(const Input& input) const {
    Rendering rendering = RenderWhole(input);
    if (rendering.raised) {
      rendering.status.SetPayload(kRaisedPayload, absl::Cord(""));
      return rendering.status;
    }
    if (!rendering.status.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("chat template, ", rendering.status.message()));
    }
    return std::move(rendering.text);
  }

  Rendering RenderWhole(const Input& input) const {
    const Json generation(input.add_generation_prompt);
    std::vector<jinja::Variable> variables;
    for (const JsonMember& token : sources_.special_tokens.as_object()) {
      variables.push_back({token.key, &token.value, Origin::kTemplate, false});
    }
    // Later ones win: a request may name its own date_string, but not its own messages.
    if (input.kwargs.is_object()) {
      for (const JsonMember& member : input.kwargs.as_object()) {
        variables.push_back({member.key, &member.value, Origin::kInput, false});
      }
    }
    variables.push_back({"messages", &input.messages, Origin::kInput, true});
    variables.push_back({"tools", &input.tools, Origin::kInput, false});
    variables.push_back({"documents", &input.documents, Origin::kInput, false});
    variables.push_back({"add_generation_prompt", &generation, Origin::kTemplate, false});
    const bool tools = !input.tools.is_null() && with_tools_ != nullptr;
    return (tools ? *with_tools_ : *plain_).Render(variables, input.now);
  }

  /// A template takes lists when it prints a part's text without printing the part itself.
  bool ProbeContentLists() const {
    constexpr absl::string_view kProbe = "neurogrid probe";
    Json part{Json::Object()};
    part.Set("type", Json("text"));
    part.Set("text", Json(kProbe));
    Input input;
    input.messages = Json(Json::Array{TextMessage("user", Json(Json::Array{std::move(part)}))});
    input.now = absl::UnixEpoch();
    const Rendering rendering = RenderWhole(input);
    if (!rendering.status.ok()) return false;
    const std::string& bytes = rendering.text.bytes();
    return absl::StrContains(bytes, kProbe) && !absl::StrContains(bytes, "'type'") &&
           !absl::StrContains(bytes, "\"type\"");
  }

  bool ProbeClock() const {
    Json function{Json::Object()};
    function.Set("name", Json("probe"));
    function.Set("description", Json("probe"));
    Json parameters{Json::Object()};
    parameters.Set("type", Json("object"));
    parameters.Set("properties", Json(Json::Object()));
    function.Set("parameters", std::move(parameters));
    Json tool{Json::Object()};
    tool.Set("type", Json("function"));
    tool.Set("function", std::move(function));
    for (const bool system : {false, true}) {
      for (const bool tools : {false, true}) {
        Input input;
        Json::Array messages;
        if (system) messages.push_back(TextMessage("system", Json("probe")));
        messages.push_back(TextMessage("user", Json("probe")));
        input.messages = Json(std::move(messages));
        if (tools) input.tools = Json(Json::Array{tool});
        input.now = absl::UnixEpoch();
        if (RenderWhole(input).read_clock) return true;
      }
    }
    return false;
  }

  ChatTemplateSources sources_;
  size_t chosen_;
  std::unique_ptr<jinja::Template> plain_;
  std::unique_ptr<jinja::Template> with_tools_;  // null: the plain one serves
  bool takes_content_lists_ = false;
  bool reads_clock_ = false;
};

absl::StatusOr<std::unique_ptr<jinja::Template>> CompileNamed(
    const ChatTemplateSources::Named& named) {
  absl::StatusOr<std::unique_ptr<jinja::Template>> compiled =
      jinja::Template::Compile(named.source);
  if (compiled.ok()) return compiled;
  return absl::InvalidArgumentError(
      absl::StrCat("chat template \"", named.name, "\", ", compiled.status().message()));
}

}  // namespace

absl::StatusOr<std::unique_ptr<ChatTemplate>> ChatTemplate::Compile(ChatTemplateSources sources) {
  std::unique_ptr<jinja::Template> plain;
  std::unique_ptr<jinja::Template> with_tools;
  size_t chosen = 0;
  std::string names;
  for (size_t i = 0; i < sources.templates.size(); ++i) {
    const ChatTemplateSources::Named& named = sources.templates[i];
    absl::StrAppend(&names, names.empty() ? "" : ", ", named.name.substr(0, 100));
    if (named.name == "default") {
      NG_ASSIGN_OR_RETURN(plain, CompileNamed(named));
      chosen = i;
    } else if (named.name == "tool_use") {
      NG_ASSIGN_OR_RETURN(with_tools, CompileNamed(named));
    }
  }
  if (plain == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrCat("the model has no chat template named \"default\"; it has: ",
                     names.empty() ? "none" : names));
  }
  return std::make_unique<CompiledChatTemplate>(std::move(sources), chosen, std::move(plain),
                                                std::move(with_tools));
}

bool IsRaisedByTemplate(const absl::Status& status) {
  return status.GetPayload(kRaisedPayload).has_value();
}

}  // namespace neurogrid
