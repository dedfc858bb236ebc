// What a chat body asks of tools, reasoning and the date: checked, brought to the template's
// variables and to the form its answer is read in.
#pragma once

#include <cstdint>
#include <vector>

#include "coordinator/api_context.h"
#include "coordinator/api_error.h"
#include "coordinator/request_fields.h"
#include "engine/text/answer_format.h"
#include "engine/text/chat_template.h"

namespace neurogrid {

/// How the answer to a chat prompt is read and bounded.
struct ChatAnswer {
  AnswerFormat format;
  bool one_call = false;
  int32_t banned_token = -1;  // the marker of tool calls that may not be made
  bool include_reasoning = true;
  int64_t reasoning_budget = -1;
};

/// tools, tool_choice, parallel_tool_calls.
MaybeError ReadTools(const ApiContext& context, CheckedBody& body, ChatTemplate::Input* input,
                     ChatAnswer* answer);

/// reasoning_effort, enable_thinking, reasoning_budget, include_reasoning, beside what
/// chat_template_kwargs already says.
MaybeError ReadReasoning(const ApiContext& context, CheckedBody& body, ChatTemplate::Input* input,
                         ChatAnswer* answer);

/// date_string: the template's clock and its variable of that name.
MaybeError ReadDate(const ApiContext& context, CheckedBody& body, ChatTemplate::Input* input);

}  // namespace neurogrid
