// Tokens with their log-probabilities, as the two OpenAI protocols write them (api.md 3).
#pragma once

#include <optional>
#include <vector>

#include "absl/types/span.h"
#include "common/json.h"
#include "coordinator/generator.h"
#include "engine/text/tokenizer.h"

namespace neurogrid {

/// {"content":[{token, logprob, bytes, top_logprobs}], "refusal":null}
Json ChatLogprobs(const Tokenizer& tokenizer, absl::Span<const GeneratedToken> tokens);

/// A token of a completion; the first token of an echoed prompt has no probability.
struct CompletionToken {
  GeneratedToken token;
  bool has_logprob = true;
};

/// {tokens, token_logprobs, top_logprobs, text_offset}, all of the same length. `offset` counts
/// code points of the text before the first token and is moved on.
Json CompletionLogprobs(const Tokenizer& tokenizer, absl::Span<const CompletionToken> tokens,
                        bool skip_special, int64_t* offset);

/// A float in the fewest digits that give it back, never below -9999: -inf is no JSON.
Json LogprobJson(float logprob);

}  // namespace neurogrid
