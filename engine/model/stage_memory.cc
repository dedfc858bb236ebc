#include "engine/model/stage_memory.h"

#include <algorithm>
#include <bit>
#include <string>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "engine/model/architecture.h"
#include "engine/model/block_groups.h"

namespace neurogrid {
namespace {

int64_t RoundUp(int64_t value, int64_t multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

int64_t Granules(int64_t bytes) { return RoundUp(bytes, kMemoryGranuleBytes); }

constexpr int64_t kTileRows = 16;
constexpr int64_t kTileStrideBytes = 128;

bool HasRowScales(Precision precision) {
  return precision == Precision::kInt8 || precision == Precision::kInt8A8;
}

/// A tile of rows that are no blocks.
int64_t PlainTileBytes(int64_t columns, Precision precision) {
  const int64_t element = precision == Precision::kF32 ? 4 : HasRowScales(precision) ? 1 : 2;
  return kTileRows * RoundUp(columns * element, kTileStrideBytes);
}

int64_t GatedTileBytes(DType gate, DType up, int64_t columns, Precision precision) {
  if (!IsBlockType(gate) || !IsBlockType(up)) return PlainTileBytes(columns, precision);
  return gate == up ? StoredTileBytes(gate, columns) : WideTileBytes(columns);
}

/// One allocation of tiles, with scales and bias in allocations of their own.
int64_t TilesBytes(int64_t tiles, int64_t tile_bytes, Precision precision, bool biased) {
  const int64_t of_rows = GpuAllocationBytes(4 * kTileRows * tiles);
  return GpuAllocationBytes(tiles * tile_bytes) + (HasRowScales(precision) ? of_rows : 0) +
         (biased ? of_rows : 0);
}

/// Consecutive parts of one type lie together.
int64_t JoinedTiles(absl::Span<const StoredRows> parts, int64_t columns, Precision precision,
                    bool biased) {
  int64_t bytes = 0;
  for (size_t i = 0; i < parts.size();) {
    const DType dtype = parts[i].dtype;
    const bool blocks = IsBlockType(dtype);
    int64_t rows = 0;
    for (; i < parts.size(); ++i) {
      if (blocks ? parts[i].dtype != dtype : IsBlockType(parts[i].dtype)) break;
      rows += parts[i].rows;
    }
    bytes +=
        TilesBytes(RoundUp(rows, kTileRows) / kTileRows,
                   blocks ? StoredTileBytes(dtype, columns) : PlainTileBytes(columns, precision),
                   precision, biased);
  }
  return bytes;
}

int64_t PanelBytes(int64_t panel_rows, int64_t columns, Precision precision) {
  switch (precision) {
    case Precision::kF32:
      return Granules(4 * panel_rows * columns);
    case Precision::kBf16:
    case Precision::kAuto:
    case Precision::kBlocksA8:
      return Granules(2 * panel_rows * RoundUp(columns, 2));
    case Precision::kInt8:
      return Granules(panel_rows * RoundUp(columns, 2)) + Granules(4 * panel_rows);
    case Precision::kInt8A8:
      return Granules(panel_rows * RoundUp(columns, 4)) + Granules(4 * panel_rows);
  }
  NG_CHECK(false);
}

/// Bytes of an activation or of a cached key: float32 in f32 mode, else bf16.
int64_t ActivationBytes(Precision precision) { return precision == Precision::kF32 ? 4 : 2; }

/// Bytes of a model's matrices, each by the tensors it is made of, its bias included.
class Matrices {
 public:
  /// Null: no tensor is a block.
  Matrices(const WeightStore* weights, Precision precision, WeightLayout layout)
      : weights_(KeepsBlocks(precision) ? weights : nullptr),
        precision_(precision),
        layout_(layout) {}

  struct Part {
    std::string tensor;
    int64_t rows = 0;
  };
  int64_t Joined(const std::vector<Part>& parts, int64_t columns, bool biased) const {
    std::vector<StoredRows> stored;
    int64_t rows = 0;
    for (const Part& part : parts) {
      stored.push_back({TypeOf(part.tensor), part.rows});
      rows += part.rows;
    }
    if (layout_ == WeightLayout::kTiles) return JoinedTiles(stored, columns, precision_, biased);
    const bool blocks = std::any_of(stored.begin(), stored.end(),
                                    [](const StoredRows& part) { return IsBlockType(part.dtype); });
    return (blocks ? StoredMatrixBytes(stored, columns)
                   : PackedMatrixBytes(rows, columns, precision_)) +
           (biased ? VectorBytes(rows) : 0);
  }
  int64_t Gated(const std::string& gate, const std::string& up, int64_t rows, int64_t columns,
                bool biased) const {
    const DType first = TypeOf(gate);
    const DType second = TypeOf(up);
    if (layout_ == WeightLayout::kTiles) {
      constexpr int64_t kHalf = kTileRows / 2;
      return TilesBytes(2 * RoundUp(rows, kHalf) / kTileRows,
                        GatedTileBytes(first, second, columns, precision_), precision_, biased);
    }
    return (IsBlockType(first) || IsBlockType(second)
                ? StoredGatedBytes(rows, columns, first, second)
                : PackedGatedBytes(rows, columns, precision_)) +
           (biased ? 2 * VectorBytes(rows) : 0);
  }
  int64_t Table(const std::string& tensor, int64_t rows, int64_t columns) const {
    if (IsBlockType(TypeOf(tensor))) return Joined({{tensor, rows}}, columns, /*biased=*/false);
    if (layout_ == WeightLayout::kPanels) return TableBytes(rows, columns, precision_);
    const Precision held = precision_ == Precision::kF32 ? Precision::kF32 : Precision::kBf16;
    return JoinedTiles({{{DType::kBF16, rows}}}, columns, held, /*biased=*/false);
  }
  Precision precision() const { return precision_; }

 private:
  DType TypeOf(const std::string& tensor) const {
    if (weights_ == nullptr) return DType::kBF16;
    const auto found = weights_->entries().find(tensor);
    return found == weights_->entries().end() ? DType::kBF16 : found->second.tensor.dtype;
  }

  const WeightStore* weights_;
  Precision precision_;
  WeightLayout layout_;
};

/// The norms and the FFN, which every layer has.
ModelMemory::Layer CommonParts(const TensorNames& names, const ModelConfig& config,
                               const Matrices& matrices, int number) {
  const int64_t hidden = config.hidden_size;
  const int64_t ffn = config.ffn_size;
  ModelMemory::Layer layer;
  for (const absl::string_view norm :
       {names.attention_norm, names.post_attention_norm, names.ffn_norm, names.post_ffn_norm}) {
    if (!norm.empty()) layer.weight_bytes += VectorBytes(hidden);
  }
  layer.weight_bytes +=
      matrices.Gated(LayerTensor(number, names.gate), LayerTensor(number, names.up), ffn, hidden,
                     config.mlp_bias) +
      matrices.Joined({{LayerTensor(number, names.down), hidden}}, ffn, config.mlp_bias);
  layer.parameters = 3 * ffn * hidden;
  return layer;
}

void AddAttention(const TensorNames& names, const ModelConfig& config, const Matrices& matrices,
                  int number, ModelMemory::Layer* layer) {
  const int64_t hidden = config.hidden_size;
  const int64_t queries = int64_t{config.query_heads} * config.head_dim;
  const int64_t keys = int64_t{config.kv_heads} * config.head_dim;
  layer->weight_bytes +=
      matrices.Joined({{LayerTensor(number, names.query), queries},
                       {LayerTensor(number, names.key), keys},
                       {LayerTensor(number, names.value), keys}},
                      hidden, config.qkv_bias) +
      matrices.Joined({{LayerTensor(number, names.output), hidden}}, queries, config.output_bias);
  for (const absl::string_view norm : {names.query_norm, names.key_norm}) {
    if (!norm.empty()) layer->weight_bytes += VectorBytes(config.head_dim);
  }
  layer->kv_bytes_per_token = 2 * keys * ActivationBytes(matrices.precision());
  layer->parameters += (queries + 2 * keys) * hidden + hidden * queries;
}

void AddConvolution(const TensorNames& names, const ModelConfig& config, const Matrices& matrices,
                    int number, ModelMemory::Layer* layer) {
  const int64_t hidden = config.hidden_size;
  layer->weight_bytes +=
      matrices.Joined({{LayerTensor(number, names.conv_in), 3 * hidden}}, hidden,
                      config.conv_bias) +
      matrices.Joined({{LayerTensor(number, names.conv_out), hidden}}, hidden, config.conv_bias) +
      VectorBytes(config.conv_taps * hidden);
  if (config.conv_bias) layer->weight_bytes += VectorBytes(hidden);
  layer->state_bytes_per_slot =
      (config.conv_taps - 1) * hidden * ActivationBytes(matrices.precision());
  layer->parameters += 4 * hidden * hidden;
}

ModelMemory::Layer LayerMemory(const TensorNames& names, const ModelConfig& config,
                               const Matrices& matrices, int number) {
  ModelMemory::Layer layer = CommonParts(names, config, matrices, number);
  switch (config.layers[static_cast<size_t>(number)].kind) {
    case BlockKind::kAttention:
      AddAttention(names, config, matrices, number, &layer);
      return layer;
    case BlockKind::kShortConvolution:
      AddConvolution(names, config, matrices, number, &layer);
      return layer;
  }
  NG_CHECK(false);
}

ModelMemory MemoryWith(const ModelConfig& config, const Matrices& matrices) {
  const absl::StatusOr<const Architecture*> row = FindArchitecture(config.architecture);
  NG_CHECK(row.ok());
  const TensorNames& names = (*row)->tensors;
  ModelMemory model;
  for (int layer = 0; layer < config.layers_count(); ++layer) {
    model.layers.push_back(LayerMemory(names, config, matrices, layer));
    model.layers.back().window = config.layers[static_cast<size_t>(layer)].window;
  }
  const int64_t hidden = config.hidden_size;
  const int64_t table =
      matrices.Table(absl::StrCat(names.embedding, ".weight"), config.vocab_size, hidden);
  const bool tied = config.tied_embeddings;
  model.embedding_bytes = table;
  model.head_bytes =
      VectorBytes(hidden) +
      (tied ? table
            : matrices.Joined({{absl::StrCat(names.head, ".weight"), config.vocab_size}}, hidden,
                              /*biased=*/false));
  model.shared_bytes = tied ? table : 0;
  model.head_parameters = config.vocab_size * hidden;
  model.activation_bytes_per_row = hidden * ActivationBytes(matrices.precision());
  return model;
}

/// Panels of 64 outputs for so many rows.
int64_t PanelsOf(int64_t rows) { return RoundUp(rows, kPanelRows) / kPanelRows; }

}  // namespace

bool HasBlocks(const WeightStore& weights) {
  return std::any_of(weights.entries().begin(), weights.entries().end(),
                     [](const auto& entry) { return IsBlockType(entry.second.tensor.dtype); });
}

absl::Status CheckHasBlocks(const WeightStore& weights, Precision precision) {
  if (precision != Precision::kBlocksA8 || HasBlocks(weights)) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(weights.source(),
                   ": blocks-a8 is for GGUF files with block types, of which this has none; "
                   "int8-a8 rounds any weights"));
}

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

int64_t StoredMatrixBytes(absl::Span<const StoredRows> parts, int64_t columns) {
  int64_t bytes = 0;
  for (size_t i = 0; i < parts.size();) {
    const bool blocks = IsBlockType(parts[i].dtype);
    const DType dtype = parts[i].dtype;
    int64_t rows = 0;
    for (; i < parts.size(); ++i) {
      if (blocks ? parts[i].dtype != dtype : IsBlockType(parts[i].dtype)) break;
      rows += parts[i].rows;
    }
    bytes += PanelsOf(rows) * StoredPanelBytes(dtype, columns);
  }
  return Granules(bytes);
}

int64_t StoredGatedBytes(int64_t rows, int64_t columns, DType gate, DType up) {
  const int64_t panels = PanelsOf(2 * RoundUp(rows, kPanelRows / 2));
  if (gate == up) return Granules(panels * StoredPanelBytes(gate, columns));
  if (!IsBlockType(gate) || !IsBlockType(up)) {
    return Granules(panels * StoredPanelBytes(DType::kBF16, columns));
  }
  const GroupFormat& wide = WideGroupFormat();
  return Granules(panels * (columns / wide.unit_inputs()) * wide.unit_bytes());
}

int64_t GpuAllocationBytes(int64_t bytes) {
  constexpr uint64_t kLeast = 512;
  constexpr int64_t kGranule = int64_t{2} << 20;
  if (bytes > kGranule / 2) return RoundUp(bytes, kGranule);
  return bytes == 0 ? 0 : static_cast<int64_t>(std::bit_ceil(std::max<uint64_t>(bytes, kLeast)));
}

ModelMemory MemoryOf(const ModelConfig& config, Precision precision, WeightLayout layout) {
  return MemoryWith(config, Matrices(nullptr, precision, layout));
}

ModelMemory MemoryOf(const ModelConfig& config, const WeightStore& weights, Precision precision,
                     WeightLayout layout) {
  return MemoryWith(config, Matrices(&weights, precision, layout));
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
  for (int i = layers.first; i < layers.last; ++i) {
    if (model.layers[i].window == 0) bytes += model.layers[i].kv_bytes_per_token;
  }
  return bytes * page_tokens;
}

int64_t WindowPageBytes(const ModelMemory& model, LayerRange layers, int page_tokens) {
  int64_t bytes = 0;
  for (int i = layers.first; i < layers.last; ++i) {
    if (model.layers[i].window > 0) bytes += model.layers[i].kv_bytes_per_token;
  }
  return bytes * page_tokens;
}

int WidestWindow(const ModelConfig& config) {
  int widest = 0;
  for (const LayerConfig& layer : config.layers) widest = std::max(widest, layer.window);
  return widest;
}

bool AttendsToAll(const ModelConfig& config) {
  return std::any_of(config.layers.begin(), config.layers.end(), [](const LayerConfig& layer) {
    return layer.kind == BlockKind::kAttention && layer.window == 0;
  });
}

int64_t StateBytes(const ModelMemory& model, LayerRange layers) {
  int64_t bytes = 0;
  for (int i = layers.first; i < layers.last; ++i) bytes += model.layers[i].state_bytes_per_slot;
  return bytes;
}

}  // namespace neurogrid
