#include "coordinator/plan_cost.h"

#include <algorithm>
#include <cmath>

namespace neurogrid {
namespace {

constexpr double kNsPerS = 1e9;

int64_t RoundNs(double seconds) { return std::llround(seconds * kNsPerS); }

}  // namespace

int64_t StageFixedBytes(const ModelFacts& model, LayerRange layers) {
  const bool last = layers.last == static_cast<int>(model.layers.size());
  int64_t bytes = model.workspace_bytes;
  if (layers.first == 0) bytes += model.embedding_bytes;
  if (layers.first == 0 && last) bytes -= model.shared_bytes;
  if (last) bytes += model.head_bytes + model.last_workspace_bytes;
  for (int l = layers.first; l < layers.last; ++l) {
    bytes += model.layers[l].weight_bytes + model.slots * model.layers[l].state_bytes_per_slot;
  }
  return bytes;
}

int64_t StagePageBytes(const ModelFacts& model, LayerRange layers) {
  int64_t bytes = 0;
  for (int l = layers.first; l < layers.last; ++l) {
    bytes += model.page_tokens * model.layers[l].kv_bytes_per_token;
  }
  return bytes;
}

NodeCost::NodeCost(const ModelFacts& model, const NodeFacts& node, const WorkloadConfig& workload)
    : model_(&model), node_(node), context_(workload.prompt_tokens + workload.output_tokens / 2.0) {
  prompt_ns_.push_back(0);
  first_chunk_ns_.push_back(0);
  const int64_t prompt = workload.prompt_tokens;
  chunks_ = (prompt + model.chunk_tokens - 1) / model.chunk_tokens;
  for (const LayerFacts& layer : model.layers) {
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
    attention = 4.0 * q * (static_cast<double>(done) + q / 2) *
                static_cast<double>(model_->attention_width) / node_.matmul_rate;
  }
  return RoundNs(std::max(weights, matmuls) + attention);
}

int64_t NodeCost::HeadNs(int64_t rows) const {
  const double bytes = static_cast<double>(model_->head_bytes) / node_.read_bandwidth;
  const double work = 2.0 * static_cast<double>(model_->head_parameters) *
                      static_cast<double>(rows) / node_.matmul_rate;
  return RoundNs(std::max(bytes, work));
}

std::vector<int64_t> NodeCost::StepPrefixNs(int64_t rows) const {
  const double b = static_cast<double>(rows);
  std::vector<int64_t> prefix = {0};
  for (const LayerFacts& layer : model_->layers) {
    const double weights = static_cast<double>(layer.weight_bytes) / node_.read_bandwidth;
    const double matmuls = 2.0 * static_cast<double>(layer.parameters) * b / node_.matmul_rate;
    const double kv =
        b * context_ * static_cast<double>(layer.kv_bytes_per_token) / node_.read_bandwidth;
    prefix.push_back(prefix.back() + RoundNs(std::max(weights, matmuls) + kv));
  }
  return prefix;
}

int64_t NodeCost::PromptNs(LayerRange layers) const {
  return chunks_ * node_.step_overhead_ns + prompt_ns_[layers.last] - prompt_ns_[layers.first] +
         (layers.last == static_cast<int>(model_->layers.size()) ? HeadNs(1) : 0);
}

int64_t NodeCost::FirstChunkNs(LayerRange layers) const {
  return node_.step_overhead_ns + first_chunk_ns_[layers.last] - first_chunk_ns_[layers.first];
}

}  // namespace neurogrid
