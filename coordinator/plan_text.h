// What a plan, or its absence, says to people.
#pragma once

#include <string>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/plan_search.h"
#include "coordinator/planner.h"

namespace neurogrid {

/// "1.50 GB", GB = 10^9 bytes.
std::string GigaBytes(int64_t bytes);

/// The table of stages and the predicted figures.
std::string DescribePlan(const ModelFacts& model, absl::Span<const NodeFacts> nodes,
                         const WorkloadConfig& workload, const Candidate& chosen);

/// What would make a model fit that does not, found by the planner.
struct Remedies {
  struct Smaller {
    std::string precision;
    int64_t weight_bytes = 0;
    int64_t room_tokens = 0;
  };
  std::vector<Smaller> smaller;
  int64_t node_bytes = 0;  // least budget of one more node; 0: one more node does not suffice
  int node_layers = 0;     // that it would hold
};

/// Why nothing fits: what is needed, what is there, and what would help.
std::string DescribeShortage(const ModelFacts& model, absl::Span<const NodeFacts> nodes,
                             const WorkloadConfig& workload, const Remedies& remedies);

/// Embedding, layers, final norm and head.
int64_t WeightBytes(const ModelFacts& model);

}  // namespace neurogrid
