// A whole model on this machine's device, for the bench verb.
#pragma once

#include <memory>
#include <string>

#include "common/config.h"
#include "common/status.h"
#include "coordinator/bench.h"
#include "engine/model/checkpoint.h"

namespace neurogrid {

/// Loads `checkpoint` on the configured device with room for what `options` asks.
absl::StatusOr<BenchTarget> MakeBenchTarget(std::shared_ptr<const Checkpoint> checkpoint,
                                            const std::string& name, const Config& config,
                                            const BenchOptions& options);

}  // namespace neurogrid
