#include "engine/transformer.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/model/stage_memory.h"
#include "engine/workspace_bytes.h"

namespace neurogrid {
namespace {

absl::Status CheckOptions(const ModelConfig& config, const StageOptions& options) {
  const LayerRange& layers = options.layers;
  if (layers.first < 0 || layers.last > config.layers_count() || layers.count() <= 0) {
    return absl::InvalidArgumentError(absl::StrCat("layers ", layers.ToString(),
                                                   " are not a part of the model's [0,",
                                                   config.layers_count(), ")"));
  }
  const BatchLimits& limits = options.limits;
  const auto check = [](const char* name, int value, int low, int high) {
    if (value >= low && value <= high) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("stage limit ", name, " is ", value, ", outside [", low, ", ", high, "]"));
  };
  constexpr int kRowsMax = 1 << 20;
  NG_RETURN_IF_ERROR(check("rows_max", limits.rows_max, 1, kRowsMax));
  NG_RETURN_IF_ERROR(check("sequences_max", limits.sequences_max, 1, limits.rows_max));
  NG_RETURN_IF_ERROR(check("samples_max", limits.samples_max, 1, limits.rows_max));
  constexpr int kPagesMax = 1 << 30;
  const int window = WidestWindow(config);
  NG_RETURN_IF_ERROR(check("pages", limits.pages, AttendsToAll(config) ? 1 : 0, kPagesMax));
  NG_RETURN_IF_ERROR(check("window", limits.window, window, window));
  NG_RETURN_IF_ERROR(
      check("window_pages", limits.window_pages, window > 0 ? 1 : 0, window > 0 ? kPagesMax : 0));
  const bool recurrent = std::any_of(
      config.layers.begin() + layers.first, config.layers.begin() + layers.last,
      [](const LayerConfig& layer) { return layer.kind == BlockKind::kShortConvolution; });
  NG_RETURN_IF_ERROR(check("slots", limits.slots, recurrent ? 1 : 0, kRowsMax));
  if (recurrent && (config.conv_taps < 1 || config.conv_taps > kConvolutionTapsMax)) {
    return absl::InvalidArgumentError(absl::StrCat("the model's convolutions have ",
                                                   config.conv_taps, " taps, outside [1, ",
                                                   kConvolutionTapsMax, "]"));
  }
  NG_RETURN_IF_ERROR(check("positions_max", limits.positions_max, 1, 1 << 30));
  return check("vocab_size", limits.vocab_size, 1, config.vocab_size);
}

OpsLimits OpsLimitsOf(const ModelConfig& config, const StageOptions& options) {
  const BatchLimits& limits = options.limits;
  const int64_t attended = int64_t{config.query_heads} * config.head_dim;
  const bool whole = IsFirstStage(options.layers) && IsLastStage(config, options.layers);
  const int64_t values = int64_t{limits.rows_max} * config.hidden_size;
  return {.rows_max = limits.rows_max,
          .sequences_max = limits.sequences_max,
          .samples_max = limits.samples_max,
          .inputs_max = std::max<int64_t>({config.hidden_size, config.ffn_size, attended}),
          .query_heads = config.query_heads,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .positions_max = limits.positions_max,
          .vocab_size = limits.vocab_size,
          .activation_bytes = whole ? 0 : BytesOf(ActivationDType(options.precision), values)};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Transformer>> Transformer::Load(const ModelConfig& config,
                                                               const WeightStore& weights, Ops& ops,
                                                               const StageOptions& options,
                                                               const Stage::Progress& progress) {
  NG_RETURN_IF_ERROR(CheckOptions(config, options));
  NG_RETURN_IF_ERROR(CheckHasBlocks(weights, options.precision));
  NG_ASSIGN_OR_RETURN(const Architecture* architecture, FindArchitecture(config.architecture));
  WeightLoader loader(config, architecture->tensors, weights, ops, options, progress);
  std::unique_ptr<Transformer> transformer(new Transformer(config, ops, options));
  NG_RETURN_IF_ERROR(transformer->LoadAll(loader, architecture->tensors));
  return transformer;
}

absl::Status Transformer::LoadAll(WeightLoader& loader, const TensorNames& names) {
  const BatchLimits& limits = options_.limits;
  for (const RopeParameters& rope : config_.ropes) {
    NG_ASSIGN_OR_RETURN(std::unique_ptr<Rotation> rotation,
                        ops_.MakeRotation(rope, config_.head_dim, limits.positions_max));
    rotations_.push_back(std::move(rotation));
  }
  NG_ASSIGN_OR_RETURN(
      cache_, KvCache::Allocate(ops_, config_, options_.layers, options_.precision, limits));
  NG_ASSIGN_OR_RETURN(states_, StateCache::Allocate(ops_, config_, options_.layers,
                                                    options_.precision, limits.slots));
  NG_ASSIGN_OR_RETURN(workspace_, Workspace::Allocate(ops_, config_, options_));
  NG_RETURN_IF_ERROR(ops_.Reserve(OpsLimitsOf(config_, options_)));
  for (int layer = options_.layers.first; layer < options_.layers.last; ++layer) {
    NG_ASSIGN_OR_RETURN(Layer loaded, LoadLayer(loader, names, layer));
    layers_.push_back(std::move(loaded));
  }
  NG_RETURN_IF_ERROR(LoadEnds(loader, names));
  // The reference multiplies by a scale in the dtype of the run: 33.94 becomes 34 in bf16.
  embedding_scale_ = ActivationDType(options_.precision) == DType::kF32
                         ? config_.embedding_scale
                         : ToFloat(ToBf16(config_.embedding_scale));
  memory_ = {.weight_bytes = loader.device_bytes(),
             .workspace_bytes = StageWorkspaceBytes(config_, options_),
             .page_bytes = cache_.page_bytes(),
             .window_page_bytes = cache_.window_page_bytes(),
             .state_bytes = states_.slot_bytes()};
  return absl::OkStatus();
}

absl::Status Transformer::LoadEnds(WeightLoader& loader, const TensorNames& names) {
  const bool tied = config_.tied_embeddings;
  if (first_stage() || (last_stage() && tied)) {
    NG_ASSIGN_OR_RETURN(embedding_, loader.Table(std::string(names.embedding), config_.vocab_size,
                                                 config_.hidden_size));
  }
  if (!last_stage()) return absl::OkStatus();
  NG_ASSIGN_OR_RETURN(final_norm_, loader.Vector(std::string(names.final_norm), config_.hidden_size,
                                                 config_.norm_offset));
  if (!tied) {
    NG_ASSIGN_OR_RETURN(own_head_, loader.Linear({{std::string(names.head), config_.vocab_size}},
                                                 config_.hidden_size));
  }
  head_ = tied ? embedding_.get() : own_head_.get();
  return absl::OkStatus();
}

absl::StatusOr<Layer::Block> Transformer::LoadBlock(WeightLoader& loader, const TensorNames& names,
                                                    int number) const {
  const LayerConfig& layer = config_.layers[static_cast<size_t>(number)];
  switch (layer.kind) {
    case BlockKind::kAttention:
      return AttentionBlock::Load(loader, config_, names, number,
                                  rotations_[static_cast<size_t>(layer.rope)].get(),
                                  cache_.layer(number));
    case BlockKind::kShortConvolution:
      return ShortConvolutionBlock::Load(loader, config_, names, number, states_.layer(number));
  }
  NG_CHECK(false);
}

absl::StatusOr<Layer> Transformer::LoadLayer(WeightLoader& loader, const TensorNames& names,
                                             int number) const {
  const int64_t hidden = config_.hidden_size;
  const float offset = config_.norm_offset;
  const auto part = [number](absl::string_view name) { return LayerPart(number, name); };
  Layer layer;
  NG_ASSIGN_OR_RETURN(layer.block_norm, loader.Vector(part(names.attention_norm), hidden, offset));
  NG_ASSIGN_OR_RETURN(layer.block, LoadBlock(loader, names, number));
  NG_ASSIGN_OR_RETURN(layer.post_block_norm,
                      loader.VectorIfPresent(part(names.post_attention_norm), hidden, offset));
  NG_ASSIGN_OR_RETURN(layer.ffn_norm, loader.Vector(part(names.ffn_norm), hidden, offset));
  NG_ASSIGN_OR_RETURN(layer.gate_up,
                      loader.Gated(part(names.gate), part(names.up), config_.ffn_size, hidden));
  NG_ASSIGN_OR_RETURN(layer.down, loader.Linear({{part(names.down), hidden}}, config_.ffn_size));
  NG_ASSIGN_OR_RETURN(layer.post_ffn_norm,
                      loader.VectorIfPresent(part(names.post_ffn_norm), hidden, offset));
  return layer;
}

/// hidden += x W^T, behind a norm of its own where the family has one; then normed = next(hidden),
/// unless there is nothing next.
void Transformer::AddProjection(const Activations& a, ConstTensor x, const Matrix& weight,
                                const Norm& post_norm, const Norm& next) {
  if (post_norm) {
    ops_.MatMul(a.branch, x, weight);
    ops_.RmsNormAdd(a.hidden, a.branch, post_norm, a.normed, next);
  } else {
    ops_.MatMulAdd(a.hidden, x, weight, a.normed, next);
  }
}

void Transformer::Receive(ConstTensor activations) {
  NG_CHECK(!first_stage());
  ops_.CopyFromHost(workspace_.For(static_cast<int>(activations.shape[0])).hidden, activations);
}

void Transformer::Layers(const Batch& batch) {
  const Activations a = activations_ = workspace_.For(batch.rows());
  if (first_stage()) ops_.Embed(a.hidden, *embedding_, batch.tokens, embedding_scale_);
  ops_.RmsNorm(a.normed, a.hidden, NormOf(config_, layers_.front().block_norm));
  for (size_t i = 0; i < layers_.size(); ++i) {
    const Layer& layer = layers_[i];
    std::visit(
        [&](const auto& block) {
          const ConstTensor mixed = block.Forward(ops_, batch, a);
          AddProjection(a, mixed, block.output(), NormOf(config_, layer.post_block_norm),
                        NormOf(config_, layer.ffn_norm));
        },
        layer.block);
    ops_.MatMulGated(a.gated, a.normed, *layer.gate_up, config_.activation);
    const Norm next = i + 1 < layers_.size() ? NormOf(config_, layers_[i + 1].block_norm) : Norm();
    AddProjection(a, a.gated, *layer.down, NormOf(config_, layer.post_ffn_norm), next);
  }
}

ConstTensor Transformer::Forward(const Batch& batch, ConstTensor activations) {
  if (!first_stage()) Receive(activations);
  ops_.BeginBatch(batch);
  Layers(batch);
  return Hidden(batch.rows());
}

Tensor Transformer::Logits(absl::Span<const int32_t> rows) {
  NG_CHECK(last_stage());
  const Outputs out = workspace_.OutputsFor(static_cast<int>(rows.size()));
  ops_.RmsNormRows(out.rows, activations_.hidden, rows, NormOf(config_, final_norm_));
  ops_.MatMul(out.logits, out.rows, *head_);
  if (config_.final_softcap > 0) ops_.Softcap(out.logits, config_.final_softcap);
  return out.logits;
}

}  // namespace neurogrid
