// What was asked (Request) and how far each of its choices is (Sequence).
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "coordinator/drafter.h"
#include "coordinator/generator.h"
#include "coordinator/page_allocator.h"
#include "engine/batch.h"

namespace neurogrid {

/// Monotonic; an input everywhere, so that tests and simulations bring their own.
using SteadyTime = std::chrono::steady_clock::time_point;

using RequestId = uint64_t;  // counts up from 1, never used twice

/// How often each token stands in the output, and which stand in the window of the repetition
/// penalty; kept up token by token, so that a step copies and counts nothing anew.
class PenaltyCounts {
 public:
  /// Without any penalty it stays empty.
  PenaltyCounts(const SamplingOptions& options, const std::vector<int32_t>& prompt);
  /// `ids` are prompt and output; the last one was just appended.
  void Append(absl::Span<const int32_t> ids);
  const std::vector<SamplingRow::Count>& counts() const { return counts_; }
  bool on() const { return on_; }  // some penalty is

 private:
  int32_t Slot(int32_t id);
  void Enter(int32_t id);
  void Leave(int32_t id);

  bool on_ = false;
  int64_t window_ = 0;                      // tokens; -1: all
  std::vector<SamplingRow::Count> counts_;  // each id once, in no order
  std::vector<int32_t> window_counts_;      // beside counts_
  absl::flat_hash_map<int32_t, int32_t> slots_;
};

struct Request;

/// One choice. Its tokens are all there is to it: pages can be computed again from them.
struct Sequence {
  enum class State {
    kQueued,     // in the queue; never ran
    kFollowing,  // starts when another choice has computed the same prompt
    kRunning,
    kPreempted,  // gave its pages back, or lost them with its chain; first to run again
    kEnded       // pages may still be in flight
  };

  Sequence(Request* owner, int choice_number, const std::vector<int32_t>& prompt,
           const SamplingOptions& sampling)
      : request(owner), choice(choice_number), ids(prompt), penalties(sampling, prompt) {}

  Request* request = nullptr;
  int choice = 0;
  State state = State::kQueued;
  std::vector<int32_t> ids;           // prompt and output
  std::vector<int32_t> pages;         // [scheduled tokens, rounded up to pages]; -1: of no use
  std::vector<int32_t> window_pages;  // as pages, -1: given back; empty where no layer has a window
  int64_t window_first = 0;           // those before it were given back
  int32_t state_slot = -1;            // slot of the recurrent state after the scheduled tokens
  int32_t sure_slot = -1;             // and before the rows of a step that guesses; else -1
  int64_t sure_tokens = 0;            // after which sure_slot is taken
  int32_t prompt_slot = -1;           // and of that which the choices of its prompt start from
  struct SavedState {
    int64_t tokens = 0;  // after which the state is taken
    int32_t slot = 0;
  };
  std::vector<SavedState> saved_states;  // of steps in flight, still without a name
  std::vector<PageHash> hashes;          // of the first full pages of ids
  std::vector<int32_t> forced;  // output to come, whatever the model would draw; the next one last
  std::vector<SampledToken> proven;  // output to come, drawn by the last step; the next one last
  Drafter drafter;
  int replay = 0;  // rows before the last token whose state was taken back
  PenaltyCounts penalties;
  int64_t prompt_tokens = 0;
  int64_t scheduled = 0;  // tokens computed or in flight
  int64_t computed = 0;
  int64_t published = 0;     // pages that were offered to the prefix cache
  int64_t scored_rows = 0;   // of the prompt, whose logprobs have come
  int in_flight = 0;         // steps
  int losses = 0;            // chains that broke with a step of it in flight, since its last token
  int64_t lost_tokens = 0;   // computed by a chain that is gone, and not again yet
  uint64_t ready = 0;        // when it came out of its last step
  bool prompt_sent = false;  // prompt logprobs were in an event
  bool recovering = false;   // it lost its chain and has no token of the next one yet

  int64_t known() const { return static_cast<int64_t>(ids.size()); }
  int64_t generated() const { return known() - prompt_tokens; }
};

struct Request {
  struct Prompt {
    bool begun = false;                  // some choice ran
    bool computed = false;               // its pages were shared out
    std::vector<GeneratedToken> scores;  // [prompt tokens - 1] with echo_logprobs
  };

  RequestId id = 0;
  GenerationRequest asked;
  std::vector<Prompt> prompts;
  std::vector<std::unique_ptr<Sequence>> choices;  // prompt * n + choice
  PageHash prefix_root{};
  bool paused = false;
  bool begun = false;  // some sequence ran
  bool ended = false;
  int in_flight = 0;          // steps of all sequences
  int live = 0;               // choices that have not ended
  int64_t prompt_tokens = 0;  // of all prompts
  GenerationUsage usage;      // counts; times are filled in on the way out
  SteadyTime arrived;
  SteadyTime begun_at;
  std::optional<SteadyTime> first_token_at;

  Prompt& prompt_of(const Sequence& sequence) { return prompts[sequence.choice / asked.n]; }
  /// Rows before this one report the logprob of the token after them.
  int64_t scored_rows_end(const Sequence& sequence) const {
    return asked.echo_logprobs ? sequence.prompt_tokens - 1 : 0;
  }
  /// Choices that wait for `leader` to compute their common prompt.
  int followers(const Sequence& leader) const;
};

/// Lists by arrival: requests in order, then choices.
void InsertByArrival(std::vector<Sequence*>& sequences, Sequence& sequence);
void EraseFrom(std::vector<Sequence*>& sequences, const Sequence& sequence);

}  // namespace neurogrid
