// Bytes of a model's parts in memory: the one place where engine and planner get them
// (cluster.md 2.1).
#pragma once

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "common/dtype.h"
#include "engine/model/layer_range.h"
#include "engine/model/model_config.h"
#include "engine/model/precision.h"
#include "engine/model/weight_store.h"

namespace neurogrid {

/// How a device lays out its matrices: a processor in panels of 64 outputs, a GPU in tiles of 16
/// whose rows are padded to 128 bytes.
enum class WeightLayout { kPanels, kTiles };

/// What an allocation takes of a GPU's memory, whose driver hands out 2 MiB, or one piece of
/// several in it.
int64_t GpuAllocationBytes(int64_t bytes);

/// Every allocation counts as the next multiple of this.
inline constexpr int64_t kMemoryGranuleBytes = 256;
/// Outputs that a packed matrix holds together; the last panel is padded with zeros.
inline constexpr int64_t kPanelRows = 64;

/// Whether some tensor is of a block type.
bool HasBlocks(const WeightStore& weights);

/// InvalidArgument naming the store where kBlocksA8 finds no tensor of a block type.
absl::Status CheckHasBlocks(const WeightStore& weights, Precision precision);

/// A weight [rows, columns] as the matmul holds it: rows padded to 64, columns to 2 unless f32, to
/// 4 in int8-a8; both kinds of int8 with a float32 scale for each row. Row-joined weights such as
/// q, k and v are one matrix of all their rows.
int64_t PackedMatrixBytes(int64_t rows, int64_t columns, Precision precision);

/// Two weights [rows, columns], gate and up, interleaved 32 rows of each to a panel.
int64_t PackedGatedBytes(int64_t rows, int64_t columns, Precision precision);

/// Rows of one type in a file.
struct StoredRows {
  DType dtype = DType::kBF16;
  int64_t rows = 0;
};

/// Row-joined weights as kAuto and kBlocksA8 hold them: block types in groups, each type in panels
/// of its own; others in bf16.
int64_t StoredMatrixBytes(absl::Span<const StoredRows> parts, int64_t columns);

/// Gate and up as kAuto and kBlocksA8 hold them.
int64_t StoredGatedBytes(int64_t rows, int64_t columns, DType gate, DType up);

/// A norm's weight, a bias, or the taps of a short convolution: float32 in every mode.
int64_t VectorBytes(int64_t elements);

/// The embedding [rows, columns], which doubles as the head where it is tied: packed, in bf16 also
/// in the int8 modes, float32 in f32 mode.
int64_t TableBytes(int64_t rows, int64_t columns, Precision precision);

/// A model's parts in bytes; what planning needs to know, integers only.
struct ModelMemory {
  struct Layer {
    int64_t weight_bytes = 0;
    int64_t kv_bytes_per_token = 0;
    int window = 0;                    // its pages are those of the window's pool; 0: none
    int64_t state_bytes_per_slot = 0;  // a short convolution's last K - 1 inputs, as activations
    int64_t parameters = 0;            // of the matrices: 2 operations each and token
  };

  std::vector<Layer> layers;
  int64_t embedding_bytes = 0;  // on the first stage
  int64_t head_bytes = 0;       // final norm and head, on the last stage
  int64_t shared_bytes = 0;     // of both, where one stage holds them in one copy (tied)
  int64_t head_parameters = 0;
  int64_t activation_bytes_per_row = 0;  // one row between two stages

  int layers_count() const { return static_cast<int>(layers.size()); }
};

/// Pure; `config` has passed its checks. kAuto: of a checkpoint without blocks.
ModelMemory MemoryOf(const ModelConfig& config, Precision precision,
                     WeightLayout layout = WeightLayout::kPanels);
/// The same, where `weights` say which tensors are blocks.
ModelMemory MemoryOf(const ModelConfig& config, const WeightStore& weights, Precision precision,
                     WeightLayout layout = WeightLayout::kPanels);

/// Weights of the stage that runs `layers`: with the embedding when it is the first, with final
/// norm and head when it is the last.
int64_t StageWeightBytes(const ModelMemory& model, LayerRange layers);

/// One page of `page_tokens` tokens over those of these layers that see everything, ...
int64_t PageBytes(const ModelMemory& model, LayerRange layers, int page_tokens);
/// ... and one over those that have a window: their pages have ids and a pool of their own.
int64_t WindowPageBytes(const ModelMemory& model, LayerRange layers, int page_tokens);

/// The widest window of any layer; 0: none has one.
int WidestWindow(const ModelConfig& config);
/// Whether some layer attends without a window.
bool AttendsToAll(const ModelConfig& config);

/// One slot of recurrent state over these layers.
int64_t StateBytes(const ModelMemory& model, LayerRange layers);

}  // namespace neurogrid
