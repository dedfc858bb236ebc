#include "coordinator/planner.h"

#include <algorithm>
#include <optional>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "coordinator/plan_cost.h"
#include "coordinator/plan_search.h"
#include "coordinator/plan_text.h"

namespace neurogrid {
namespace {

constexpr size_t kNodesMax = 8;                  // searched exactly; of more, the fastest
constexpr int64_t kPagesMax = int64_t{1} << 40;  // a model without a cache has room for any number

enum class Profile { kLatency, kThroughput, kBalanced };

Profile ProfileOf(const WorkloadConfig& workload) {
  if (workload.profile == "latency") return Profile::kLatency;
  return workload.profile == "throughput" ? Profile::kThroughput : Profile::kBalanced;
}

/// One planning problem: the search, and what counts as better.
class Choice {
 public:
  Choice(const PlanSearch& search, const ModelFacts& model, const WorkloadConfig& workload,
         const PlannerConfig& options)
      : search_(search), workload_(workload), options_(options), profile_(ProfileOf(workload)) {
    const int64_t tokens = workload.prompt_tokens + workload.output_tokens;
    pages_needed_ = workload.concurrency * ((tokens + model.page_tokens - 1) / model.page_tokens);
    stages_max_ = std::min<int>(search.nodes_count(), static_cast<int>(model.layers.size()));
    for (int stages = 1; stages <= stages_max_; ++stages) {
      const std::optional<Candidate> candidate = search_.LeastLatency(stages, pages_needed_);
      if (candidate.has_value())
        least_latency_ns_ = std::min(least_latency_ns_, candidate->latency_ns);
    }
  }

  /// Choice by elimination: the fewest stages whose objective is within the gain a further node
  /// must bring; of those within 1 % of the best, the most pages; then smaller latency, fewer
  /// groups.
  std::optional<Candidate> Best() const {
    std::vector<std::optional<Candidate>> by_stages;
    double best = 0;
    for (int stages = 1; stages <= stages_max_; ++stages) {
      by_stages.push_back(BestOf(stages, pages_needed_));
      if (by_stages.back().has_value()) best = std::max(best, Score(*by_stages.back()));
    }
    for (int stages = 1; stages <= stages_max_; ++stages) {
      const std::optional<Candidate>& candidate = by_stages[stages - 1];
      if (!candidate.has_value()) continue;
      const double gain = best / Score(*candidate) - 1;
      if (gain * 100 < options_.min_gain_percent) return WithMostPages(*candidate, stages);
    }
    return std::nullopt;
  }

 private:
  /// Greater is better; the reciprocal of a time in either profile.
  double Score(const Candidate& candidate) const {
    return 1e9 / static_cast<double>(profile_ == Profile::kLatency ? candidate.latency_ns
                                                                   : candidate.round_ns);
  }

  bool Allowed(const Candidate& candidate) const {
    return profile_ != Profile::kBalanced ||
           static_cast<double>(candidate.latency_ns) <=
               options_.max_single_stream_slowdown * static_cast<double>(least_latency_ns_);
  }

  bool Better(const Candidate& a, const Candidate& b) const {
    if (Score(a) != Score(b)) return Score(a) > Score(b);
    if (a.latency_ns != b.latency_ns) return a.latency_ns < b.latency_ns;
    return a.groups < b.groups;
  }

  std::set<int> GroupsToTry(int stages) const {
    // One stage has one step in flight at a time, whatever it is made of.
    if (profile_ == Profile::kLatency || stages == 1) return {1};
    std::set<int> groups = {1, 2, stages, stages + 1, 2 * stages};
    std::erase_if(groups, [&](int g) { return g > workload_.concurrency; });
    return groups;
  }

  std::optional<Candidate> BestOf(int stages, int groups, int64_t pages) const {
    std::optional<Candidate> best;
    if (profile_ != Profile::kLatency) {
      best = search_.GreatestThroughput(stages, groups, pages);
      if (best.has_value() && !Allowed(*best)) best.reset();
    }
    std::optional<Candidate> fast = search_.LeastLatency(stages, pages);
    if (!fast.has_value()) return best;
    Candidate priced = search_.Price(std::move(fast->stages), groups);
    if (Allowed(priced) && (!best.has_value() || Better(priced, *best))) best = std::move(priced);
    return best;
  }

  std::optional<Candidate> BestOf(int stages, int64_t pages) const {
    std::optional<Candidate> best;
    for (const int groups : GroupsToTry(stages)) {
      std::optional<Candidate> candidate = BestOf(stages, groups, pages);
      if (candidate.has_value() && (!best.has_value() || Better(*candidate, *best))) {
        best = std::move(candidate);
      }
    }
    return best;
  }

  /// Spreads the cache: layouts within 1 % of the best may hold many times its pages.
  Candidate WithMostPages(const Candidate& chosen, int stages) const {
    if (chosen.pages >= kPagesMax) return chosen;
    const double floor = Score(chosen) * 0.99;
    Candidate widest = chosen;
    for (const int groups : GroupsToTry(stages)) {
      int64_t low = widest.pages;
      int64_t high = std::max<int64_t>(low, 1);
      const auto at = [&](int64_t pages) -> std::optional<Candidate> {
        std::optional<Candidate> candidate = BestOf(stages, groups, pages);
        if (candidate.has_value() && Score(*candidate) < floor) candidate.reset();
        return candidate;
      };
      while (at(high * 2).has_value()) high *= 2;
      high *= 2;
      while (high - low > std::max<int64_t>(1, high / 4096)) {
        const int64_t middle = low + (high - low) / 2;
        std::optional<Candidate> candidate = at(middle);
        if (!candidate.has_value()) {
          high = middle;
          continue;
        }
        low = std::max(middle, candidate->pages);
        if (candidate->pages > widest.pages ||
            (candidate->pages == widest.pages && Better(*candidate, widest))) {
          widest = *std::move(candidate);
        }
      }
    }
    return widest;
  }

  const PlanSearch& search_;
  const WorkloadConfig& workload_;
  const PlannerConfig& options_;
  Profile profile_;
  int64_t pages_needed_ = 0;
  int stages_max_ = 0;
  int64_t least_latency_ns_ = INT64_MAX;
};

std::string NamesOf(absl::Span<const NodeFacts> nodes) {
  return absl::StrJoin(
      nodes, ", ", [](std::string* out, const NodeFacts& node) { absl::StrAppend(out, node.id); });
}

bool MayServe(const NodeConfig& node) { return node.use != "never" && node.use != "spare"; }

using Pin = std::pair<LayerRange, const NodeConfig*>;

/// Whether what is pinned to no node finds one of the `free` others.
absl::Status CheckGaps(std::vector<Pin> pins, int layers, int64_t free, bool locked) {
  std::sort(pins.begin(), pins.end(),
            [](const Pin& a, const Pin& b) { return a.first.first < b.first.first; });
  std::vector<std::string> gaps;
  int covered = 0;
  for (const auto& [range, node] : pins) {
    if (range.first > covered) gaps.push_back(LayerRange{covered, range.first}.ToString());
    covered = range.last;
  }
  if (covered < layers) gaps.push_back(LayerRange{covered, layers}.ToString());
  const std::string left = absl::StrJoin(gaps, " and ");
  if (locked && !gaps.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("planner.lock is set but no node is pinned to layers ", left));
  }
  if (pins.empty() || static_cast<int64_t>(gaps.size()) <= free) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(
      pins.front().second->place, ": layers ", left, " are pinned to no node, and ",
      free == 0 ? "no node" : absl::StrCat("only ", free, free == 1 ? " node" : " nodes"), " here ",
      free > 1 ? "are" : "is", " left for them"));
}

absl::Status CheckPins(const ModelFacts& model, absl::Span<const NodeFacts> nodes,
                       const Placement& placement) {
  const int layers = static_cast<int>(model.layers.size());
  std::vector<Pin> pins;
  for (const auto& entry : placement.nodes) {
    const std::string& name = entry.first;
    const NodeConfig& node = entry.second;
    const bool present = std::any_of(nodes.begin(), nodes.end(),
                                     [&](const NodeFacts& facts) { return facts.id == name; });
    if (!present && (node.layers.has_value() || node.use == "always")) {
      return absl::FailedPreconditionError(absl::StrCat(
          node.place, ": node ", name,
          " is pinned but has not joined; here are: ", nodes.empty() ? "none" : NamesOf(nodes)));
    }
    if (!node.layers.has_value()) continue;
    const LayerRange range = {node.layers->first, node.layers->second};
    if (range.last > layers) {
      return absl::InvalidArgumentError(absl::StrCat(node.place, ": nodes.", name, ".layers is ",
                                                     range.ToString(), " but the model has layers ",
                                                     LayerRange{0, layers}.ToString()));
    }
    for (const auto& [other, config] : pins) {
      if (other.first < range.last && range.first < other.last) {
        return absl::InvalidArgumentError(absl::StrCat(node.place, ": layers ", range.ToString(),
                                                       " overlap ", other.ToString(), " of ",
                                                       config->place));
      }
    }
    if (MayServe(node)) pins.push_back({range, &node});
  }
  const auto takes_others = [&](const NodeFacts& facts) {
    const auto found = placement.nodes.find(facts.id);
    return found == placement.nodes.end() ||
           (MayServe(found->second) && !found->second.layers.has_value());
  };
  return CheckGaps(std::move(pins), layers, std::count_if(nodes.begin(), nodes.end(), takes_others),
                   placement.options.lock);
}

struct Usable {
  std::vector<NodeFacts> nodes;
  std::vector<NodeRule> rules;
  bool proven = true;  // false: there were more nodes than are searched
};

Usable UsableNodes(absl::Span<const NodeFacts> nodes, const Placement& placement) {
  std::vector<std::pair<NodeFacts, NodeRule>> all;
  for (const NodeFacts& node : nodes) {
    NodeRule rule;
    NodeFacts facts = node;
    if (const auto found = placement.nodes.find(node.id); found != placement.nodes.end()) {
      const NodeConfig& config = found->second;
      if (!MayServe(config)) continue;
      rule.always = config.use == "always";
      if (config.layers.has_value()) {
        rule.pinned = LayerRange{config.layers->first, config.layers->second};
      }
      if (config.memory_limit_gb.has_value()) {
        const auto limit = static_cast<int64_t>(*config.memory_limit_gb * 1e9);
        const int64_t less = std::max<int64_t>(0, facts.budget_bytes - limit);
        facts.budget_bytes -= less;
        facts.slow_bytes = std::max<int64_t>(0, facts.slow_bytes - less);
      }
    }
    all.emplace_back(std::move(facts), rule);
  }
  Usable usable;
  if (all.size() > kNodesMax) {
    usable.proven = false;
    std::stable_sort(all.begin(), all.end(), [](const auto& a, const auto& b) {
      const bool a_fixed = a.second.always || a.second.pinned.has_value();
      const bool b_fixed = b.second.always || b.second.pinned.has_value();
      if (a_fixed != b_fixed) return a_fixed;
      return a.first.read_bandwidth > b.first.read_bandwidth;
    });
    all.resize(kNodesMax);
  }
  for (auto& [facts, rule] : all) {
    usable.nodes.push_back(std::move(facts));
    usable.rules.push_back(rule);
  }
  return usable;
}

std::optional<Candidate> Search(const ModelFacts& model, const Usable& usable,
                                const LinkFacts& link, const WorkloadConfig& workload,
                                const PlannerConfig& options) {
  const PlanSearch search(model, usable.nodes, usable.rules, link, workload);
  return Choice(search, model, workload, options).Best();
}

/// Tries what would help: the smaller precisions, and one more node of the least budget.
Remedies FindRemedies(const ModelFacts& model, const Usable& usable, const LinkFacts& link,
                      const WorkloadConfig& workload, const PlannerConfig& options) {
  Remedies remedies;
  for (const ModelFacts& smaller : model.smaller) {
    const std::optional<Candidate> fits = Search(smaller, usable, link, workload, options);
    if (!fits.has_value()) continue;
    remedies.smaller.push_back(
        {smaller.precision, WeightBytes(smaller), fits->pages * model.page_tokens});
  }
  if (usable.nodes.size() >= kNodesMax) return remedies;
  for (int layers = 1; layers < static_cast<int>(model.layers.size()); ++layers) {
    Usable more = usable;
    NodeFacts node = usable.nodes.front();
    node.id = "one more";
    const LayerRange middle = {1, 1 + layers};
    node.budget_bytes = StageFixedBytes(HeldBy(node, model), middle) +
                        StageCacheBytes(model, workload, middle, PagesNeeded(model, workload));
    more.nodes.push_back(node);
    more.rules.push_back({});
    const PlanSearch search(model, more.nodes, more.rules, link, workload);
    for (int stages = 1; stages <= search.nodes_count(); ++stages) {
      if (!search.LeastLatency(stages, PagesNeeded(model, workload)).has_value()) continue;
      remedies.node_bytes = node.budget_bytes;
      remedies.node_layers = layers;
      return remedies;
    }
  }
  return remedies;
}

/// Plans again without each node of the plan.
void AddSurvivability(const ModelFacts& model, const Usable& usable, const LinkFacts& link,
                      const WorkloadConfig& workload, const PlannerConfig& options, Plan& plan) {
  for (const PlannedStage& stage : plan.stages) {
    Usable rest;
    for (size_t i = 0; i < usable.nodes.size(); ++i) {
      if (usable.nodes[i].id == stage.node) continue;
      rest.nodes.push_back(usable.nodes[i]);
      rest.rules.push_back({});  // pins are wishes for the whole cluster, not for its remains
    }
    WorkloadConfig one = workload;
    one.concurrency = 1;
    const bool survives =
        !rest.nodes.empty() && Search(model, rest, link, one, options).has_value();
    (survives ? plan.survives_loss_of : plan.not_loss_of).push_back(stage.node);
  }
  absl::StrAppend(&plan.explanation, "survives: ",
                  plan.survives_loss_of.empty()
                      ? "the loss of no node"
                      : absl::StrCat("the loss of ", absl::StrJoin(plan.survives_loss_of, " or ")),
                  "\n");
}

}  // namespace

absl::StatusOr<Plan> PlanStages(const ModelFacts& model, absl::Span<const NodeFacts> nodes,
                                const LinkFacts& link, const WorkloadConfig& workload,
                                const Placement& placement) {
  NG_RETURN_IF_ERROR(CheckPins(model, nodes, placement));
  const Usable usable = UsableNodes(nodes, placement);
  if (usable.nodes.empty()) {
    return absl::FailedPreconditionError(
        nodes.empty() ? "no node may be used: no worker has joined and the coordinator has no "
                        "device of its own"
                      : absl::StrCat("no node may be used: ", NamesOf(nodes),
                                     nodes.size() == 1 ? " is" : " are",
                                     " here, set to use: never or use: spare"));
  }
  const PlannerConfig& options = placement.options;
  const std::optional<Candidate> chosen = Search(model, usable, link, workload, options);
  if (!chosen.has_value()) {
    const bool on_gpus = std::all_of(usable.nodes.begin(), usable.nodes.end(),
                                     [](const NodeFacts& node) { return node.is_gpu; });
    return absl::FailedPreconditionError(
        DescribeShortage(on_gpus ? HeldBy(usable.nodes.front(), model) : model, usable.nodes,
                         workload, FindRemedies(model, usable, link, workload, options)));
  }
  Plan plan;
  plan.pages = chosen->pages;
  plan.window_pages = WindowPagesBeside(model, workload, chosen->pages);
  plan.decode_groups = chosen->groups;
  plan.rows_max = model.chunk_tokens;
  plan.single_stream_tokens_per_s = 1e9 / static_cast<double>(chosen->latency_ns);
  plan.tokens_per_s =
      static_cast<double>(workload.concurrency) * 1e9 / static_cast<double>(chosen->round_ns);
  plan.first_token_ms = static_cast<double>(chosen->first_token_ns) / 1e6;
  for (size_t s = 0; s < chosen->stages.size(); ++s) {
    const Candidate::Stage& stage = chosen->stages[s];
    const NodeFacts& node = usable.nodes[stage.node];
    plan.stages.push_back(
        {node.id, stage.layers, StageFixedBytes(HeldBy(node, model), stage.layers),
         StagePageBytes(model, stage.layers), StageWindowPageBytes(model, stage.layers),
         node.budget_bytes, static_cast<double>(chosen->busy_ns[s]) / 1e6, node.measured});
  }
  plan.explanation = DescribePlan(model, usable.nodes, workload, *chosen);
  if (!usable.proven) {
    absl::StrAppend(&plan.explanation, "not proven optimal: only the ", kNodesMax,
                    " fastest nodes were searched\n");
  }
  AddSurvivability(model, usable, link, workload, options, plan);
  return plan;
}

}  // namespace neurogrid
