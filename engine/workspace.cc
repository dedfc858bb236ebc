// One layout function: with a base it places the tensors, without one it only counts.
#include "engine/workspace.h"

#include <algorithm>

#include "engine/workspace_bytes.h"

namespace neurogrid {
namespace {

constexpr int64_t kAlignment = 256;

/// Hands out consecutive places in a block of memory; a null block is only measured.
class Placer {
 public:
  explicit Placer(void* base) : base_(static_cast<uint8_t*>(base)) {}

  Tensor Place(DType dtype, int64_t rows, int64_t columns) {
    Tensor tensor{base_ == nullptr ? nullptr : base_ + bytes_, dtype, Shape({rows, columns})};
    bytes_ += (BytesOf(dtype, rows * columns) + kAlignment - 1) / kAlignment * kAlignment;
    return tensor;
  }
  int64_t bytes() const { return bytes_; }

 private:
  uint8_t* base_;
  int64_t bytes_ = 0;
};

bool HasConvolutions(const ModelConfig& config, const LayerRange& layers) {
  return std::any_of(
      config.layers.begin() + layers.first, config.layers.begin() + layers.last,
      [](const LayerConfig& layer) { return layer.kind == BlockKind::kShortConvolution; });
}

int64_t LayOut(const ModelConfig& config, const StageOptions& options, void* base, Activations& a,
               Outputs& o) {
  Placer placer(base);
  const DType dtype = ActivationDType(options.precision);
  const int64_t rows = options.limits.rows_max;
  const int64_t head_dim = config.head_dim;
  a.hidden = placer.Place(dtype, rows, config.hidden_size);
  a.normed = placer.Place(dtype, rows, config.hidden_size);
  a.qkv = placer.Place(dtype, rows, (config.query_heads + 2 * config.kv_heads) * head_dim);
  a.attended = placer.Place(dtype, rows, config.query_heads * head_dim);
  const int64_t convolved = HasConvolutions(config, options.layers) ? config.hidden_size : 0;
  a.bcu = placer.Place(dtype, rows, 3 * convolved);
  a.convolved = placer.Place(dtype, rows, convolved);
  a.gated = placer.Place(dtype, rows, config.ffn_size);
  a.branch = placer.Place(dtype, rows, config.hidden_size);
  if (IsLastStage(config, options.layers)) {
    o.rows = placer.Place(dtype, options.limits.samples_max, config.hidden_size);
    o.logits = placer.Place(DType::kF32, options.limits.samples_max, config.vocab_size);
  }
  return placer.bytes();
}

Tensor FirstRows(const Tensor& whole, int64_t rows) {
  NG_CHECK(rows <= whole.shape[0]);
  return {whole.data, whole.dtype, Shape({rows, whole.shape[1]})};
}

}  // namespace

int64_t StageWorkspaceBytes(const ModelConfig& config, const StageOptions& options) {
  Activations activations;
  Outputs outputs;
  return LayOut(config, options, nullptr, activations, outputs);
}

int64_t GpuScratchBytes(const ModelConfig& config, const BatchLimits& limits) {
  constexpr int64_t kMiB = int64_t{1} << 20;
  constexpr int64_t kAttentionStates = 64 * kMiB;
  constexpr int64_t kSlices = 32 * kMiB;  // of products that several blocks split
  constexpr int64_t kInputs = 32 * kMiB;
  constexpr int64_t kSamplerRow = 64 << 10;
  constexpr int64_t kSamplerBytesPerToken{1};
  // One launch in a recorded step was 2.7 KB of device memory on an H200 (driver 580); a layer is
  // eight or ten of them.
  constexpr int64_t kGraphs = 64;
  constexpr int64_t kGraphBytesPerLayer = 10 * 3 << 10;
  constexpr int64_t kGranules = 16 * kMiB;  // what allocations of 2 MiB waste
  const int64_t rotations =
      static_cast<int64_t>(config.ropes.size()) * 4 * limits.positions_max * config.head_dim;
  const int64_t sampler =
      limits.samples_max * (kSamplerRow + kSamplerBytesPerToken * limits.vocab_size);
  return rotations + kAttentionStates + kSlices + kInputs + sampler + kGranules +
         kGraphs * kGraphBytesPerLayer * config.layers_count();
}

absl::StatusOr<Workspace> Workspace::Allocate(Ops& ops, const ModelConfig& config,
                                              const StageOptions& options) {
  Workspace workspace;
  NG_ASSIGN_OR_RETURN(workspace.arena_, ops.Allocate(StageWorkspaceBytes(config, options)));
  LayOut(config, options, workspace.arena_->data(), workspace.whole_, workspace.outputs_);
  return workspace;
}

Activations Workspace::For(int rows) const {
  return {.hidden = FirstRows(whole_.hidden, rows),
          .normed = FirstRows(whole_.normed, rows),
          .qkv = FirstRows(whole_.qkv, rows),
          .attended = FirstRows(whole_.attended, rows),
          .bcu = FirstRows(whole_.bcu, rows),
          .convolved = FirstRows(whole_.convolved, rows),
          .gated = FirstRows(whole_.gated, rows),
          .branch = FirstRows(whole_.branch, rows)};
}

Outputs Workspace::OutputsFor(int samples) const {
  return {.rows = FirstRows(outputs_.rows, samples), .logits = FirstRows(outputs_.logits, samples)};
}

}  // namespace neurogrid
