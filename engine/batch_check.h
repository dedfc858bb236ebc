// The gate in front of Stage::Run: a batch from a peer is refused here or is safe to run.
#pragma once

#include "common/status.h"
#include "engine/batch.h"

namespace neurogrid {

/// InvalidArgument naming the field, its value and the bound: every array length, offset, page,
/// slot, position, id and sampled row is checked.
absl::Status CheckBatch(const Batch& batch, const BatchLimits& limits);

}  // namespace neurogrid
