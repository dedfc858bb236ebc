// From sequences to the flat arrays of a step.
#pragma once

#include <cstdint>

#include "absl/types/span.h"
#include "coordinator/sequence.h"
#include "coordinator/state_slots.h"
#include "engine/batch.h"

namespace neurogrid {

/// Rows of prompt [first, first + rows) that report the logprob of the token after them.
int64_t ScoredRows(const Sequence& sequence, int64_t first, int rows);
/// Whether the last known row of [first, first + rows) draws a token.
bool DrawsToken(const Sequence& sequence, int64_t first, int rows);

/// Appends the tokens [first, first + rows) of a sequence, whose pages are allocated up to there,
/// with its states and the samplings of its scored rows and of the drawn one. The last rows are
/// `drafts`, guessed to follow the known tokens: each draws what would follow it if they were
/// right.
void AppendSlice(const Sequence& sequence, int64_t first, int rows,
                 absl::Span<const int32_t> drafts, const StateUse& state, Batch& batch);

/// Appends the row after the known tokens of a sequence, whose token is what sample `sample` of the
/// step before draws.
void AppendAhead(const Sequence& sequence, int sample, const StateUse& state, Batch& batch);

/// How the token after `known` tokens of a sequence is to be drawn: everything but its logits.
SamplingRow SamplingOf(const Sequence& sequence, int64_t known, const PenaltyCounts& penalties);

}  // namespace neurogrid
