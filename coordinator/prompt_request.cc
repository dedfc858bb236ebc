#include "coordinator/prompt_request.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

constexpr size_t kPromptsMax = 128;
constexpr int64_t kSequencesMax = 128;

MaybeError ReadPrompt(const ApiContext& context, const CheckedBody& body, const std::string& param,
                      Json& value, PreparedRequest* prepared) {
  std::vector<int32_t> tokens;
  if (value.is_string()) {
    NG_RETURN_IF_REFUSED(EncodeText(context, param, value.as_string(),
                                    body.Bool("add_special_tokens", true),
                                    body.Bool("parse_special", true), &tokens));
  } else if (value.is_array()) {
    NG_RETURN_IF_REFUSED(ReadTokenIds(context, param, value, &tokens));
  } else {
    return InvalidType(
        param, absl::StrCat("'", param, "' must be a string or an array of token ids, but is ",
                            WithArticle(value.kind_name()), "."));
  }
  if (tokens.empty()) {
    return InvalidValue(param, absl::StrCat("'", param, "' has no tokens."));
  }
  if (prepared->echo) {
    prepared->echo_texts.push_back(
        value.is_string() ? value.as_string()
                          : Decode(context.tokenizer, tokens, prepared->generation.skip_special));
  }
  prepared->generation.prompts.push_back(std::move(tokens));
  return std::nullopt;
}

}  // namespace

MaybeError ReadTokenIds(const ApiContext& context, const std::string& param, Json& value,
                        std::vector<int32_t>* tokens) {
  const Field id = {.name = param,
                    .type = FieldType::kInteger,
                    .minimum = 0,
                    .maximum = static_cast<double>(context.tokenizer.vocab_size() - 1)};
  Json::Array& items = value.as_array();
  for (size_t i = 0; i < items.size(); ++i) {
    // The path is built only when it is needed: prompts are long.
    Json& item = items[i];
    const bool plain = item.is_integer() && item.as_integer() >= 0 &&
                       item.as_integer() < context.tokenizer.vocab_size();
    if (!plain) NG_RETURN_IF_REFUSED(CheckValue(id, absl::StrCat(param, "[", i, "]"), item));
    tokens->push_back(static_cast<int32_t>(item.as_integer()));
  }
  return std::nullopt;
}

MaybeError EncodeText(const ApiContext& context, const std::string& param, const std::string& text,
                      bool add_special, bool parse_special, std::vector<int32_t>* tokens) {
  NG_RETURN_IF_REFUSED(CheckRoomByBytes(context, param, static_cast<int64_t>(text.size())));
  const int64_t tokens_max = PromptTokensMax(context);
  const PromptText segments = {{text, Origin::kTemplate}};
  absl::StatusOr<std::vector<int32_t>> encoded = context.tokenizer.Encode(
      segments,
      {.add_special = add_special, .parse_special = parse_special, .tokens_max = tokens_max});
  if (absl::IsResourceExhausted(encoded.status())) {
    return ContextExceeded(param, tokens_max + 1, context.generator.context_tokens_max(),
                           /*at_least=*/true);
  }
  if (!encoded.ok()) return InvalidValue(param, std::string(encoded.status().message()));
  *tokens = *std::move(encoded);
  return std::nullopt;
}

MaybeError ReadPrompts(const ApiContext& context, CheckedBody& body, PreparedRequest* prepared) {
  Json& prompt = *body.fields.Find("prompt");
  Json::Array one;
  Json::Array* prompts = &one;
  bool many = false;
  if (prompt.is_array() && !prompt.as_array().empty()) {
    const Json& first = prompt.as_array().front();
    many = first.is_string() || first.is_array();
  } else if (prompt.is_array()) {
    return InvalidValue("prompt", "'prompt' must hold at least one prompt.");
  }
  if (many) {
    prompts = &prompt.as_array();
  } else {
    one.push_back(std::move(prompt));
  }
  const int64_t sequences = static_cast<int64_t>(prompts->size()) * prepared->generation.n;
  if (prompts->size() > kPromptsMax || sequences > kSequencesMax) {
    return LimitExceeded(
        "prompt", absl::StrCat("The request asks for ", prompts->size(), " prompts and ", sequences,
                               " answers; at most ", kPromptsMax, " prompts and ", kSequencesMax,
                               " answers are allowed."));
  }
  for (size_t i = 0; i < prompts->size(); ++i) {
    const std::string param = many ? absl::StrCat("prompt[", i, "]") : "prompt";
    NG_RETURN_IF_REFUSED(ReadPrompt(context, body, param, (*prompts)[i], prepared));
  }
  return std::nullopt;
}

}  // namespace neurogrid
