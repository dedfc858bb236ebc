// From options to the cases of a bench, and the limits that a stage needs to run them.
#pragma once

#include <string>
#include <vector>

#include "common/status.h"
#include "engine/batch.h"
#include "engine/bench/bench_options.h"
#include "engine/model/model_config.h"

namespace neurogrid {

struct BenchCase {
  enum class Kind { kPrefill, kDecode, kBatch };
  Kind kind = Kind::kDecode;
  int sequences = 1;
  int depth = 0;  // tokens that a sequence has before the measured ones
  int steps = 1;
  int rows = 1;    // of a sequence in a step, but perhaps the last
  int tokens = 1;  // of a sequence over all steps

  const char* name() const;
  int tokens_in_all() const { return sequences * tokens; }
  /// Rows of a sequence in this step.
  int RowsOf(int step) const { return std::min(rows, tokens - step * rows); }
  /// Pages of a sequence, with those of the tokens before.
  int pages_each() const { return (first_position() + tokens + kPageTokens - 1) / kPageTokens; }
  /// Decoding starts behind one token at least.
  int first_position() const { return kind == Kind::kPrefill ? depth : std::max(depth, 1); }
};

/// Prompts first, then depths, then batches. A processor gets 512 tokens of prompt and batches
/// behind one token unless the options say more; a GPU what the README's table holds.
/// InvalidArgument names flag and value.
absl::StatusOr<std::vector<BenchCase>> BenchCases(const BenchOptions& options, bool gpu,
                                                  const ModelConfig& model);

BatchLimits LimitsFor(const std::vector<BenchCase>& cases, const ModelConfig& model);

}  // namespace neurogrid
