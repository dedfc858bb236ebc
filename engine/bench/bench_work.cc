#include "engine/bench/bench_work.h"

#include <algorithm>

#include "engine/model/stage_memory.h"

namespace neurogrid {

double BenchWork::FloorSeconds(const DeviceCeilings& ceilings) const {
  return std::max(weight_bytes / ceilings.read_bandwidth,
                  matmul_operations / ceilings.matmul_rate) +
         std::max(cache_bytes / ceilings.read_bandwidth,
                  attention_operations / ceilings.matmul_rate);
}

BenchModel::BenchModel(const Checkpoint& checkpoint, Precision precision)
    : config_(checkpoint.config()) {
  const ModelMemory memory = MemoryOf(config_, checkpoint.weights(), precision);
  for (const ModelMemory::Layer& layer : memory.layers) {
    weight_bytes_ += layer.weight_bytes;
    body_parameters_ += layer.parameters;
    cache_bytes_ += layer.kv_bytes_per_token;
    layer_cache_bytes_.push_back(layer.kv_bytes_per_token);
  }
  weight_bytes_ += memory.head_bytes;
  head_parameters_ = memory.head_parameters;
}

/// Of all rows together.
double BenchModel::VisibleKeys(int position, int rows, int window) const {
  double keys = 0;
  for (int r = 0; r < rows; ++r) {
    const int before = position + r + 1;
    keys += window > 0 ? std::min(before, window) : before;
  }
  return keys;
}

BenchWork BenchModel::WorkOf(const BenchCase& c) const {
  BenchWork work;
  const double sequences = c.sequences;
  const double pair_operations = 4.0 * config_.query_heads * config_.head_dim;
  for (int step = 0; step < c.steps; ++step) {
    const int rows = c.RowsOf(step);
    const int position = c.first_position() + step * c.rows;
    work.weight_bytes += static_cast<double>(weight_bytes_);
    work.matmul_operations += 2 * sequences * rows * static_cast<double>(body_parameters_) +
                              2 * sequences * static_cast<double>(head_parameters_);
    for (size_t i = 0; i < layer_cache_bytes_.size(); ++i) {
      if (layer_cache_bytes_[i] == 0) continue;
      const int window = config_.layers[i].window;
      const int context = position + rows;
      const int held = window > 0 ? std::min(context, window + rows) : context;
      work.cache_bytes += sequences * held * static_cast<double>(layer_cache_bytes_[i]);
      work.attention_operations +=
          sequences * pair_operations * VisibleKeys(position, rows, window);
    }
  }
  return work;
}

std::vector<MatMulShape> BenchModel::ShapesOf(int rows, int samples) const {
  const int64_t hidden = config_.hidden_size;
  const int64_t attended = int64_t{config_.query_heads} * config_.head_dim;
  const int64_t qkv = attended + int64_t{2} * config_.kv_heads * config_.head_dim;
  std::vector<MatMulShape> shapes;
  for (const LayerConfig& layer : config_.layers) {
    if (layer.kind == BlockKind::kAttention) {
      shapes.push_back({.outputs = qkv, .inputs = hidden, .rows = rows});
      shapes.push_back({.outputs = hidden, .inputs = attended, .rows = rows});
    } else {
      shapes.push_back({.outputs = 3 * hidden, .inputs = hidden, .rows = rows});
      shapes.push_back({.outputs = hidden, .inputs = hidden, .rows = rows});
    }
    shapes.push_back({.outputs = int64_t{2} * config_.ffn_size, .inputs = hidden, .rows = rows});
    shapes.push_back({.outputs = hidden, .inputs = config_.ffn_size, .rows = rows});
  }
  shapes.push_back({.outputs = config_.vocab_size, .inputs = hidden, .rows = samples});
  return shapes;
}

}  // namespace neurogrid
