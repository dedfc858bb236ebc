#include "coordinator/plan_text.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "coordinator/plan_cost.h"

namespace neurogrid {
namespace {

std::string Thousands(int64_t value) {
  std::string digits = absl::StrCat(value);
  for (int at = static_cast<int>(digits.size()) - 3; at > 0; at -= 3) digits.insert(at, ",");
  return digits;
}

/// "1,024 B/token", and what layers with a window keep of the last tokens only.
std::string KvPerToken(const ModelFacts& model) {
  const LayerRange all = {0, static_cast<int>(model.layers.size())};
  const std::string bytes =
      absl::StrCat(Thousands(StagePageBytes(model, all) / model.page_tokens), " B/token");
  if (model.window == 0) return bytes;
  return absl::StrCat(bytes, ", and ",
                      Thousands(StageWindowPageBytes(model, all) / model.page_tokens),
                      " for each of the last ", Thousands(model.window));
}

}  // namespace

int64_t WeightBytes(const ModelFacts& model) {
  const LayerRange all = {0, static_cast<int>(model.layers.size())};
  return StageFixedBytes(model, all) - StageStateBytes(model, all) - model.workspace_bytes -
         model.last_workspace_bytes;
}

std::string GigaBytes(int64_t bytes) {
  return absl::StrFormat("%.2f GB", static_cast<double>(bytes) / 1e9);
}

std::string DescribePlan(const ModelFacts& model, absl::Span<const NodeFacts> nodes,
                         const WorkloadConfig& workload, const Candidate& chosen) {
  const LayerRange all = {0, static_cast<int>(model.layers.size())};
  const int64_t weights = WeightBytes(model);
  std::string text = absl::StrFormat("%s %s, %d layers, %s; KV %s; %s, %d x (%d + %d) tokens\n",
                                     model.name, model.precision, all.last, GigaBytes(weights),
                                     KvPerToken(model), workload.profile, workload.concurrency,
                                     workload.prompt_tokens, workload.output_tokens);
  size_t width = 4;
  for (const Candidate::Stage& stage : chosen.stages) {
    width = std::max(width, nodes[stage.node].id.size());
  }
  absl::StrAppendFormat(
      &text,
      "stage  %-*s  layers   fixed      KV                       budget     busy/round  table\n",
      static_cast<int>(width), "node");
  for (size_t s = 0; s < chosen.stages.size(); ++s) {
    const Candidate::Stage& stage = chosen.stages[s];
    const NodeFacts& node = nodes[stage.node];
    absl::StrAppendFormat(&text, "%-5d  %-*s  %-7s  %9s  %12s %11s  %9s  %7.2f ms  %s\n", s,
                          static_cast<int>(width), node.id, stage.layers.ToString(),
                          GigaBytes(StageFixedBytes(HeldBy(node, model), stage.layers)),
                          absl::StrCat(Thousands(chosen.pages), " pages"),
                          GigaBytes(StageCacheBytes(model, workload, stage.layers, chosen.pages)),
                          GigaBytes(node.budget_bytes),
                          static_cast<double>(chosen.busy_ns[s]) / 1e6,
                          node.measured ? "measured" : "estimated");
  }
  if (model.window > 0) {
    absl::StrAppendFormat(
        &text,
        "KV is that of %s pages where layers see everything, of %s where they see %d tokens\n",
        Thousands(StagePageBytes(model, all) > 0 ? chosen.pages : 0),
        Thousands(WindowPagesBeside(model, workload, chosen.pages)), model.window);
  }
  if (StageStateBytes(model, all) > 0) {
    absl::StrAppendFormat(&text, "fixed has %s recurrent states, %s\n", Thousands(model.slots),
                          GigaBytes(StageStateBytes(model, all)));
  }
  const auto busiest = std::max_element(chosen.busy_ns.begin(), chosen.busy_ns.end());
  const std::string& slowest = nodes[chosen.stages[busiest - chosen.busy_ns.begin()].node].id;
  absl::StrAppendFormat(
      &text,
      "predicted: %.1f tok/s at %d streams (%d decode group%s); %.1f tok/s for one; first token "
      "%.0f "
      "ms (%d-token prompt, idle)\nbottleneck: %s",
      static_cast<double>(workload.concurrency) * 1e9 / static_cast<double>(chosen.round_ns),
      workload.concurrency, chosen.groups, chosen.groups == 1 ? "" : "s",
      1e9 / static_cast<double>(chosen.latency_ns),
      static_cast<double>(chosen.first_token_ns) / 1e6, workload.prompt_tokens, slowest);
  std::vector<std::string> left_out;
  for (int node = 0; node < static_cast<int>(nodes.size()); ++node) {
    const bool used =
        std::any_of(chosen.stages.begin(), chosen.stages.end(),
                    [&](const Candidate::Stage& stage) { return stage.node == node; });
    if (!used) left_out.push_back(nodes[node].id);
  }
  if (!left_out.empty()) absl::StrAppend(&text, ".   left out: ", absl::StrJoin(left_out, ", "));
  return text + "\n";
}

std::string DescribeShortage(const ModelFacts& model, absl::Span<const NodeFacts> nodes,
                             const WorkloadConfig& workload, const Remedies& remedies) {
  const LayerRange all = {0, static_cast<int>(model.layers.size())};
  const int64_t stages = static_cast<int64_t>(nodes.size());
  const int64_t weights = WeightBytes(model);
  const int64_t workspace = stages * model.workspace_bytes + model.last_workspace_bytes;
  const int64_t states = StageStateBytes(model, all);
  const int64_t kv = StageCacheBytes(model, workload, all, PagesNeeded(model, workload));
  const int64_t needed = weights + workspace + states + kv;
  int64_t has = 0;
  std::vector<std::string> parts;
  for (const NodeFacts& node : nodes) {
    has += node.budget_bytes;
    parts.push_back(
        absl::StrFormat("%s %.2f", node.id, static_cast<double>(node.budget_bytes) / 1e9));
  }
  std::string text = absl::StrFormat("%s (%s) does not fit: ", model.name, model.precision);
  if (needed > has) {
    absl::StrAppend(&text, "short of ", GigaBytes(needed - has));
  } else {
    absl::StrAppend(&text, "the sum suffices, but whole layers do not divide over the nodes");
  }
  absl::StrAppendFormat(
      &text,
      "\n  needs %s = weights %.2f + workspace %.2f (%d stage%s)%s + KV %.2f (%d x %d tokens);  "
      "has %s = %s",
      GigaBytes(needed), static_cast<double>(weights) / 1e9, static_cast<double>(workspace) / 1e9,
      stages, stages == 1 ? "" : "s",
      states > 0 ? absl::StrFormat(" + states %.2f", static_cast<double>(states) / 1e9) : "",
      static_cast<double>(kv) / 1e9, workload.concurrency,
      workload.prompt_tokens + workload.output_tokens, GigaBytes(has), absl::StrJoin(parts, " + "));
  std::vector<std::string> helps;
  for (const Remedies::Smaller& smaller : remedies.smaller) {
    helps.push_back(absl::StrFormat("--quantization %s (weights %s, room for %s tokens)",
                                    smaller.precision, GigaBytes(smaller.weight_bytes),
                                    Thousands(smaller.room_tokens)));
  }
  if (remedies.node_bytes > 0) {
    helps.push_back(absl::StrFormat("one more node with a budget of %s (%d layers)",
                                    GigaBytes(remedies.node_bytes), remedies.node_layers));
  }
  const int64_t without_kv = weights + workspace + states - has;
  const int64_t room =
      PagesWithin(model, workload, all, -without_kv).value_or(0) * model.page_tokens;
  if (without_kv < 0 && needed > has && room > 0) {
    helps.push_back(absl::StrCat("a workload of at most ", Thousands(room), " tokens in all"));
  }
  if (!helps.empty()) absl::StrAppend(&text, "\n  fits with: ", absl::StrJoin(helps, ", or "));
  if (without_kv > 0) {
    absl::StrAppend(&text,
                    "\n  does not help: a shorter context (weights and workspace alone are "
                    "short of ",
                    GigaBytes(without_kv), ")");
  }
  return text;
}

}  // namespace neurogrid
