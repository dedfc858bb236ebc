// What one step runs, as flat arrays that travel down the chain, and what comes back.
#pragma once

#include <algorithm>
#include <cstdint>
#include <utility>
#include <vector>

namespace neurogrid {

/// Tokens of one page of the KV cache, on every stage.
inline constexpr int kPageTokens = 16;

/// In place of a token: what sample `sample` of the step before draws, whether or not it is known
/// yet where the batch is made.
constexpr int32_t DrawnBefore(int sample) { return -1 - sample; }

/// How to draw one token. A pure function of this and the logits row: stages keep no request state.
/// Field meanings and order of application: the comment of Sampler.
struct SamplingRow {
  uint64_t seed = 0;     // key of the choice
  int32_t position = 0;  // of the token to be drawn: the counter
  float temperature = 1;
  float top_p = 1;
  float min_p = 0;
  int32_t top_k = 0;  // <= 0: off
  float repetition_penalty = 1;
  float presence_penalty = 0;
  float frequency_penalty = 0;
  int32_t top_logprobs =
      -1;               // -1: no logprobs; 0..20: that many alternatives beside the token's own
  int32_t target = -1;  // >= 0: draw nothing, report the logprob of this id
  struct Count {
    int32_t id = 0;
    int32_t generated = 0;   // times in the output
    bool in_window = false;  // in prompt or output, within repeat_last_n
  };
  std::vector<Count> counts;                    // empty without penalties
  std::vector<std::pair<int32_t, float>> bias;  // id, added to the logit; <= -100 bans
  std::vector<int32_t> banned;                  // ids masked: end ids under min_tokens, ...
};

/// Rows of several sequences: prefill chunks and single decodes alike.
struct Batch {
  std::vector<int32_t> tokens;  // [rows]            ids; read by the first stage only. A
                                //          stage that is the last as well takes DrawnBefore(i) too
  std::vector<int32_t> positions;         // [rows]            consecutive within a sequence
  std::vector<int32_t> sequence_offsets;  // [sequences + 1]   sequence s owns rows [s], [s + 1)
  std::vector<int32_t> pages;  // [pages]  page ids, the same on every stage; all -1 where no layer
                               //          sees everything
  std::vector<int32_t> page_offsets;  // [sequences + 1]   pages of sequence s, from position 0 on
  std::vector<int32_t>
      window_pages;  // [pages]  ids, of their own space, for the layers with a window; -1: fell out
                     //          of it. Empty where no layer has one
  std::vector<int32_t>
      state_slots;  // [sequences]       slot that the recurrent state is written to; -1: none
  std::vector<int32_t>
      state_sources;  // [sequences]      slot that it is read from, perhaps the same; -1: zeros
  std::vector<int32_t> sampled_rows;  // [samples]         ascending row numbers
  std::vector<SamplingRow> sampling;  // [samples]

  int rows() const { return static_cast<int>(tokens.size()); }
  int sequences() const {
    return sequence_offsets.empty() ? 0 : static_cast<int>(sequence_offsets.size()) - 1;
  }
  int samples() const { return static_cast<int>(sampled_rows.size()); }
};

/// Upper bounds that a stage was built for.
struct BatchLimits {
  int rows_max = 0;
  int sequences_max = 0;
  int samples_max = 0;
  int pages = 0;          // page ids are below this; 0: every layer that attends has a window
  int window_pages = 0;   // window page ids are below this; 0: no layer has a window
  int window = 0;         // tokens that the widest window of the model holds; 0: none
  int slots = 0;          // state slots are below this
  int positions_max = 0;  // positions are below this
  int vocab_size = 0;

  bool operator==(const BatchLimits&) const = default;
};

/// The first page of a sequence that a query at `position` reads through a window of `window` keys.
/// No later query reads a page before it.
constexpr int64_t FirstWindowPage(int64_t position, int window) {
  return std::max<int64_t>(0, position - window + 1) / kPageTokens;
}

struct TokenLogprob {
  int32_t id = 0;
  float logprob = 0;
};

struct SampledToken {
  int32_t token = 0;
  float logprob = 0;              // log-softmax of the raw logits; 0 unless asked for
  std::vector<TokenLogprob> top;  // descending, ties by lowest id
  bool failed = false;  // NaN logits or nothing left to draw: the request ends with an error
};

}  // namespace neurogrid
