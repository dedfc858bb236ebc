// The search behind PlanStages: the best chain of nodes under a memory and a time bound.
#pragma once

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "coordinator/plan_cost.h"
#include "coordinator/planner.h"

namespace neurogrid {

/// A chain and what it is predicted to do.
struct Candidate {
  struct Stage {
    int node = 0;  // index into the nodes
    LayerRange layers;
    bool operator==(const Stage&) const = default;
  };
  std::vector<Stage> stages;
  int groups = 1;
  int64_t pages = 0;       // that fit on every stage
  int64_t latency_ns = 0;  // one trip round the ring with one row
  int64_t round_ns = 0;    // in which every one of the concurrent sequences gets a token
  int64_t first_token_ns = 0;
  std::vector<int64_t> busy_ns;  // by stage, per round
};

/// Which layers a node may take. Nodes that may not be used are not in the problem at all.
struct NodeRule {
  std::optional<LayerRange> pinned;
  bool always = false;
};

class PlanSearch {
 public:
  PlanSearch(const ModelFacts& model, absl::Span<const NodeFacts> nodes,
             absl::Span<const NodeRule> rules, const LinkFacts& link,
             const WorkloadConfig& workload);

  /// Least latency of exactly `stages` stages with at least `pages` pages; nothing when none fits.
  std::optional<Candidate> LeastLatency(int stages, int64_t pages) const;
  /// Greatest throughput of exactly `stages` stages, `groups` decode groups, at least `pages`
  /// pages.
  std::optional<Candidate> GreatestThroughput(int stages, int groups, int64_t pages) const;
  /// Prices a given chain.
  Candidate Price(std::vector<Candidate::Stage> stages, int groups) const;

  int nodes_count() const { return static_cast<int>(nodes_.size()); }

 private:
  struct Bound {
    int stages = 0;
    int groups = 1;
    int64_t rows = 1;
    int64_t pages = 0;
    int64_t busy_ns_max = std::numeric_limits<int64_t>::max();
  };
  struct Prices {                               // for one number of rows
    std::vector<std::vector<int64_t>> step_ns;  // [node][layers + 1], prefix sums
    std::vector<int64_t> head_ns;               // [node]
  };

  class RingTable;

  Prices PricesOf(int64_t rows) const;
  void Extend(RingTable& table, const Bound& bound, const Prices& prices, uint32_t used, int before,
              int first) const;
  std::optional<std::vector<Candidate::Stage>> ShortestRing(const Bound& bound,
                                                            const Prices& prices) const;
  bool MayFollow(uint32_t used, int node) const;
  bool MayTake(int node, LayerRange layers) const;
  /// Of the pages that the workload needs; 0 for a node whose times do not depend on them.
  int64_t CacheBytes(int node, LayerRange layers) const;
  int64_t StepNs(const Prices& prices, int node, LayerRange layers) const;
  int64_t BusyNs(const Prices& prices, int node, LayerRange layers, int groups) const;
  int64_t OutNs(int node, int64_t rows) const;     // coordinator to the first stage
  int64_t ReturnNs(int node, int64_t rows) const;  // last stage to the coordinator
  int64_t HopNs(int64_t rows) const;
  int64_t TurnNs(int64_t rows) const;
  int64_t EdgeBusyNs(int groups, int64_t rows) const;
  bool GoesAhead(const std::vector<Candidate::Stage>& stages) const;
  int64_t RingNs(const std::vector<Candidate::Stage>& stages, const Prices& prices,
                 int64_t rows) const;

  const ModelFacts& model_;
  absl::Span<const NodeFacts> nodes_;
  absl::Span<const NodeRule> rules_;
  LinkFacts link_;
  WorkloadConfig workload_;
  int layers_ = 0;
  std::vector<NodeCost> costs_;
};

}  // namespace neurogrid
