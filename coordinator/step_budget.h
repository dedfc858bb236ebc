// How many rows a step may have so that those who decode in it do not wait too long.
#pragma once

#include <cstdint>

namespace neurogrid {

/// Learns, from steps as they were measured, what a step costs without prefill and what each row of
/// prefill adds, and gives the rows whose predicted time is the target. Changes by at most a factor
/// of two a step; a multiple of 16 in [16, 8192].
class StepBudget {
 public:
  StepBudget(double target_ms, int rows_max);

  /// Rows of the next step, decodes among them.
  int tokens(bool decoding) const;
  /// A step of so many rows was away for `ms`.
  void Measure(int decode_rows, int prefill_rows, double ms);

 private:
  double target_ms_ = 0;
  int rows_max_ = 0;
  int tokens_ = 0;
  double decode_ms_ = 0;       // of a step without prefill; 0: not seen
  double prefill_row_ms_ = 0;  // that each row of prefill adds; 0: not seen
};

}  // namespace neurogrid
