// Chat messages to prompt text and token ids: checked, rendered by the template, tokenised.
#pragma once

#include <cstdint>
#include <vector>

#include "coordinator/api_context.h"
#include "coordinator/api_error.h"
#include "coordinator/chat_options.h"
#include "coordinator/request_fields.h"
#include "engine/text/provenance.h"

namespace neurogrid {

struct ChatPrompt {
  PromptText text;              // as rendered: what the tokens were made from
  std::vector<int32_t> tokens;  // [prompt]
  double template_ms = 0;       // rendering and tokenising
  ChatAnswer answer;

  bool starts_in_reasoning() const {
    return answer.format.start == ReasoningStart::kAfterOpenTag ||
           answer.format.start == ReasoningStart::kInside;
  }
};

/// `messages`, the template's variables and `continue_final_message` of a checked body.
MaybeError ReadChatPrompt(const ApiContext& context, CheckedBody& body, ChatPrompt* prompt);

/// Checks messages and brings them into one form: developer is system, text parts are joined unless
/// `keep_parts`, null members are gone (models.md 6.4).
MaybeError NormalizeMessages(Json& messages, bool keep_parts, bool continues_final);

}  // namespace neurogrid
