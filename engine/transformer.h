// The layers of one stage, written once over Ops for every backend and family.
#pragma once

#include <memory>
#include <variant>
#include <vector>

#include "common/status.h"
#include "engine/attention_block.h"
#include "engine/batch.h"
#include "engine/kv_cache.h"
#include "engine/model/architecture.h"
#include "engine/ops.h"
#include "engine/short_convolution_block.h"
#include "engine/stage.h"
#include "engine/state_cache.h"
#include "engine/weight_loader.h"
#include "engine/workspace.h"

namespace neurogrid {

/// One layer: a mixing block and a gated feed-forward, each behind a norm (models.md 2.2). What a
/// family does not have is null, and its step does not run.
struct Layer {
  using Block = std::variant<AttentionBlock, ShortConvolutionBlock>;

  DeviceVector block_norm;
  Block block;
  DeviceVector post_block_norm;
  DeviceVector ffn_norm;
  std::unique_ptr<Matrix> gate_up;
  std::unique_ptr<Matrix> down;
  DeviceVector post_ffn_norm;
};

class Transformer {
 public:
  /// Loads the layers of `options.layers`, the embedding on the first stage, final norm and head on
  /// the last. `weights` is not read afterwards; `ops` outlives the result. InvalidArgument for
  /// ranges and limits that the model does not have.
  static absl::StatusOr<std::unique_ptr<Transformer>> Load(const ModelConfig& config,
                                                           const WeightStore& weights, Ops& ops,
                                                           const StageOptions& options,
                                                           const Stage::Progress& progress);

  /// Brings the activations of the stage before, [rows, hidden], to where Layers reads them.
  void Receive(ConstTensor activations);
  /// Runs the layers for the batch that has begun: behind Receive; the first stage embeds
  /// batch.tokens instead.
  void Layers(const Batch& batch);
  /// The residual stream after the last layer, [rows, hidden], in memory of the device; valid until
  /// the next call of Receive or Layers.
  ConstTensor Hidden(int rows) const { return workspace_.For(rows).hidden; }
  /// All of these.
  ConstTensor Forward(const Batch& batch, ConstTensor activations);

  /// Logits of rows of the last Layers, [rows.size(), vocab] f32, in memory that the caller may
  /// overwrite. Last stage only; at most samples_max rows.
  Tensor Logits(absl::Span<const int32_t> rows);

  bool first_stage() const { return IsFirstStage(options_.layers); }
  bool last_stage() const { return IsLastStage(config_, options_.layers); }
  const ModelConfig& config() const { return config_; }
  const StageMemory& memory() const { return memory_; }

 private:
  Transformer(const ModelConfig& config, Ops& ops, const StageOptions& options)
      : config_(config), options_(options), ops_(ops) {}

  absl::Status LoadAll(WeightLoader& loader, const TensorNames& names);
  absl::Status LoadEnds(WeightLoader& loader, const TensorNames& names);
  absl::StatusOr<Layer::Block> LoadBlock(WeightLoader& loader, const TensorNames& names,
                                         int number) const;
  absl::StatusOr<Layer> LoadLayer(WeightLoader& loader, const TensorNames& names, int number) const;
  void AddProjection(const Activations& a, ConstTensor x, const Matrix& weight,
                     const Norm& post_norm, const Norm& next);

  ModelConfig config_;
  StageOptions options_;
  Ops& ops_;
  std::vector<std::unique_ptr<Rotation>> rotations_;  // as config_.ropes
  KvCache cache_;
  StateCache states_;
  std::vector<Layer> layers_;
  float embedding_scale_ = 1;
  std::unique_ptr<Matrix> embedding_;  // first stage, and a last stage with a tied head
  DeviceVector final_norm_;
  std::unique_ptr<Matrix> own_head_;  // last stage of an untied model
  const Matrix* head_ = nullptr;
  Workspace workspace_;
  Activations activations_;  // of the step in progress
  StageMemory memory_;
};

}  // namespace neurogrid
