// From sequences to the flat arrays of a step.
#pragma once

#include <cstdint>

#include "coordinator/sequence.h"
#include "coordinator/state_slots.h"
#include "engine/batch.h"

namespace neurogrid {

/// Rows of prompt [first, first + rows) that report the logprob of the token after them.
int64_t ScoredRows(const Sequence& sequence, int64_t first, int rows);
/// Whether the last row of [first, first + rows) draws a token.
bool DrawsToken(const Sequence& sequence, int64_t first, int rows);

/// Appends the tokens [first, first + rows) of a sequence, whose pages are allocated up to there,
/// with its states and the samplings of its scored rows and of the drawn one.
void AppendSlice(const Sequence& sequence, int64_t first, int rows, const StateUse& state,
                 Batch& batch);

/// How the next token of a sequence is to be drawn: everything but its logits.
SamplingRow SamplingOf(const Sequence& sequence);

}  // namespace neurogrid
