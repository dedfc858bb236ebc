// A chain of stages without a model: each stage keeps one number a token in its pages, made from
// the token, the numbers before it (read through the page table, those in a window through the
// window's table), a number in a state slot, and the stage. A lost, repeated, reordered or
// mis-paged token, or a state that is not the sequence's own, changes every later one.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "coordinator/generator.h"
#include "coordinator/scheduler.h"
#include "engine/batch.h"

namespace neurogrid {

inline constexpr int kHashVocab = 61;

/// What each stage remembers of a sequence.
struct HashShape {
  bool full = true;        // something of every token
  int window = 0;          // something of the last so many tokens; 0: nothing
  bool recurrent = false;  // one number that goes on from token to token
};
HashShape ShapeOf(const BatchLimits& limits);

/// The tokens of one choice, drawn with nothing around: no batch, no pages, no scheduler. The first
/// are `forced`.
std::vector<int32_t> AloneTokens(const GenerationRequest& request, int choice, int stages,
                                 int64_t context_tokens_max, HashShape shape = {},
                                 const std::vector<int32_t>& forced = {});
/// What the chain reports as logprob of prompt token i + 1, [prompt tokens - 1].
std::vector<float> AlonePromptScores(const std::vector<int32_t>& prompt, int stages,
                                     HashShape shape = {});

/// Steps pass the stages in order, each stage one step at a time.
class HashChain {
 public:
  HashChain(int stages, const BatchLimits& limits);

  void Send(SchedulerStep step);
  /// Stage `stage` runs its oldest step; false when it has none.
  bool Turn(int stage);
  struct Result {
    uint64_t step = 0;
    std::vector<SampledToken> sampled;
  };
  /// The oldest step that passed all stages.
  bool Receive(Result& result);
  void TurnAll();
  int in_flight() const { return in_flight_; }
  int stages() const { return static_cast<int>(stages_.size()); }
  /// What steps in flight write or read, pages of both kinds and slots: at most one writer, then no
  /// other reader.
  bool IdsAreExclusive() const;

 private:
  struct Travelling {
    SchedulerStep step;
    std::vector<uint64_t> activations;  // [rows]
    std::vector<SampledToken> sampled;  // by the last stage
  };
  struct OneStage {
    std::vector<uint64_t> keys;         // [pages * kPageTokens]
    std::vector<uint64_t> window_keys;  // [window_pages * kPageTokens]
    std::vector<uint64_t> states;       // [slots]
    std::deque<Travelling> inbox;
  };
  void DrawAll(Travelling& travelling);

  HashShape shape_;
  std::vector<OneStage> stages_;
  std::deque<Travelling> done_;
  std::vector<int32_t> drawn_;  // by the step that the last stage ran last
  int in_flight_ = 0;
};

}  // namespace neurogrid
