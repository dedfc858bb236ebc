// How many guessed tokens a step runs: as many as pay, by what steps were seen to cost.
#pragma once

#include <algorithm>
#include <array>
#include <vector>

#include "absl/types/span.h"

namespace neurogrid {

/// What a step without prefill takes by its number of rows, as measured. A number of rows that was
/// never seen is priced between its neighbours, one above all that were seen like the largest: the
/// first try tells, and ShareDrafts tries the next one alone. A price that is not seen again sinks
/// towards that of the fewest rows, so that one bad minute is not believed for ever.
class RowCosts {
 public:
  static constexpr int kRowsMax = 64;

  /// `first_slow`: so many first steps with guesses take longer than later ones with as many rows
  /// and count for nothing, as where a device runs a step as it comes, then records it. It may do
  /// so again for a longer context: then a rise counts less than a fall.
  explicit RowCosts(int first_slow = 0) : first_slow_(first_slow) {}

  /// `guesses`: some of the rows. A step without any tells also how fast the machine is at the
  /// moment, and other prices follow: they count beside each other, and are seen rarely.
  void Measure(int rows, double ms, bool guesses = false);
  bool knows(int rows) const { return rows >= 1 && rows <= kRowsMax && ms_[rows] > 0; }
  int rows_seen() const;  // the largest number; 0 before the first measurement
  /// Whether the next step of so many rows that has guesses is one of those first ones.
  bool begins(int rows) const { return rows <= kRowsMax && tried_[rows] < first_slow_; }
  /// Positive; of no meaning before the first measurement.
  double ms(int rows) const;
  /// The share by which a step of so many rows takes longer than one of `before`.
  double wait(int rows, int before) const { return wait_of(ms(rows), before); }
  double wait_of(double taken_ms, int before) const {
    return std::max(0.0, taken_ms / ms(before) - 1);
  }

 private:
  int first_slow_;
  std::array<int, kRowsMax + 1> tried_ = {};  // with guesses
  std::array<double, kRowsMax + 1> ms_ = {};  // 0: not seen
};

/// What guesses gained and lost so far, in steps without them: each step takes the share of time
/// that guesses made it longer and gives the share of its tokens that they brought. Chances are
/// estimates, and those of a text that only seems to repeat itself are too high; what the account
/// does not hold is not risked, so that no text is slower for being guessed at, but for the little
/// that every step adds and that pays for trying.
class GuessAccount {
 public:
  /// `first_slow`: as RowCosts'. Trying each number of rows so often is paid for from the start.
  explicit GuessAccount(int first_slow = 0);
  /// A step became longer by the share `wait` and drew `gained` guessed tokens for each other one.
  void Take(double wait, double gained);
  /// Whether a step may become longer by `wait`, a share. `likely`: its guesses are right more
  /// often than not, for which there is credit.
  bool Covers(double wait, bool likely) const;

 private:
  double balance_;
};

/// What one sequence could run beside its own rows.
struct DraftOffer {
  int tokens = 0;  // at most
  double chance = 0;
};

/// [offers]: how many tokens of each to run. `rows` rows are run anyway, for `sequences` tokens.
///
/// The most tokens per time win, by the costs; nothing unless the gain clearly exceeds the price
/// and the account covers it. Where several sequences share the step none of them may wait
/// noticeably for the guesses of another. A number of rows that was never measured without guesses
/// is measured first, and numbers above all that were seen one after the other.
std::vector<int> ShareDrafts(absl::Span<const DraftOffer> offers, int rows, int sequences,
                             int rows_max, const RowCosts& costs, const GuessAccount& account);

}  // namespace neurogrid
