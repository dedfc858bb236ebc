// An assignment as the coordinator sends it, checked.
#pragma once

#include "common/status.h"
#include "proto/wire.h"
#include "worker/stage_source.h"

namespace neurogrid {

/// What to load. InvalidArgument naming the field that makes no sense.
absl::StatusOr<StageRequest> ReadAssignment(const wire::Assign& assign);

}  // namespace neurogrid
