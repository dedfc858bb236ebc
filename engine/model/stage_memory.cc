#include "engine/model/stage_memory.h"

#include "common/check.h"
#include "engine/model/architecture.h"

namespace neurogrid {
namespace {

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

int64_t Granules(int64_t bytes) { return RoundUp(bytes, kMemoryGranuleBytes); }

int64_t PanelBytes(int64_t panel_rows, int64_t columns, Precision precision) {
  switch (precision) {
    case Precision::kF32:
      return Granules(4 * panel_rows * columns);
    case Precision::kBf16:
      return Granules(2 * panel_rows * RoundUp(columns, 2));
    case Precision::kInt8:
      return Granules(panel_rows * RoundUp(columns, 2)) + Granules(4 * panel_rows);
  }
  NG_CHECK(false);
}

/// Bytes of an activation or of a cached key: float32 in f32 mode, else bf16.
int64_t ActivationBytes(Precision precision) { return precision == Precision::kF32 ? 4 : 2; }

/// The norms and the FFN, which every layer has.
ModelMemory::Layer CommonParts(const TensorNames& names, const ModelConfig& config,
                               Precision precision) {
  const int64_t hidden = config.hidden_size;
  const int64_t ffn = config.ffn_size;
  ModelMemory::Layer layer;
  for (const absl::string_view norm :
       {names.attention_norm, names.post_attention_norm, names.ffn_norm, names.post_ffn_norm}) {
    if (!norm.empty()) layer.weight_bytes += VectorBytes(hidden);
  }
  layer.weight_bytes +=
      PackedGatedBytes(ffn, hidden, precision) + PackedMatrixBytes(hidden, ffn, precision);
  if (config.mlp_bias) layer.weight_bytes += 2 * VectorBytes(ffn) + VectorBytes(hidden);
  layer.parameters = 3 * ffn * hidden;
  return layer;
}

void AddAttention(const TensorNames& names, const ModelConfig& config, Precision precision,
                  ModelMemory::Layer* layer) {
  const int64_t hidden = config.hidden_size;
  const int64_t queries = int64_t{config.query_heads} * config.head_dim;
  const int64_t keys = int64_t{config.kv_heads} * config.head_dim;
  layer->weight_bytes += PackedMatrixBytes(queries + 2 * keys, hidden, precision) +
                         PackedMatrixBytes(hidden, queries, precision);
  for (const absl::string_view norm : {names.query_norm, names.key_norm}) {
    if (!norm.empty()) layer->weight_bytes += VectorBytes(config.head_dim);
  }
  if (config.qkv_bias) layer->weight_bytes += VectorBytes(queries + 2 * keys);
  if (config.output_bias) layer->weight_bytes += VectorBytes(hidden);
  layer->kv_bytes_per_token = 2 * keys * ActivationBytes(precision);
  layer->parameters += (queries + 2 * keys) * hidden + hidden * queries;
}

void AddConvolution(const ModelConfig& config, Precision precision, ModelMemory::Layer* layer) {
  const int64_t hidden = config.hidden_size;
  layer->weight_bytes += PackedMatrixBytes(3 * hidden, hidden, precision) +
                         PackedMatrixBytes(hidden, hidden, precision) +
                         VectorBytes(config.conv_taps * hidden);
  if (config.conv_bias) layer->weight_bytes += VectorBytes(3 * hidden) + 2 * VectorBytes(hidden);
  layer->state_bytes_per_slot = (config.conv_taps - 1) * hidden * ActivationBytes(precision);
  layer->parameters += 4 * hidden * hidden;
}

ModelMemory::Layer LayerMemory(const TensorNames& names, const ModelConfig& config, BlockKind kind,
                               Precision precision) {
  ModelMemory::Layer layer = CommonParts(names, config, precision);
  switch (kind) {
    case BlockKind::kAttention:
      AddAttention(names, config, precision, &layer);
      return layer;
    case BlockKind::kShortConvolution:
      AddConvolution(config, precision, &layer);
      return layer;
  }
  NG_CHECK(false);
}

}  // namespace

int64_t PackedMatrixBytes(int64_t rows, int64_t columns, Precision precision) {
  return PanelBytes(RoundUp(rows, kPanelRows), columns, precision);
}

int64_t PackedGatedBytes(int64_t rows, int64_t columns, Precision precision) {
  return PanelBytes(2 * RoundUp(rows, kPanelRows / 2), columns, precision);
}

int64_t VectorBytes(int64_t elements) { return Granules(4 * elements); }

int64_t TableBytes(int64_t rows, int64_t columns, Precision precision) {
  const Precision held = precision == Precision::kF32 ? Precision::kF32 : Precision::kBf16;
  return PackedMatrixBytes(rows, columns, held);
}

ModelMemory MemoryOf(const ModelConfig& config, Precision precision) {
  const absl::StatusOr<const Architecture*> row = FindArchitecture(config.architecture);
  NG_CHECK(row.ok());
  ModelMemory model;
  for (const LayerConfig& layer : config.layers) {
    model.layers.push_back(LayerMemory((*row)->tensors, config, layer.kind, precision));
  }
  const int64_t table = TableBytes(config.vocab_size, config.hidden_size, precision);
  const bool tied = config.tied_embeddings;
  model.embedding_bytes = table;
  model.head_bytes =
      VectorBytes(config.hidden_size) +
      (tied ? table : PackedMatrixBytes(config.vocab_size, config.hidden_size, precision));
  model.shared_bytes = tied ? table : 0;
  model.head_parameters = int64_t{config.vocab_size} * config.hidden_size;
  model.activation_bytes_per_row = config.hidden_size * ActivationBytes(precision);
  return model;
}

int64_t StageWeightBytes(const ModelMemory& model, LayerRange layers) {
  const bool first = layers.first == 0;
  const bool last = layers.last == model.layers_count();
  int64_t bytes = 0;
  if (first) bytes += model.embedding_bytes;
  if (last) bytes += model.head_bytes;
  if (first && last) bytes -= model.shared_bytes;
  for (int i = layers.first; i < layers.last; ++i) bytes += model.layers[i].weight_bytes;
  return bytes;
}

int64_t PageBytes(const ModelMemory& model, LayerRange layers, int page_tokens) {
  int64_t bytes = 0;
  for (int i = layers.first; i < layers.last; ++i) bytes += model.layers[i].kv_bytes_per_token;
  return bytes * page_tokens;
}

int64_t StateBytes(const ModelMemory& model, LayerRange layers) {
  int64_t bytes = 0;
  for (int i = layers.first; i < layers.last; ++i) bytes += model.layers[i].state_bytes_per_slot;
  return bytes;
}

}  // namespace neurogrid
