// Guesses what a sequence says next from what it and its prompt said before. A guess costs rows of
// a step and never changes a token: what is drawn decides.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "absl/types/span.h"

namespace neurogrid {

/// Tokens of one guess: with the token before them eight rows, one pass over the weights.
inline constexpr int kDraftTokensMax = 7;

struct Draft {
  std::vector<int32_t> tokens;  // [0, kDraftTokensMax]
  double chance = 0;            // that a token of it is right, those before it being right
};

/// Looks for the longest earlier occurrence of the last 2 to 16 tokens, the latest of equals, and
/// guesses that what followed it follows again; past the end it repeats itself. Learns by length
/// of the match how often it is right, and is silent for twice as long after each guess of a length
/// that was wrong from its first token on.
///
/// The index grows with the tokens, a constant time each, and holds the pairs of the last 65,536
/// tokens in 384 KiB at most.
class Drafter {
 public:
  /// For what comes after `ids`, which are those of the last call and more. The same until there
  /// are more.
  const Draft& Next(absl::Span<const int32_t> ids);
  /// Of the last draft `tried` tokens were run, of which the first `right` were drawn.
  void Learn(int tried, int right);

 private:
  static constexpr int kMatchMin = 2;
  static constexpr int kMatchMax = 16;
  static constexpr int kKinds = 4;  // matches of 2, 3, 4 to 7, 8 tokens and more

  struct Experience {
    double tried = 0;  // tokens, old ones weighing less
    double right = 0;
    int wrong = 0;   // drafts in a row
    int silent = 0;  // matches to pass over
  };
  struct Match {
    int64_t next = -1;  // where what followed the match begins
    int tokens = 0;
  };

  static int KindOf(int match_tokens);
  size_t Place(int32_t first, int32_t second) const;
  void Enter(absl::Span<const int32_t> ids, int64_t end);
  void Grow(absl::Span<const int32_t> ids);
  Match Longest(absl::Span<const int32_t> ids) const;

  std::vector<int32_t> latest_;  // [a power of two]  by hash of a pair: where the token after it is
  std::vector<int32_t> before_;  // [a power of two]  by place: the one before with this hash; -1
  int64_t entered_ = 0;          // ids[0, this) are in the index, their last one as what follows
  int64_t drafted_for_ = -1;     // ids
  int kind_ = 0;                 // of draft_
  Draft draft_;
  std::array<Experience, kKinds> experience_;
};

}  // namespace neurogrid
