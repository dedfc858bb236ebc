// How many guessed tokens a step runs: as many as pay, by what steps were seen to cost.
#pragma once

#include <array>
#include <vector>

#include "absl/types/span.h"

namespace neurogrid {

/// What a step without prefill takes by its number of rows, as measured. A number of rows that was
/// never seen is priced between its neighbours, one above all that were seen like the largest: the
/// first try tells. A price that is not seen again sinks towards that of the fewest rows, so that
/// one bad minute is not believed for ever.
class RowCosts {
 public:
  static constexpr int kRowsMax = 64;

  void Measure(int rows, double ms);
  bool knows(int rows) const { return rows >= 1 && rows <= kRowsMax && ms_[rows] > 0; }
  /// Positive; of no meaning before the first measurement.
  double ms(int rows) const;

 private:
  std::array<double, kRowsMax + 1> ms_ = {};  // 0: not seen
};

/// What one sequence could run beside its own rows.
struct DraftOffer {
  int tokens = 0;  // at most
  double chance = 0;
};

/// [offers]: how many tokens of each to run. `rows` rows are run anyway, for `sequences` tokens.
///
/// The most tokens per time win, by the costs; nothing unless the gain clearly exceeds the price.
/// Where several sequences share the step none of them may wait noticeably for the guesses of
/// another. A number of rows that was never measured without guesses is measured first.
std::vector<int> ShareDrafts(absl::Span<const DraftOffer> offers, int rows, int sequences,
                             int rows_max, const RowCosts& costs);

}  // namespace neurogrid
