// Two running means and a division.
#include "coordinator/step_budget.h"

#include <algorithm>

#include "engine/batch.h"

namespace neurogrid {
namespace {

constexpr int kTokensMin = kPageTokens;
constexpr int kTokensMax = 8192;
constexpr int kTokensUnmeasured = 512;  // also a chunk while nobody decodes
constexpr double kNew = 0.2;            // weight of a new measurement

void Mean(double& mean, double value) { mean = mean == 0 ? value : mean + kNew * (value - mean); }

}  // namespace

StepBudget::StepBudget(double target_ms, int rows_max)
    : target_ms_(target_ms),
      rows_max_(std::min(rows_max, kTokensMax)),
      tokens_(std::min(kTokensUnmeasured, rows_max_)) {}

int StepBudget::tokens(bool decoding) const {
  return decoding ? tokens_ : std::min(std::max(tokens_, kTokensUnmeasured), rows_max_);
}

void StepBudget::Measure(int decode_rows, int prefill_rows, double ms) {
  if (prefill_rows == 0) {
    if (decode_rows > 0) Mean(decode_ms_, ms);
  } else {
    const double base = decode_rows > 0 ? std::min(decode_ms_, ms) : 0;
    Mean(prefill_row_ms_, std::max((ms - base) / prefill_rows, 1e-6));
  }
  if (prefill_row_ms_ == 0) return;
  const double rows =
      std::clamp((target_ms_ - decode_ms_) / prefill_row_ms_, 0.0, 1.0 * kTokensMax);
  const int wanted = static_cast<int>(rows) + decode_rows;
  const int bounded = std::clamp(wanted, tokens_ / 2, tokens_ * 2);
  tokens_ =
      std::clamp(bounded / kPageTokens * kPageTokens, kTokensMin, std::max(kTokensMin, rows_max_));
}

}  // namespace neurogrid
