// The batches of a bench: sequences that advance together, each with pages and a slot of its own.
#pragma once

#include "engine/batch.h"

namespace neurogrid {

/// Rows [position, position + rows) of each of `sequences`, the last row of each sampled greedily.
/// Sequence s owns pages [s * pages_each, (s + 1) * pages_each) of each pool.
Batch BenchBatch(const BatchLimits& limits, int sequences, int pages_each, int position, int rows);

/// Rows that give pages [first, first + count) their content, as one prompt; nothing is sampled.
Batch FillingBatch(const BatchLimits& limits, int first, int count);

}  // namespace neurogrid
