#include "coordinator/chat_request.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "coordinator/generation_params.h"

namespace neurogrid {
namespace {

constexpr size_t kMessagesMax = 4096;
constexpr size_t kPartsMax = 1024;
constexpr size_t kToolCallsMax = 128;
constexpr size_t kKwargsBytesMax = 64 << 10;
constexpr int kKwargsDepthMax = 8;

MaybeError CheckCount(const std::string& param, size_t count, size_t most) {
  if (count <= most) return std::nullopt;
  return LimitExceeded(param, absl::StrCat("'", param, "' holds ", count, " entries; at most ",
                                           most, " are allowed."));
}

ApiError WrongType(const std::string& param, absl::string_view wanted, const Json& found) {
  return InvalidType(param, absl::StrCat("'", param, "' must be ", wanted, ", but is ",
                                         WithArticle(found.kind_name()), "."));
}

MaybeError CheckString(const std::string& param, const Json* value) {
  if (value == nullptr) return MissingParameter(param);
  if (!value->is_string()) return WrongType(param, "a string", *value);
  return std::nullopt;
}

MaybeError CheckPart(const std::string& param, const Json& part) {
  if (!part.is_object()) return WrongType(param, "an object", part);
  const std::string type_param = absl::StrCat(param, ".type");
  const Json* type = part.Find("type");
  NG_RETURN_IF_REFUSED(CheckString(type_param, type));
  if (type->as_string() == "text") {
    return CheckString(absl::StrCat(param, ".text"), part.Find("text"));
  }
  for (const char* medium : {"image_url", "input_audio", "file", "refusal", "image", "audio",
                             "video_url", "audio_url"}) {
    if (type->as_string() == medium) {
      return UnsupportedParameter(type_param,
                                  absl::StrCat("Content parts of type '", medium,
                                               "' are not supported: this model reads text only."));
    }
  }
  return InvalidValue(type_param, absl::StrCat("'", type_param, "' must be \"text\"."));
}

MaybeError NormalizeContent(const std::string& param, bool keep_parts, Json& content) {
  if (content.is_string()) return std::nullopt;
  if (!content.is_array()) return WrongType(param, "a string or an array of parts", content);
  Json::Array& parts = content.as_array();
  NG_RETURN_IF_REFUSED(CheckCount(param, parts.size(), kPartsMax));
  std::string joined;
  for (size_t i = 0; i < parts.size(); ++i) {
    NG_RETURN_IF_REFUSED(CheckPart(absl::StrCat(param, "[", i, "]"), parts[i]));
    absl::StrAppend(&joined, i == 0 ? "" : "\n", parts[i].Find("text")->as_string());
  }
  if (!keep_parts) content = Json(std::move(joined));
  return std::nullopt;
}

MaybeError CheckToolCalls(const std::string& param, const Json& calls) {
  if (!calls.is_array()) return WrongType(param, "an array", calls);
  NG_RETURN_IF_REFUSED(CheckCount(param, calls.as_array().size(), kToolCallsMax));
  for (size_t i = 0; i < calls.as_array().size(); ++i) {
    const std::string place = absl::StrCat(param, "[", i, "]");
    const Json& call = calls.as_array()[i];
    if (!call.is_object()) return WrongType(place, "an object", call);
    const std::string function_place = absl::StrCat(place, ".function");
    const Json* function = call.Find("function");
    if (function == nullptr) return MissingParameter(function_place);
    if (!function->is_object()) return WrongType(function_place, "an object", *function);
    NG_RETURN_IF_REFUSED(
        CheckString(absl::StrCat(function_place, ".name"), function->Find("name")));
    NG_RETURN_IF_REFUSED(
        CheckString(absl::StrCat(function_place, ".arguments"), function->Find("arguments")));
  }
  return std::nullopt;
}

MaybeError NormalizeMessage(const std::string& param, bool keep_parts, bool may_be_empty,
                            Json& message) {
  if (!message.is_object()) return WrongType(param, "an object", message);
  Json* role = message.Find("role");
  NG_RETURN_IF_REFUSED(CheckString(absl::StrCat(param, ".role"), role));
  if (role->as_string() == "developer") *role = Json("system");
  const bool assistant = role->as_string() == "assistant";
  Json* calls = message.Find("tool_calls");
  const bool has_calls = calls != nullptr && !calls->is_null();
  if (has_calls) {
    NG_RETURN_IF_REFUSED(CheckToolCalls(absl::StrCat(param, ".tool_calls"), *calls));
  }
  const std::string content_param = absl::StrCat(param, ".content");
  Json* content = message.Find("content");
  if (content == nullptr || content->is_null()) {
    const bool allowed = assistant && (may_be_empty || (has_calls && !calls->as_array().empty()));
    if (!allowed) return MissingParameter(content_param);
    message.Set("content", nullptr);
  } else {
    NG_RETURN_IF_REFUSED(NormalizeContent(content_param, keep_parts, *content));
  }
  for (const char* name : {"name", "tool_call_id", "reasoning_content", "reasoning"}) {
    const Json* value = message.Find(name);
    if (value == nullptr || value->is_null()) continue;
    NG_RETURN_IF_REFUSED(CheckString(absl::StrCat(param, ".", name), value));
  }
  Json::Object& members = message.as_object();
  std::erase_if(members, [](const JsonMember& member) {
    return member.value.is_null() && member.key != "content";
  });
  const bool has_reasoning = message.Find("reasoning_content") != nullptr;
  for (JsonMember& member : members) {
    if (member.key == "reasoning" && !has_reasoning) member.key = "reasoning_content";
  }
  return std::nullopt;
}

int Depth(const Json& value) {
  int deepest = 0;
  if (value.is_array()) {
    for (const Json& item : value.as_array()) deepest = std::max(deepest, Depth(item));
    return deepest + 1;
  }
  if (!value.is_object()) return 0;
  for (const JsonMember& member : value.as_object()) {
    deepest = std::max(deepest, Depth(member.value));
  }
  return deepest + 1;
}

MaybeError CheckKwargs(const Json& kwargs) {
  const std::string param = "chat_template_kwargs";
  for (const JsonMember& member : kwargs.as_object()) {
    const bool taken = member.key == "messages" || member.key == "tools" ||
                       member.key == "documents" || member.key == "add_generation_prompt" ||
                       member.key == "continue_final_message" ||
                       absl::EndsWith(member.key, "_token");
    if (taken) {
      return InvalidValue(absl::StrCat(param, ".", member.key),
                          absl::StrCat("'", param, "' may not name '", member.key, "'."));
    }
  }
  if (Depth(kwargs) > kKwargsDepthMax) {
    return LimitExceeded(
        param, absl::StrCat("'", param, "' is nested deeper than ", kKwargsDepthMax, " levels."));
  }
  const size_t bytes = ToString(kwargs).size();
  if (bytes > kKwargsBytesMax) {
    return LimitExceeded(param, absl::StrCat("'", param, "' has ", bytes, " bytes; at most ",
                                             kKwargsBytesMax, " are allowed."));
  }
  return std::nullopt;
}

int64_t TextBytes(const Json& value) {
  if (value.is_string()) return static_cast<int64_t>(value.as_string().size());
  int64_t bytes = 0;
  if (value.is_array()) {
    for (const Json& item : value.as_array()) bytes += TextBytes(item);
  }
  if (const Json* text = value.Find("text")) bytes += TextBytes(*text);
  return bytes;
}

/// What all contents together have, before anything is rendered.
int64_t ContentBytes(const Json& messages) {
  int64_t bytes = 0;
  for (const Json& message : messages.as_array()) {
    if (const Json* content = message.Find("content")) bytes += TextBytes(*content);
  }
  return bytes;
}

/// A call in the history that neither the template nor we can show the model.
MaybeError CheckCallsAreShown(const ApiContext& context, const Json& messages) {
  const ChatFormat& format = context.chat_format;
  if (format.prints_calls || format.tools == ToolSyntax::kPython) return std::nullopt;
  for (size_t i = 0; i < messages.as_array().size(); ++i) {
    const Json* const calls = messages.as_array()[i].Find("tool_calls");
    if (calls == nullptr || calls->as_array().empty()) continue;
    return ApiError{.code = "unsupported_model_operation",
                    .message = "This model's chat template knows no tool calls.",
                    .param = absl::StrCat("messages[", i, "].tool_calls")};
  }
  return std::nullopt;
}

MaybeError ReadTemplateInput(const ApiContext& context, CheckedBody& body,
                             ChatTemplate::Input* input, ChatAnswer* answer) {
  input->continue_final_message = body.Bool("continue_final_message", false);
  input->add_generation_prompt = body.Bool("add_generation_prompt", !input->continue_final_message);
  if (input->continue_final_message && input->add_generation_prompt) {
    return InvalidValue("continue_final_message",
                        "'continue_final_message' and 'add_generation_prompt' exclude each other.");
  }
  input->messages = std::move(*body.fields.Find("messages"));
  NG_RETURN_IF_REFUSED(NormalizeMessages(input->messages,
                                         context.chat_template->takes_content_lists(),
                                         input->continue_final_message));
  if (Json* kwargs = body.fields.Find("chat_template_kwargs")) {
    NG_RETURN_IF_REFUSED(CheckKwargs(*kwargs));
    input->kwargs = std::move(*kwargs);
  }
  NG_RETURN_IF_REFUSED(CheckCallsAreShown(context, input->messages));
  NG_RETURN_IF_REFUSED(ReadTools(context, body, input, answer));
  NG_RETURN_IF_REFUSED(ReadReasoning(context, body, input, answer));
  return ReadDate(context, body, input);
}

}  // namespace

MaybeError NormalizeMessages(Json& messages, bool keep_parts, bool continues_final) {
  Json::Array& items = messages.as_array();
  if (items.empty()) {
    return InvalidValue("messages", "'messages' must hold at least one message.");
  }
  NG_RETURN_IF_REFUSED(CheckCount("messages", items.size(), kMessagesMax));
  for (size_t i = 0; i < items.size(); ++i) {
    const bool continued = continues_final && i + 1 == items.size();
    NG_RETURN_IF_REFUSED(
        NormalizeMessage(absl::StrCat("messages[", i, "]"), keep_parts, continued, items[i]));
    if (continued && items[i].Find("role")->as_string() != "assistant") {
      return InvalidValue("continue_final_message",
                          "'continue_final_message' needs an assistant message last.");
    }
  }
  return std::nullopt;
}

MaybeError ReadChatPrompt(const ApiContext& context, CheckedBody& body, ChatPrompt* prompt) {
  if (context.chat_template == nullptr) {
    return ApiError{.code = "unsupported_model_operation",
                    .message = "This model has no chat template: use /v1/completions.",
                    .param = "model"};
  }
  ChatTemplate::Input input;
  NG_RETURN_IF_REFUSED(ReadTemplateInput(context, body, &input, &prompt->answer));
  NG_RETURN_IF_REFUSED(CheckRoomByBytes(context, "messages", ContentBytes(input.messages)));
  if (!input.tools.is_null()) {
    const auto bytes = static_cast<int64_t>(ToString(input.tools).size());
    NG_RETURN_IF_REFUSED(CheckRoomByBytes(context, "tools", bytes));
  }
  const absl::Time start = absl::Now();
  absl::StatusOr<PromptText> text =
      RenderChat(*context.chat_template, context.chat_format, std::move(input));
  if (!text.ok()) {
    return ApiError{.code = "template_error",
                    .message = std::string(text.status().message()),
                    .param = "messages"};
  }
  const Tokenizer& tokenizer = context.tokenizer;
  const int64_t tokens_max = PromptTokensMax(context);
  absl::StatusOr<std::vector<int32_t>> tokens = tokenizer.Encode(
      *text, {.add_special = false, .parse_special = true, .tokens_max = tokens_max});
  if (absl::IsResourceExhausted(tokens.status())) {
    return ContextExceeded("messages", tokens_max + 1, context.generator.context_tokens_max(),
                           /*at_least=*/true);
  }
  if (!tokens.ok()) return InvalidValue("messages", std::string(tokens.status().message()));
  // Most templates print BOS themselves; where one does not, it is added once (models.md 6.4).
  if (tokenizer.adds_bos() && (tokens->empty() || tokens->front() != tokenizer.bos_id())) {
    tokens->insert(tokens->begin(), tokenizer.bos_id());
  }
  prompt->answer.format.start = ReasoningStartOf(*text, context.chat_format);
  prompt->text = *std::move(text);
  prompt->tokens = *std::move(tokens);
  prompt->template_ms = absl::ToDoubleMilliseconds(absl::Now() - start);
  return std::nullopt;
}

}  // namespace neurogrid
