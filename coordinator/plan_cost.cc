#include "coordinator/plan_cost.h"

#include <algorithm>
#include <cmath>

#include "coordinator/window_pages.h"

namespace neurogrid {
namespace {

constexpr double kNsPerS = 1e9;
constexpr int64_t kFewRows{64};  // for which DeviceSpeed::row_rate holds

struct SequencePages {
  int64_t pages = 1;
  int64_t window_pages = 1;
};

/// Of one sequence of the workload, at its end.
SequencePages PagesOfOne(const ModelFacts& model, const WorkloadConfig& workload) {
  const int64_t tokens = int64_t{workload.prompt_tokens} + workload.output_tokens;
  return {std::max<int64_t>(1, PagesOf(tokens)),
          std::max<int64_t>(1, WindowPagesOf(tokens, model.window, model.chunk_tokens))};
}

/// Of `tokens` tokens, those that the layer sees.
double Seen(const LayerFacts& layer, double tokens) {
  return layer.window > 0 ? std::min<double>(tokens, layer.window) : tokens;
}

int64_t RoundNs(double seconds) { return std::llround(seconds * kNsPerS); }

}  // namespace

const ModelFacts& HeldBy(const NodeFacts& node, const ModelFacts& model) {
  return node.is_gpu && !model.on_gpu.empty() ? model.on_gpu.front() : model;
}

int64_t StageFixedBytes(const ModelFacts& model, LayerRange layers) {
  const bool last = layers.last == static_cast<int>(model.layers.size());
  int64_t bytes = model.workspace_bytes;
  if (layers.first == 0) bytes += model.embedding_bytes;
  if (layers.first == 0 && last) bytes -= model.shared_bytes;
  if (last) bytes += model.head_bytes + model.last_workspace_bytes;
  for (int l = layers.first; l < layers.last; ++l) {
    bytes += model.layers[l].weight_bytes;
  }
  return bytes + StageStateBytes(model, layers);
}

int64_t StageStateBytes(const ModelFacts& model, LayerRange layers) {
  int64_t bytes = 0;
  for (int l = layers.first; l < layers.last; ++l) {
    bytes += model.slots * model.layers[l].state_bytes_per_slot;
  }
  return bytes;
}

int64_t StagePageBytes(const ModelFacts& model, LayerRange layers) {
  int64_t bytes = 0;
  for (int l = layers.first; l < layers.last; ++l) {
    if (model.layers[l].window > 0) continue;
    bytes += model.page_tokens * model.layers[l].kv_bytes_per_token;
  }
  return bytes;
}

int64_t StageWindowPageBytes(const ModelFacts& model, LayerRange layers) {
  int64_t bytes = 0;
  for (int l = layers.first; l < layers.last; ++l) {
    if (model.layers[l].window == 0) continue;
    bytes += model.page_tokens * model.layers[l].kv_bytes_per_token;
  }
  return bytes;
}

int64_t PagesNeeded(const ModelFacts& model, const WorkloadConfig& workload) {
  const int64_t tokens = workload.prompt_tokens + workload.output_tokens;
  return workload.concurrency * ((tokens + model.page_tokens - 1) / model.page_tokens);
}

int64_t WindowPagesBeside(const ModelFacts& model, const WorkloadConfig& workload, int64_t pages) {
  if (model.window == 0) return 0;
  const SequencePages one = PagesOfOne(model, workload);
  return (pages * one.window_pages + one.pages - 1) / one.pages;
}

int64_t StageCacheBytes(const ModelFacts& model, const WorkloadConfig& workload, LayerRange layers,
                        int64_t pages) {
  return pages * StagePageBytes(model, layers) +
         WindowPagesBeside(model, workload, pages) * StageWindowPageBytes(model, layers);
}

std::optional<int64_t> PagesWithin(const ModelFacts& model, const WorkloadConfig& workload,
                                   LayerRange layers, int64_t bytes) {
  const int64_t page = StagePageBytes(model, layers);
  const int64_t window_page = StageWindowPageBytes(model, layers);
  if (page + window_page == 0) return std::nullopt;
  if (bytes <= 0) return 0;
  const SequencePages one = PagesOfOne(model, workload);
  int64_t low = 0;  // bytes for it are within the bound, those for `high` are not
  int64_t high =
      bytes / (one.pages * page + one.window_pages * window_page) * one.pages + 2 * one.pages + 1;
  while (high - low > 1) {
    const int64_t middle = low + (high - low) / 2;
    (StageCacheBytes(model, workload, layers, middle) <= bytes ? low : high) = middle;
  }
  return low;
}

NodeCost::NodeCost(const ModelFacts& model, const NodeFacts& node, const WorkloadConfig& workload)
    : model_(&HeldBy(node, model)),
      node_(node),
      context_(workload.prompt_tokens + workload.output_tokens / 2.0) {
  prompt_ns_.push_back(0);
  first_chunk_ns_.push_back(0);
  const int64_t prompt = workload.prompt_tokens;
  chunks_ = (prompt + model.chunk_tokens - 1) / model.chunk_tokens;
  for (const LayerFacts& layer : model_->layers) {
    int64_t whole = 0;
    for (int64_t done = 0; done < prompt; done += model.chunk_tokens) {
      whole += ChunkNs(layer, std::min<int64_t>(model.chunk_tokens, prompt - done), done);
    }
    prompt_ns_.push_back(prompt_ns_.back() + whole);
    first_chunk_ns_.push_back(first_chunk_ns_.back() +
                              ChunkNs(layer, std::min<int64_t>(model.chunk_tokens, prompt), 0));
  }
}

int64_t NodeCost::ChunkNs(const LayerFacts& layer, int64_t rows, int64_t done) const {
  const double q = static_cast<double>(rows);
  const double weights = static_cast<double>(layer.weight_bytes) / node_.read_bandwidth;
  const double matmuls = 2.0 * static_cast<double>(layer.parameters) * q / node_.matmul_rate;
  double attention = 0;
  if (layer.kv_bytes_per_token > 0) {
    attention = 4.0 * q * Seen(layer, static_cast<double>(done) + q / 2) *
                static_cast<double>(model_->attention_width) / node_.matmul_rate;
  }
  return node_.layer_overhead_ns + RoundNs(std::max(weights, matmuls) + attention);
}

/// Seconds of a decode step's product.
double NodeCost::ProductS(int64_t bytes, int64_t parameters, int64_t rows) const {
  const double reading = static_cast<double>(bytes) / node_.read_bandwidth;
  const double row = 2.0 * static_cast<double>(parameters);
  if (node_.row_rate == 0) {
    return std::max(reading, row * static_cast<double>(rows) / node_.matmul_rate);
  }
  const auto few = static_cast<double>(std::min(rows, kFewRows) - 1);
  const auto more = static_cast<double>(std::max<int64_t>(rows - kFewRows, 0));
  return reading + row * few / node_.row_rate + row * more / node_.matmul_rate;
}

int64_t NodeCost::HeadNs(int64_t rows) const {
  return RoundNs(ProductS(model_->head_bytes, model_->head_parameters, rows));
}

std::vector<int64_t> NodeCost::StepPrefixNs(int64_t rows) const {
  const double b = static_cast<double>(rows);
  std::vector<int64_t> prefix = {0};
  for (const LayerFacts& layer : model_->layers) {
    const double kv = b * Seen(layer, context_) * static_cast<double>(layer.kv_bytes_per_token) /
                      node_.read_bandwidth;
    prefix.push_back(prefix.back() + node_.layer_overhead_ns +
                     RoundNs(ProductS(layer.weight_bytes, layer.parameters, rows) + kv));
  }
  return prefix;
}

int64_t NodeCost::SlowNs(LayerRange layers, int64_t cache_bytes) const {
  if (node_.slow_bytes == 0) return 0;
  const int64_t fast = node_.budget_bytes - node_.slow_bytes;
  const int64_t slow = std::clamp<int64_t>(StageFixedBytes(*model_, layers) + cache_bytes - fast, 0,
                                           node_.slow_bytes);
  return RoundNs(static_cast<double>(slow) * (1 / node_.slow_bandwidth - 1 / node_.read_bandwidth));
}

int64_t NodeCost::PromptNs(LayerRange layers, int64_t cache_bytes) const {
  return chunks_ * (node_.step_overhead_ns + SlowNs(layers, cache_bytes)) +
         prompt_ns_[layers.last] - prompt_ns_[layers.first] +
         (layers.last == static_cast<int>(model_->layers.size()) ? HeadNs(1) : 0);
}

int64_t NodeCost::FirstChunkNs(LayerRange layers, int64_t cache_bytes) const {
  return node_.step_overhead_ns + SlowNs(layers, cache_bytes) + first_chunk_ns_[layers.last] -
         first_chunk_ns_[layers.first];
}

}  // namespace neurogrid
