// Decides which node runs which layers. Pure: no clock, no I/O; the same input gives the same plan.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/types/span.h"
#include "common/config.h"
#include "common/status.h"
#include "coordinator/plan.h"
#include "engine/model/layer_range.h"

namespace neurogrid {

/// One layer as memory and work. Bytes are those held in device memory.
struct LayerFacts {
  int64_t weight_bytes = 0;
  int64_t parameters = 0;            // weights that take part in matmuls
  int64_t kv_bytes_per_token = 0;    // 0 for a short convolution
  int64_t state_bytes_per_slot = 0;  // 0 for attention
  int window = 0;                    // tokens that it sees; 0: all
};

/// A model as the planner sees it; from file headers alone.
struct ModelFacts {
  std::string name;
  std::string precision;
  std::vector<LayerFacts> layers;
  int64_t embedding_bytes = 0;  // on the first stage
  int64_t head_bytes = 0;       // final norm and head, on the last stage
  int64_t shared_bytes = 0;     // of both, held once where one stage is first and last (tied)
  int64_t head_parameters = 0;
  int64_t attention_width = 0;       // query heads * head_dim
  int64_t row_bytes = 0;             // one activation row on the wire, what rides with it included
  int64_t workspace_bytes = 0;       // of any stage
  int64_t last_workspace_bytes = 0;  // more on the last stage: logits
  int page_tokens = 16;
  int chunk_tokens = 512;           // rows of a prefill chunk
  int slots = 0;                    // recurrent states a stage holds
  int window = 0;                   // the widest of any layer
  std::vector<ModelFacts> smaller;  // the same model in fewer bytes: advice when nothing fits
  std::vector<ModelFacts> on_gpu;   // the same model as a GPU holds it, where that differs: one
};

struct NodeFacts {
  std::string id;
  int64_t budget_bytes = 0;   // cluster.md 2.1: free, less reserve and limits
  double read_bandwidth = 0;  // bytes per second
  double matmul_rate = 0;     // operations per second, a multiply-add counts 2
  int64_t step_overhead_ns = 250'000;
  bool with_coordinator = false;  // on the coordinator's own host
  bool measured = true;
  bool is_gpu = false;
  // The last part of the budget that holds only weights, and how fast they are read there: memory
  // of the host behind a GPU.
  int64_t slow_bytes = 0;
  double slow_bandwidth = 0;  // bytes per second
  // Of decoding steps as measured: what each layer costs beside its bytes and rows, and the
  // operations per second that rows beyond the first add; 0: none, and those of matmul_rate.
  int64_t layer_overhead_ns = 0;
  double row_rate = 0;
};

/// The model as this node holds it.
const ModelFacts& HeldBy(const NodeFacts& node, const ModelFacts& model);

/// What a hop costs: fixed time plus bytes over a rate (cluster.md 2.9).
struct LinkFacts {
  int64_t local_ns = 20'000;  // coordinator and a stage on one host
  int64_t hop_ns = 200'000;
  double bytes_per_s = 0.45e9;
  // The coordinator's own work between a result and the next step of the same sequences.
  int64_t turn_ns = 0;
  int64_t turn_row_ns = 0;  // and for each of them
};

/// Pins and limits, from the nodes of the configuration.
struct Placement {
  PlannerConfig options;
  std::map<std::string, NodeConfig> nodes;
};

/// Picks contiguous layer ranges, one a node, by cluster.md 2.1 to 2.5: exact memory, predicted
/// step times, dynamic programming over (nodes used, last node, layers done), then the choice by
/// elimination of 2.5. The explanation of 2.7 stands in the plan.
///
/// FailedPrecondition when nothing fits, with the numbers of 2.9; InvalidArgument for a placement
/// that contradicts itself or the nodes, naming the line of the configuration.
absl::StatusOr<Plan> PlanStages(const ModelFacts& model, absl::Span<const NodeFacts> nodes,
                                const LinkFacts& link, const WorkloadConfig& workload,
                                const Placement& placement);

}  // namespace neurogrid
