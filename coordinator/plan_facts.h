// From what is known of model, nodes and configuration to the planner's inputs.
#pragma once

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/config.h"
#include "coordinator/planner.h"
#include "engine/batch.h"
#include "engine/model/checkpoint.h"
#include "engine/model/precision.h"

namespace neurogrid {

/// A node as it reported itself.
struct ReportedNode {
  std::string id;
  std::string host_id;
  std::string device_kind = "cpu";  // or "cuda:N"; nodes of one device of a host share its memory
  std::string device_uuid;          // of a GPU, where the driver told it
  bool with_coordinator = false;    // on the coordinator's own host
  int64_t memory_total_bytes = 0;
  int64_t memory_free_bytes = 0;
  double read_bandwidth = 0;
  double matmul_rate = 0;
  double row_rate = 0;            // of decoding steps, as DeviceSpeed's; 0: not known
  double op_seconds = 0;          // likewise
  int64_t host_memory_bytes = 0;  // of what is free: the host's, behind a GPU, for weights alone
  double host_bandwidth = 0;      // at which the GPU reads it; bytes per second
};

/// Equal where two nodes compute on one device, and so share its memory and its speed. A number is
/// no name where processes or containers of a host see different GPUs: a UUID is.
std::string DeviceOf(const ReportedNode& node);

/// The model at `precision`, and at those of fewer bytes for the error of a model that does not
/// fit.
ModelFacts FactsOf(const Checkpoint& checkpoint, const std::string& name, Precision precision,
                   const BatchLimits& limits);

/// Budgets by what is free, less a reserve of 1 GiB or 10 % on a CPU (512 MiB or 2 % otherwise),
/// shared between the nodes of one device. Errors name nodes whose figures are out of bounds.
absl::StatusOr<std::vector<NodeFacts>> FactsOf(absl::Span<const ReportedNode> nodes,
                                               const Config& config);

/// Hops, and what this coordinator itself takes for a token.
LinkFacts ServingLink();

}  // namespace neurogrid
