// This machine's device outside of any cluster: what the verbs plan and bench need of it.
#pragma once

#include <memory>
#include <string>

#include "common/config.h"
#include "common/status.h"
#include "coordinator/bench.h"
#include "coordinator/plan_facts.h"
#include "engine/model/checkpoint.h"

namespace neurogrid {

/// The configured device, measured, as the only node there is. FailedPrecondition for device
/// "none".
absl::StatusOr<ReportedNode> OwnNode(const Config& config);

/// Loads `checkpoint` on the configured device with room for what `options` asks.
absl::StatusOr<BenchTarget> MakeBenchTarget(std::shared_ptr<const Checkpoint> checkpoint,
                                            const std::string& name, const Config& config,
                                            const BenchOptions& options);

}  // namespace neurogrid
