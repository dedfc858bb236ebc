#include "coordinator/plan_facts.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/model/stage_memory.h"
#include "engine/workspace_bytes.h"

namespace neurogrid {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kRowHeaderBytes = 40;  // batch fields that ride with a row
// Launches of a layer in a GPU's decoding step of one row: 184 of 30 layers with attention, 90 of
// 16 most of which have a convolution instead.
constexpr double kOpsOfLayer{6};
// What launching such a step as a graph and hearing of its end costs beside them.
constexpr int64_t kGraphNs{20'000};

ModelFacts FactsIn(WeightLayout layout, const Checkpoint& checkpoint, const std::string& name,
                   Precision precision, const BatchLimits& limits) {
  const ModelConfig& config = checkpoint.config();
  const ModelMemory memory = MemoryOf(config, checkpoint.weights(), precision, layout);
  ModelFacts facts;
  facts.name = name;
  facts.precision = std::string(NameOf(precision));
  for (const ModelMemory::Layer& layer : memory.layers) {
    facts.layers.push_back({layer.weight_bytes, layer.parameters, layer.kv_bytes_per_token,
                            layer.state_bytes_per_slot, layer.window});
  }
  facts.embedding_bytes = memory.embedding_bytes;
  facts.head_bytes = memory.head_bytes;
  facts.shared_bytes = memory.shared_bytes;
  facts.head_parameters = memory.head_parameters;
  facts.attention_width = int64_t{config.query_heads} * config.head_dim;
  facts.row_bytes = memory.activation_bytes_per_row + kRowHeaderBytes;
  facts.page_tokens = kPageTokens;
  facts.chunk_tokens = limits.rows_max;
  facts.slots = limits.slots;
  facts.window = limits.window;
  // A stage in the middle and one at the end: their difference is what logits take.
  StageOptions stage;
  stage.precision = precision;
  stage.limits = limits;
  const int layers = config.layers_count();
  stage.layers = {layers - 1, layers};
  const int64_t last = StageWorkspaceBytes(config, stage);
  stage.layers = {0, std::max(1, layers - 1)};
  facts.workspace_bytes = layers > 1 ? StageWorkspaceBytes(config, stage) : last;
  facts.last_workspace_bytes = last - facts.workspace_bytes;
  if (layout == WeightLayout::kTiles) facts.workspace_bytes += GpuScratchBytes(config, limits);
  return facts;
}

ModelFacts FactsAt(const Checkpoint& checkpoint, const std::string& name, Precision precision,
                   const BatchLimits& limits) {
  ModelFacts facts = FactsIn(WeightLayout::kPanels, checkpoint, name, precision, limits);
  facts.on_gpu.push_back(FactsIn(WeightLayout::kTiles, checkpoint, name, precision, limits));
  return facts;
}

absl::Status CheckReport(const ReportedNode& node) {
  if (node.memory_total_bytes <= 0 || node.memory_free_bytes > node.memory_total_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("node ", node.id, " reports ",
                                                   node.memory_free_bytes, " bytes free of ",
                                                   node.memory_total_bytes));
  }
  if (!(node.read_bandwidth > 0) || !(node.matmul_rate > 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat("node ", node.id, " reports no speed: ", node.read_bandwidth, " bytes/s, ",
                     node.matmul_rate, " operations/s"));
  }
  return absl::OkStatus();
}

/// InvalidArgument where the node's device has no kernels for it.
absl::Status CheckPrecision(const ReportedNode& node, const std::string& quantization) {
  NG_ASSIGN_OR_RETURN(const Precision precision, ParsePrecision(quantization));
  if (!RoundsActivations(precision) || node.device_kind == "cpu") return absl::OkStatus();
  const Precision instead = KeepsBlocks(precision) ? Precision::kAuto : Precision::kInt8;
  return absl::InvalidArgumentError(absl::StrCat(
      "node ", node.id, " computes on ", node.device_kind, ", but --quantization ", quantization,
      " is for processors alone; ", NameOf(instead), " runs on every device"));
}

}  // namespace

std::string DeviceOf(const ReportedNode& node) {
  return node.device_uuid.empty() ? absl::StrCat(node.host_id, "/", node.device_kind)
                                  : node.device_uuid;
}

ModelFacts FactsOf(const Checkpoint& checkpoint, const std::string& name, Precision precision,
                   const BatchLimits& limits) {
  ModelFacts facts = FactsAt(checkpoint, name, precision, limits);
  const auto bytes = [&](Precision p) {
    return StageWeightBytes(MemoryOf(checkpoint.config(), checkpoint.weights(), p),
                            {0, checkpoint.config().layers_count()});
  };
  for (const Precision smaller : {Precision::kAuto, Precision::kInt8}) {
    if (bytes(smaller) >= bytes(precision)) continue;
    facts.smaller.push_back(FactsAt(checkpoint, name, smaller, limits));
  }
  return facts;
}

absl::StatusOr<std::vector<NodeFacts>> FactsOf(absl::Span<const ReportedNode> nodes,
                                               const Config& config) {
  std::vector<NodeFacts> facts;
  for (const ReportedNode& reported : nodes) {
    ReportedNode node = reported;
    if (const auto found = config.peer_vram_gb.find(node.id); found != config.peer_vram_gb.end()) {
      const auto bytes = static_cast<int64_t>(found->second * 1e9);
      if (node.memory_total_bytes > 0 && bytes > node.memory_total_bytes &&
          !config.managed_memory) {
        return absl::InvalidArgumentError(absl::StrCat(
            "peer_vram_gb gives node ", node.id, " ", bytes, " bytes, but its device has ",
            node.memory_total_bytes, "; only managed_memory allows more"));
      }
      node.memory_total_bytes = bytes;
      node.memory_free_bytes = node.memory_total_bytes;
      node.host_memory_bytes = 0;  // what of it is whose is not known
    }
    NG_RETURN_IF_ERROR(CheckReport(node));
    NG_RETURN_IF_ERROR(CheckPrecision(node, config.quantization));
    const int64_t reserve = node.device_kind == "cpu"
                                ? std::max(1024 * kMiB, node.memory_total_bytes / 10)
                                : std::max(512 * kMiB, node.memory_total_bytes / 50);
    const auto neighbours =
        std::count_if(nodes.begin(), nodes.end(),
                      [&](const ReportedNode& other) { return DeviceOf(other) == DeviceOf(node); });
    // GPUs of one host were each told of all that it spares.
    const auto sharers = std::count_if(nodes.begin(), nodes.end(), [&](const ReportedNode& other) {
      return other.host_id == node.host_id && other.host_memory_bytes > 0;
    });
    const int64_t of_host = node.host_memory_bytes / std::max<int64_t>(1, sharers);
    const int64_t of_device = node.memory_free_bytes - node.host_memory_bytes;
    NodeFacts entry;
    entry.id = node.id;
    entry.budget_bytes = std::max<int64_t>(0, of_device - reserve) / neighbours + of_host;
    entry.read_bandwidth = node.read_bandwidth;
    entry.matmul_rate = node.matmul_rate;
    entry.row_rate = node.row_rate;
    if (node.op_seconds > 0) {
      entry.layer_overhead_ns = std::llround(1e9 * kOpsOfLayer * node.op_seconds);
      entry.step_overhead_ns = kGraphNs;
    }
    entry.with_coordinator = node.with_coordinator;
    entry.is_gpu = node.device_kind != "cpu";
    entry.slow_bytes = of_host;
    entry.slow_bandwidth = node.host_bandwidth;
    facts.push_back(std::move(entry));
  }
  return facts;
}

LinkFacts ServingLink() {
  LinkFacts link;
  // Seen on 16 cores beside an H200: what served steps took longer than the engine's own, for one
  // stream and, by row, for 64 whose text went out token by token.
  link.turn_ns = 30'000;
  link.turn_row_ns = 7'000;
  // A step between processes of one host took 30 us one way polled and 50 where its reader slept; a
  // wire adds 12 to 100 (performance.md 5.2).
  link.hop_ns = 80'000;
  return link;
}

}  // namespace neurogrid
