// The verbs of neurogrid-coordinator. Each returns the process's exit code.
#pragma once

#include "coordinator/command_line.h"

namespace neurogrid {

/// Serves until SIGTERM or SIGINT, then drains. A second signal ends the process at once. Where the
/// coordinator's own device breaks, requests end with an error and so does this: only another
/// process gets the device back.
absl::Status Serve(const Config& config);
/// Prints the plan for this machine alone; starts nothing and writes nothing.
absl::Status PrintPlan(const Config& config);
/// Prints a join token as the last line.
absl::Status PrintToken(const Config& config, int hours);
absl::Status Bench(const Config& config, const BenchOptions& options);

}  // namespace neurogrid
