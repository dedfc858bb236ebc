#include "engine/model/stage_memory.h"

#include "common/check.h"

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

ModelFacts::Layer AttentionLayer(const ModelConfig& config, Precision precision) {
  const int64_t hidden = config.hidden_size;
  const int64_t ffn = config.ffn_size;
  const int64_t queries = int64_t{config.query_heads} * config.head_dim;
  const int64_t keys = int64_t{config.kv_heads} * config.head_dim;
  ModelFacts::Layer layer;
  layer.weight_bytes = 2 * VectorBytes(hidden) +  // the norms before attention and FFN
                       PackedMatrixBytes(queries + 2 * keys, hidden, precision) +
                       PackedMatrixBytes(hidden, queries, precision) +
                       PackedGatedBytes(ffn, hidden, precision) +
                       PackedMatrixBytes(hidden, ffn, precision);
  if (config.qkv_bias) layer.weight_bytes += VectorBytes(queries + 2 * keys);
  if (config.output_bias) layer.weight_bytes += VectorBytes(hidden);
  if (config.mlp_bias) layer.weight_bytes += 2 * VectorBytes(ffn) + VectorBytes(hidden);
  layer.kv_bytes_per_token = 2 * keys * ActivationBytes(precision);
  layer.parameters = (queries + 2 * keys) * hidden + hidden * queries + 3 * ffn * hidden;
  return layer;
}

}  // namespace

int64_t PackedMatrixBytes(int64_t rows, int64_t columns, Precision precision) {
  return PanelBytes(RoundUp(rows, kPanelRows), columns, precision);
}

int64_t PackedGatedBytes(int64_t rows, int64_t columns, Precision precision) {
  return PanelBytes(2 * RoundUp(rows, kPanelRows / 2), columns, precision);
}

int64_t VectorBytes(int64_t elements) { return Granules(4 * elements); }

int64_t EmbeddingBytes(int64_t rows, int64_t columns, Precision precision) {
  return PackedMatrixBytes(rows, columns,
                           precision == Precision::kF32 ? Precision::kF32 : Precision::kBf16);
}

ModelFacts FactsOf(const ModelConfig& config, Precision precision) {
  ModelFacts facts;
  facts.precision = precision;
  facts.hidden_size = config.hidden_size;
  facts.vocab_size = config.vocab_size;
  facts.query_heads = config.query_heads;
  facts.head_dim = config.head_dim;
  for (const LayerConfig& layer : config.layers) {
    NG_CHECK(layer.kind == BlockKind::kAttention);
    facts.layers.push_back(AttentionLayer(config, precision));
  }
  facts.embedding_bytes = EmbeddingBytes(config.vocab_size, config.hidden_size, precision);
  facts.head_bytes = VectorBytes(config.hidden_size);
  if (config.tied_embeddings) {
    facts.head_bytes += facts.embedding_bytes;
    facts.shared_bytes = facts.embedding_bytes;
  } else {
    facts.head_bytes += PackedMatrixBytes(config.vocab_size, config.hidden_size, precision);
  }
  facts.head_parameters = int64_t{config.vocab_size} * config.hidden_size;
  facts.activation_bytes_per_row = config.hidden_size * ActivationBytes(precision);
  return facts;
}

int64_t StageWeightBytes(const ModelFacts& facts, LayerRange layers) {
  int64_t bytes = 0;
  if (layers.first == 0) bytes += facts.embedding_bytes;
  if (layers.last == facts.layers_count()) bytes += facts.head_bytes;
  if (layers.count() == facts.layers_count()) bytes -= facts.shared_bytes;
  for (int i = layers.first; i < layers.last; ++i) bytes += facts.layers[i].weight_bytes;
  return bytes;
}

int64_t PageBytes(const ModelFacts& facts, LayerRange layers, int page_tokens) {
  int64_t bytes = 0;
  for (int i = layers.first; i < layers.last; ++i) bytes += facts.layers[i].kv_bytes_per_token;
  return bytes * page_tokens;
}

int64_t StateBytes(const ModelFacts& facts, LayerRange layers) {
  int64_t bytes = 0;
  for (int i = layers.first; i < layers.last; ++i) bytes += facts.layers[i].state_bytes_per_slot;
  return bytes;
}

}  // namespace neurogrid
