// The stage of any device: a transformer over that device's ops, and the draw at the chain's end.
#include "engine/stage.h"

#include <deque>
#include <utility>

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

  absl::Status Queue(const Batch& batch, ConstTensor activations) override {
    const int drawn_before = std::exchange(drawn_before_, 0);
    NG_RETURN_IF_ERROR(CheckInputs(batch, activations, whole() ? drawn_before : 0));
    NG_CHECK(queued_.size() < (whole() ? kStepsQueued : size_t{1}));
    if (!transformer_->first_stage()) transformer_->Receive(activations);
    const bool draws = transformer_->last_stage() && batch.samples() > 0;
    ops_.RunSteps(memory_.get(), batch, [&](const Batch& steps) {
      transformer_->Layers(steps);
      if (!draws) return;
      const Tensor logits = transformer_->Logits(steps.sampled_rows);
      ops_.Draw(logits, steps.sampling, options_.limits.vocab_size);
    });
    NG_RETURN_IF_ERROR(ops_.Health());
    if (draws) drawn_before_ = batch.samples();
    queued_.push_back({batch.rows(), draws});
    return absl::OkStatus();
  }

  absl::StatusOr<Output> Collect() override {
    NG_CHECK(!queued_.empty());
    const Queued step = queued_.front();
    queued_.pop_front();
    Output output;
    if (step.draws) output.sampled = ops_.Drawn();
    if (!transformer_->last_stage()) {
      output.activations = ops_.CopyToHost(transformer_->Hidden(step.rows));
    }
    NG_RETURN_IF_ERROR(ops_.Health());
    return output;
  }

  bool Done() override {
    NG_CHECK(!queued_.empty());
    return !queued_.front().draws || ops_.DrawnIsThere();
  }

  DType activation_dtype() const override { return ActivationDType(options_.precision); }
  const StageMemory& memory() const override { return transformer_->memory(); }
  const StageOptions& options() const override { return options_; }
  const std::string& determinism_class() const override { return determinism_class_; }

 private:
  struct Queued {
    int rows;
    bool draws;
  };

  bool whole() const { return transformer_->first_stage() && transformer_->last_stage(); }

  absl::Status CheckInputs(const Batch& batch, ConstTensor activations, int drawn) const {
    const Shape expected({batch.rows(), transformer_->config().hidden_size});
    if (!transformer_->first_stage() &&
        (activations.shape != expected || activations.dtype != activation_dtype())) {
      return absl::InvalidArgumentError(absl::StrCat(
          "activations are ", InfoOf(activations.dtype).name, " ", activations.shape.ToString(),
          " but the batch implies ", InfoOf(activation_dtype()).name, " ", expected.ToString()));
    }
    if (!transformer_->first_stage()) return absl::OkStatus();
    for (const int32_t token : batch.tokens) {
      if (token >= DrawnBefore(drawn - 1)) continue;
      return absl::InvalidArgumentError(absl::StrCat("a token is sample ", DrawnBefore(token),
                                                     " of the step before, which drew ", drawn,
                                                     " here"));
    }
    return absl::OkStatus();
  }

  Ops& ops_;
  std::unique_ptr<Transformer> transformer_;
  StageOptions options_;
  std::unique_ptr<StepMemory> memory_;
  std::string determinism_class_;
  std::deque<Queued> queued_;
  int drawn_before_ = 0;  // samples of the step queued last
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
