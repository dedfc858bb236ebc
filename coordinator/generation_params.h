// Checked request fields to what the serving side is asked for.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "coordinator/api_context.h"
#include "coordinator/api_error.h"
#include "coordinator/generator.h"
#include "coordinator/request_fields.h"

namespace neurogrid {

/// A request on its way to the generator, and how its answer is to be written.
struct PreparedRequest {
  GenerationRequest generation;
  bool chat = false;
  bool stream = false;
  bool include_usage = false;
  bool continuous_usage = false;
  bool logprobs = false;
  bool echo = false;
  bool include_reasoning = true;
  bool return_token_ids = false;
  bool timings = false;
  std::string model;    // name in the answer
  int64_t created = 0;  // Unix seconds
  double template_ms = 0;
  std::vector<std::string> echo_texts;  // [prompts], with echo
  std::map<int32_t, std::string>
      stop_text_of;                  // stop texts that are also tokens: stop_reason names the text
  std::vector<std::string> ignored;  // for X-Ignored-Params
};

/// The model named in the body: 404 model_not_found unless it is the served one.
MaybeError CheckModel(const ApiContext& context, const CheckedBody& body, std::string* answer_name);

/// Everything but the prompt.
MaybeError ReadGenerationParams(const ApiContext& context, CheckedBody& body, bool chat,
                                PreparedRequest* prepared);

/// The prompt leaves no room for an answer.
ApiError ContextExceeded(std::string param, int64_t prompt_tokens, int64_t context_tokens,
                         bool at_least);

/// Checks token counts of the prompts against the context.
MaybeError CheckRoom(const ApiContext& context, const PreparedRequest& prepared);

/// Refuses text that cannot fit before it is tokenised: tokens are of bounded length.
MaybeError CheckRoomByBytes(const ApiContext& context, std::string param, int64_t text_bytes);

/// Tokens to read before giving up: exact counts for prompts that are not far too long.
int64_t PromptTokensMax(const ApiContext& context);

}  // namespace neurogrid
