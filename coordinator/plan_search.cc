#include "coordinator/plan_search.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "common/check.h"

namespace neurogrid {
namespace {

constexpr int64_t kNever = std::numeric_limits<int64_t>::max() / 4;
constexpr int64_t kOutBytesPerRow = 40;     // batch fields of one row
constexpr int64_t kReturnBytesPerRow = 32;  // token, logprob, flags

}  // namespace

PlanSearch::PlanSearch(const ModelFacts& model, absl::Span<const NodeFacts> nodes,
                       absl::Span<const NodeRule> rules, const LinkFacts& link,
                       const WorkloadConfig& workload)
    : model_(model),
      nodes_(nodes),
      rules_(rules),
      link_(link),
      workload_(workload),
      layers_(static_cast<int>(model.layers.size())) {
  NG_CHECK(nodes.size() == rules.size() && nodes.size() <= 16);
  for (const NodeFacts& node : nodes) costs_.emplace_back(model, node, workload);
}

PlanSearch::Prices PlanSearch::PricesOf(int64_t rows) const {
  Prices prices;
  for (const NodeCost& cost : costs_) {
    prices.step_ns.push_back(cost.StepPrefixNs(rows));
    prices.head_ns.push_back(cost.HeadNs(rows));
  }
  return prices;
}

int64_t PlanSearch::CacheBytes(int node, LayerRange layers) const {
  if (nodes_[node].slow_bytes == 0) return 0;
  return StageCacheBytes(model_, workload_, layers, PagesNeeded(model_, workload_));
}

int64_t PlanSearch::StepNs(const Prices& prices, int node, LayerRange layers) const {
  const std::vector<int64_t>& prefix = prices.step_ns[node];
  return costs_[node].overhead_ns() + costs_[node].SlowNs(layers, CacheBytes(node, layers)) +
         prefix[layers.last] - prefix[layers.first] +
         (layers.last == layers_ ? prices.head_ns[node] : 0);
}

/// A stage's work in a round: a step of every group, and its share of new prompts. In the time in
/// which N sequences get one token each, N / output_tokens of them are replaced.
int64_t PlanSearch::BusyNs(const Prices& prices, int node, LayerRange layers, int groups) const {
  const double prompts =
      static_cast<double>(workload_.concurrency) / static_cast<double>(workload_.output_tokens);
  return groups * StepNs(prices, node, layers) +
         std::llround(prompts *
                      static_cast<double>(costs_[node].PromptNs(layers, CacheBytes(node, layers))));
}

int64_t PlanSearch::HopNs(int64_t rows) const {
  return link_.hop_ns +
         std::llround(static_cast<double>(rows * model_.row_bytes) * 1e9 / link_.bytes_per_s);
}

int64_t PlanSearch::OutNs(int node, int64_t rows) const {
  if (nodes_[node].with_coordinator) return link_.local_ns;
  return link_.hop_ns +
         std::llround(static_cast<double>(rows * kOutBytesPerRow) * 1e9 / link_.bytes_per_s);
}

int64_t PlanSearch::ReturnNs(int node, int64_t rows) const {
  if (nodes_[node].with_coordinator) return link_.local_ns;
  return link_.hop_ns +
         std::llround(static_cast<double>(rows * kReturnBytesPerRow) * 1e9 / link_.bytes_per_s);
}

int64_t PlanSearch::TurnNs(int64_t rows) const { return link_.turn_ns + rows * link_.turn_row_ns; }

int64_t PlanSearch::EdgeBusyNs(int groups, int64_t rows) const {
  const double prompt_rows = static_cast<double>(workload_.concurrency) * workload_.prompt_tokens /
                             workload_.output_tokens;
  const double bytes =
      (static_cast<double>(groups * rows) + prompt_rows) * static_cast<double>(model_.row_bytes);
  return std::llround(bytes * 1e9 / link_.bytes_per_s);
}

int64_t PlanSearch::RingNs(const std::vector<Candidate::Stage>& stages, const Prices& prices,
                           int64_t rows) const {
  const int64_t between = TurnNs(rows) + OutNs(stages.front().node, rows) +
                          ReturnNs(stages.back().node, rows) +
                          static_cast<int64_t>(stages.size() - 1) * HopNs(rows);
  int64_t steps = 0;
  for (const Candidate::Stage& stage : stages) steps += StepNs(prices, stage.node, stage.layers);
  return GoesAhead(stages) ? std::max(between, steps) : between + steps;
}

/// A GPU that is the whole chain has its next step already while this one's tokens travel.
bool PlanSearch::GoesAhead(const std::vector<Candidate::Stage>& stages) const {
  return stages.size() == 1 && nodes_[stages.front().node].is_gpu;
}

bool PlanSearch::MayTake(int node, LayerRange layers) const {
  if (rules_[node].pinned.has_value()) return *rules_[node].pinned == layers;
  return std::none_of(rules_.begin(), rules_.end(), [&](const NodeRule& rule) {
    return rule.pinned.has_value() && rule.pinned->first < layers.last &&
           layers.first < rule.pinned->last;
  });
}

/// Of nodes that nothing tells apart, the earlier ones of the list are used first: the search sees
/// one order of them instead of all.
bool PlanSearch::MayFollow(uint32_t used, int node) const {
  if ((used >> node) & 1u) return false;
  for (int other = 0; other < node; ++other) {
    const NodeFacts& a = nodes_[other];
    const NodeFacts& b = nodes_[node];
    const bool twins = a.budget_bytes == b.budget_bytes && a.read_bandwidth == b.read_bandwidth &&
                       a.matmul_rate == b.matmul_rate && a.step_overhead_ns == b.step_overhead_ns &&
                       a.layer_overhead_ns == b.layer_overhead_ns && a.row_rate == b.row_rate &&
                       a.with_coordinator == b.with_coordinator && a.is_gpu == b.is_gpu &&
                       a.slow_bytes == b.slow_bytes && a.slow_bandwidth == b.slow_bandwidth &&
                       !rules_[other].pinned.has_value() && !rules_[node].pinned.has_value() &&
                       rules_[other].always == rules_[node].always;
    if (twins && !((used >> other) & 1u)) return false;
  }
  return true;
}

/// The table of the dynamic programme: for every (set of used nodes, last node, layers done) the
/// least time round the ring so far and where it came from.
class PlanSearch::RingTable {
 public:
  RingTable(int nodes, int layers)
      : nodes_(nodes), ends_(layers + 1), states_((size_t{1} << nodes) * nodes * ends_) {}

  struct State {
    int64_t ring = kNever;
    int8_t before = -1;  // node of the stage before
    int16_t first = 0;   // first layer of this stage
  };
  State& At(uint32_t set, int node, int end) {
    return states_[(set * nodes_ + node) * ends_ + end];
  }

  std::vector<Candidate::Stage> ChainTo(uint32_t set, int node, int end) {
    std::vector<Candidate::Stage> stages;
    while (node >= 0) {
      const State& step = At(set, node, end);
      stages.push_back({node, {step.first, end}});
      set &= ~(1u << node);
      end = step.first;
      node = step.before;
    }
    std::reverse(stages.begin(), stages.end());
    return stages;
  }

 private:
  size_t nodes_;
  size_t ends_;
  std::vector<State> states_;
};

void PlanSearch::Extend(RingTable& table, const Bound& bound, const Prices& prices, uint32_t used,
                        int before, int first) const {
  const int64_t ring = before < 0 ? 0 : table.At(used, before, first).ring;
  if (ring >= kNever) return;
  for (int node = 0; node < nodes_count(); ++node) {
    if (!MayFollow(used, node)) continue;
    const int64_t reach = ring + (before < 0 ? OutNs(node, bound.rows) : HopNs(bound.rows));
    for (int last = first + 1; last <= layers_; ++last) {
      const LayerRange layers = {first, last};
      const int64_t bytes = StageFixedBytes(HeldBy(nodes_[node], model_), layers) +
                            StageCacheBytes(model_, workload_, layers, bound.pages);
      if (bytes > nodes_[node].budget_bytes) break;
      if (!MayTake(node, layers)) continue;
      if (bound.busy_ns_max < kNever &&
          BusyNs(prices, node, layers, bound.groups) > bound.busy_ns_max) {
        break;
      }
      RingTable::State& state = table.At(used | (1u << node), node, last);
      const int64_t sum = reach + StepNs(prices, node, layers);
      if (sum < state.ring) state = {sum, static_cast<int8_t>(before), static_cast<int16_t>(first)};
    }
  }
}

/// The least time round the ring with every stage within its memory and under the bound on its busy
/// time; of equals, the chain whose nodes come first in the list.
std::optional<std::vector<Candidate::Stage>> PlanSearch::ShortestRing(const Bound& bound,
                                                                      const Prices& prices) const {
  const int nodes = nodes_count();
  RingTable table(nodes, layers_);
  uint32_t required = 0;
  for (int node = 0; node < nodes; ++node) {
    if (rules_[node].always || rules_[node].pinned.has_value()) required |= 1u << node;
  }
  const auto by_node = [](const Candidate::Stage& a, const Candidate::Stage& b) {
    return a.node != b.node ? a.node < b.node : a.layers.last < b.layers.last;
  };
  std::optional<std::vector<Candidate::Stage>> best;
  int64_t best_ring = kNever;
  Extend(table, bound, prices, 0, -1, 0);
  for (uint32_t set = 1; set < (1u << nodes); ++set) {  // subsets come before their supersets
    const int count = std::popcount(set);
    for (int node = 0; node < nodes && count < bound.stages; ++node) {
      for (int end = 1; end < layers_; ++end) Extend(table, bound, prices, set, node, end);
    }
    if (count != bound.stages || (set & required) != required) continue;
    for (int node = 0; node < nodes; ++node) {
      if (table.At(set, node, layers_).ring >= kNever) continue;
      std::vector<Candidate::Stage> chain = table.ChainTo(set, node, layers_);
      const int64_t ring = RingNs(chain, prices, bound.rows);
      if (ring > best_ring) continue;
      if (ring < best_ring || std::lexicographical_compare(chain.begin(), chain.end(),
                                                           best->begin(), best->end(), by_node)) {
        best_ring = ring;
        best = std::move(chain);
      }
    }
  }
  return best;
}

std::optional<Candidate> PlanSearch::LeastLatency(int stages, int64_t pages) const {
  Bound bound;
  bound.stages = stages;
  bound.pages = pages;
  std::optional<std::vector<Candidate::Stage>> ring = ShortestRing(bound, PricesOf(1));
  if (!ring.has_value()) return std::nullopt;
  return Price(*std::move(ring), 1);
}

/// The round time is the larger of the busiest stage and the ring; the ring grows as the bound on
/// busy time falls, so their least maximum lies where they cross: bisection finds it.
std::optional<Candidate> PlanSearch::GreatestThroughput(int stages, int groups,
                                                        int64_t pages) const {
  Bound bound;
  bound.stages = stages;
  bound.groups = groups;
  bound.rows = (workload_.concurrency + groups - 1) / groups;
  bound.pages = pages;
  const Prices prices = PricesOf(bound.rows);
  std::optional<std::vector<Candidate::Stage>> ring = ShortestRing(bound, prices);
  if (!ring.has_value()) return std::nullopt;
  Candidate best = Price(*ring, groups);
  int64_t low = 0;
  int64_t high = best.round_ns;
  while (high - low > high / 4096) {
    bound.busy_ns_max = low + (high - low) / 2;
    ring = ShortestRing(bound, prices);
    if (!ring.has_value()) {
      low = bound.busy_ns_max;
      continue;
    }
    Candidate candidate = Price(*ring, groups);
    const int64_t ring_ns = RingNs(*ring, prices, bound.rows);
    if (candidate.round_ns < best.round_ns) best = std::move(candidate);
    if (ring_ns > bound.busy_ns_max) {
      low = bound.busy_ns_max;
    } else {
      high = bound.busy_ns_max;
    }
  }
  return best;
}

Candidate PlanSearch::Price(std::vector<Candidate::Stage> stages, int groups) const {
  Candidate candidate;
  candidate.groups = groups;
  const int64_t rows = (workload_.concurrency + groups - 1) / groups;
  const Prices prices = PricesOf(rows);
  candidate.latency_ns = RingNs(stages, PricesOf(1), 1);
  candidate.round_ns = RingNs(stages, prices, rows);
  if (stages.size() > 1) {
    candidate.round_ns = std::max(candidate.round_ns, EdgeBusyNs(groups, rows));
  }
  candidate.pages = kNever;
  int64_t rest_ns = 0;
  const int64_t chunk = std::min(model_.chunk_tokens, workload_.prompt_tokens);
  candidate.first_token_ns = TurnNs(1) + OutNs(stages.front().node, chunk) +
                             ReturnNs(stages.back().node, 1) +
                             static_cast<int64_t>(stages.size() - 1) * HopNs(chunk);
  for (const Candidate::Stage& stage : stages) {
    candidate.busy_ns.push_back(BusyNs(prices, stage.node, stage.layers, groups));
    // The coordinator's own work is not hidden by the steps of other groups: served on an H200, two
    // groups of 32 streams gave fewer tokens than one of 64.
    const int64_t turns = GoesAhead(stages) ? 0 : groups * TurnNs(rows);
    candidate.round_ns = std::max(candidate.round_ns, candidate.busy_ns.back() + turns);
    const NodeFacts& node = nodes_[stage.node];
    const int64_t room = node.budget_bytes - StageFixedBytes(HeldBy(node, model_), stage.layers);
    candidate.pages = std::min(candidate.pages,
                               PagesWithin(model_, workload_, stage.layers, room).value_or(kNever));
    const int64_t cache = CacheBytes(stage.node, stage.layers);
    const int64_t first = costs_[stage.node].FirstChunkNs(stage.layers, cache);
    candidate.first_token_ns += first;
    rest_ns = std::max(rest_ns, costs_[stage.node].PromptNs(stage.layers, cache) - first);
  }
  candidate.first_token_ns += rest_ns;
  candidate.stages = std::move(stages);
  return candidate;
}

}  // namespace neurogrid
