// How a scheduler drives a chain that is up: by its plan and by the devices it runs on.
#pragma once

#include "absl/strings/string_view.h"
#include "coordinator/plan.h"
#include "coordinator/scheduler.h"

namespace neurogrid {

/// `speculation`: auto, on or off, as configured.
SchedulerOptions ChainShape(const Plan& plan, const BatchLimits& limits,
                            absl::string_view determinism_class, absl::string_view speculation);

}  // namespace neurogrid
