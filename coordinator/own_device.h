// This machine's device outside of any cluster: what the verbs plan and bench need of it.
#pragma once

#include <string>

#include "common/config.h"
#include "common/status.h"
#include "coordinator/plan_facts.h"
#include "engine/bench/bench_options.h"
#include "engine/model/checkpoint.h"

namespace neurogrid {

/// The configured device, measured, as the only node there is. FailedPrecondition for device
/// "none".
absl::StatusOr<ReportedNode> OwnNode(const Config& config);

/// Measures `checkpoint` on the configured device, in each precision that the configuration
/// implies.
absl::Status BenchOwnDevice(const Checkpoint& checkpoint, const std::string& name,
                            const Config& config, const BenchOptions& options);

}  // namespace neurogrid
