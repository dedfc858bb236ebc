// A chain of stages without a model: each stage keeps one number a token in its pages, made from
// the token, the numbers before it (read through the page table) and the stage. A lost, repeated,
// reordered or mis-paged token changes every later one.
#pragma once

#include <cstdint>
#include <deque>
#include <vector>

#include "coordinator/generator.h"
#include "coordinator/scheduler.h"
#include "engine/batch.h"

namespace neurogrid {

inline constexpr int kHashVocab = 61;

/// The tokens of one choice, drawn with nothing around: no batch, no pages, no scheduler.
std::vector<int32_t> AloneTokens(const GenerationRequest& request, int choice, int stages,
                                 int64_t context_tokens_max);
/// What the chain reports as logprob of prompt token i + 1, [prompt tokens - 1].
std::vector<float> AlonePromptScores(const std::vector<int32_t>& prompt, int stages);

/// Steps pass the stages in order, each stage one step at a time.
class HashChain {
 public:
  HashChain(int stages, int pages);

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
  /// The pages that steps in flight write or read: at most one writer, then no reader.
  bool PagesAreExclusive() const;

 private:
  struct Travelling {
    SchedulerStep step;
    std::vector<uint64_t> activations;  // [rows]
  };
  struct OneStage {
    std::vector<uint64_t> keys;  // [pages * kPageTokens]
    std::deque<Travelling> inbox;
  };
  std::vector<OneStage> stages_;
  std::deque<Travelling> done_;
  int in_flight_ = 0;
};

}  // namespace neurogrid
