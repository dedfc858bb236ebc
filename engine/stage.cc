// The stage of any device: a transformer over that device's ops, and the draw at the chain's end.
#include "engine/stage.h"

#include "absl/strings/str_cat.h"
#include "engine/ops.h"
#include "engine/transformer.h"

namespace neurogrid {
namespace {

class DeviceStage : public Stage {
 public:
  DeviceStage(Ops& ops, std::unique_ptr<Transformer> transformer, const StageOptions& options)
      : ops_(ops),
        transformer_(std::move(transformer)),
        options_(options),
        memory_(ops.MakeStepMemory(options.limits)),
        determinism_class_(absl::StrCat(ops.kernel_set(), "/", NameOf(options.precision))) {}

  absl::StatusOr<Output> Run(const Batch& batch, ConstTensor activations) override {
    const Shape expected({batch.rows(), transformer_->config().hidden_size});
    if (!transformer_->first_stage() &&
        (activations.shape != expected || activations.dtype != activation_dtype())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "activations are ", InfoOf(activations.dtype).name, " ", activations.shape.ToString(),
          " but the batch implies ", InfoOf(activation_dtype()).name, " ", expected.ToString()));
    }
    if (!transformer_->first_stage()) transformer_->Receive(activations);
    const bool draws = transformer_->last_stage() && batch.samples() > 0;
    ops_.RunSteps(memory_.get(), batch, [&](const Batch& steps) {
      transformer_->Layers(steps);
      if (!draws) return;
      const Tensor logits = transformer_->Logits(steps.sampled_rows);
      ops_.Draw(logits, steps.sampling, options_.limits.vocab_size);
    });
    Output output;
    if (draws) output.sampled = ops_.Drawn();
    if (!transformer_->last_stage()) {
      output.activations = ops_.CopyToHost(transformer_->Hidden(batch.rows()));
    }
    NG_RETURN_IF_ERROR(ops_.Health());
    return output;
  }

  DType activation_dtype() const override { return ActivationDType(options_.precision); }
  const StageMemory& memory() const override { return transformer_->memory(); }
  const StageOptions& options() const override { return options_; }
  const std::string& determinism_class() const override { return determinism_class_; }

 private:
  Ops& ops_;
  std::unique_ptr<Transformer> transformer_;
  StageOptions options_;
  std::unique_ptr<StepMemory> memory_;
  std::string determinism_class_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Stage>> Stage::Load(const Checkpoint& checkpoint, Device& device,
                                                   const StageOptions& options,
                                                   const Progress& progress) {
  NG_ASSIGN_OR_RETURN(std::unique_ptr<Transformer> transformer,
                      Transformer::Load(checkpoint.config(), checkpoint.weights(), device.ops(),
                                        options, progress));
  return std::make_unique<DeviceStage>(device.ops(), std::move(transformer), options);
}

}  // namespace neurogrid
