// The prompts of POST /v1/completions: text, texts, ids or lists of ids.
#pragma once

#include "coordinator/api_context.h"
#include "coordinator/api_error.h"
#include "coordinator/generation_params.h"
#include "coordinator/request_fields.h"

namespace neurogrid {

/// Fills in prepared->generation.prompts, and echo_texts when the prompt is echoed. The caller owns
/// the whole prompt: control tokens in it count as such unless parse_special is false.
MaybeError ReadPrompts(const ApiContext& context, CheckedBody& body, PreparedRequest* prepared);

/// An array of token ids below the vocabulary's size.
MaybeError ReadTokenIds(const ApiContext& context, const std::string& param, Json& value,
                        std::vector<int32_t>* tokens);

/// One text, with the tokens that the tokenizer puts around a text when `add_special`.
MaybeError EncodeText(const ApiContext& context, const std::string& param, const std::string& text,
                      bool add_special, bool parse_special, std::vector<int32_t>* tokens);

}  // namespace neurogrid
