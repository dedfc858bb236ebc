#include "coordinator/text_api.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "coordinator/api_error.h"
#include "coordinator/chat_request.h"
#include "coordinator/generation_api.h"
#include "coordinator/prompt_request.h"
#include "engine/text/unicode.h"

namespace neurogrid {
namespace {

HttpResponse Answered(const Json& json, const CheckedBody& body) {
  HttpResponse response{.body = ToString(json)};
  if (!body.ignored.empty()) {
    response.headers.emplace_back("X-Ignored-Params", IgnoredParams(body.ignored));
  }
  return response;
}

HttpResponse Refused(ApiContext& context, const ApiError& error) {
  context.metrics.AddRefused(error.code);
  return ErrorResponse(error);
}

Json IdsJson(const std::vector<int32_t>& ids) {
  Json::Array array;
  for (const int32_t id : ids) array.push_back(static_cast<int>(id));
  return array;
}

/// A token's text, or its bytes when they are no text by themselves.
Json PieceJson(absl::string_view bytes) {
  if (FirstInvalidUtf8(bytes) == bytes.size()) return bytes;
  Json::Array array;
  for (const char c : bytes) array.push_back(static_cast<int>(static_cast<unsigned char>(c)));
  return array;
}

absl::string_view OriginName(Origin origin) {
  switch (origin) {
    case Origin::kTemplate:
      return "template";
    case Origin::kAssistant:
      return "assistant";
    case Origin::kInput:
      break;
  }
  return "input";
}

MaybeError TokensOf(const ApiContext& context, CheckedBody& body, std::vector<int32_t>* tokens) {
  int forms = 0;
  for (const char* name : {"content", "prompt", "messages"}) forms += body.Find(name) != nullptr;
  if (forms == 0) return MissingParameter("prompt");
  if (forms > 1) {
    return InvalidValue("prompt", "Only one of 'content', 'prompt' and 'messages' can be given.");
  }
  if (body.Find("messages") != nullptr) {
    ChatPrompt prompt;
    NG_RETURN_IF_REFUSED(ReadChatPrompt(context, body, &prompt));
    *tokens = std::move(prompt.tokens);
    return std::nullopt;
  }
  // llama.cpp's `content` adds no special tokens unless told, vLLM's `prompt` does.
  const bool is_prompt = body.Find("prompt") != nullptr;
  const std::string name = is_prompt ? "prompt" : "content";
  const absl::StatusOr<std::vector<int32_t>> encoded =
      context.tokenizer.Encode({{body.String(name, ""), Origin::kTemplate}},
                               {.add_special = body.Bool("add_special", is_prompt),
                                .parse_special = body.Bool("parse_special", true)});
  if (!encoded.ok()) return InvalidValue(name, std::string(encoded.status().message()));
  *tokens = *encoded;
  return std::nullopt;
}

}  // namespace

HttpResponse AnswerTokenize(ApiContext& context, const RouteCall& call) {
  CheckedBody body;
  std::string model;
  std::vector<int32_t> tokens;
  MaybeError error = ReadBody(context, call.request, kTokenizeBody, &body);
  if (!error) error = CheckModel(context, body, &model);
  if (!error) error = TokensOf(context, body, &tokens);
  if (error) return Refused(context, *error);
  Json::Array pieces;
  Json::Array strings;
  for (const int32_t id : tokens) {
    const absl::string_view bytes = context.tokenizer.Bytes(id);
    strings.push_back(bytes);
    pieces.push_back(Json::Object{{"id", static_cast<int>(id)}, {"piece", PieceJson(bytes)}});
  }
  Json answer = Json::Object{};
  answer.Set("tokens", body.Bool("with_pieces", false) ? Json(std::move(pieces)) : IdsJson(tokens));
  answer.Set("count", static_cast<int64_t>(tokens.size()));
  answer.Set("max_model_len", context.model.max_model_len);
  if (body.Bool("return_token_strs", false)) answer.Set("token_strs", std::move(strings));
  return Answered(answer, body);
}

HttpResponse AnswerDetokenize(ApiContext& context, const RouteCall& call) {
  CheckedBody body;
  std::string model;
  std::vector<int32_t> tokens;
  MaybeError error = ReadBody(context, call.request, kDetokenizeBody, &body);
  if (!error) error = CheckModel(context, body, &model);
  if (!error) error = ReadTokenIds(context, "tokens", *body.fields.Find("tokens"), &tokens);
  if (error) return Refused(context, *error);
  const std::string text = Decode(context.tokenizer, tokens, /*skip_special=*/false);
  return Answered(Json::Object{{"content", text}, {"prompt", text}}, body);
}

HttpResponse AnswerApplyTemplate(ApiContext& context, const RouteCall& call) {
  CheckedBody body;
  std::string model;
  ChatPrompt prompt;
  MaybeError error = ReadBody(context, call.request, kChatBody, &body);
  if (!error) error = CheckModel(context, body, &model);
  if (!error) error = ReadChatPrompt(context, body, &prompt);
  if (error) return Refused(context, *error);
  std::string text;
  Json::Array segments;
  for (const TextSegment& segment : prompt.text) {
    const auto begin = static_cast<int64_t>(text.size());
    text += segment.text;
    segments.push_back(Json::Object{{"begin", begin},
                                    {"end", static_cast<int64_t>(text.size())},
                                    {"origin", OriginName(segment.origin)}});
  }
  return Answered(Json::Object{{"prompt", text},
                               {"tokens", IdsJson(prompt.tokens)},
                               {"segments", std::move(segments)},
                               {"starts_in_reasoning", prompt.starts_in_reasoning()}},
                  body);
}

HttpResponse AnswerTokenizerInfo(ApiContext& context, const RouteCall&) {
  const Tokenizer& tokenizer = context.tokenizer;
  const auto text_of = [&](int32_t id) { return id < 0 ? Json() : Json(tokenizer.Bytes(id)); };
  const ChatTemplate* chat = context.chat_template;
  const std::string& pad = context.model.pad_token;
  const Json body =
      Json::Object{{"tokenizer_class", tokenizer.class_name()},
                   {"bos_token", text_of(tokenizer.bos_id())},
                   {"eos_token", text_of(tokenizer.eos_id())},
                   {"pad_token", pad.empty() ? Json() : Json(pad)},
                   {"chat_template", chat == nullptr ? Json() : Json(chat->source())}};
  return {.body = ToString(body)};
}

}  // namespace neurogrid
