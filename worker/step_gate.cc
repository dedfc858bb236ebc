#include "worker/step_gate.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/batch_check.h"

namespace neurogrid {

void StepGate::Expect(const Expectation& expectation) {
  const std::lock_guard lock(mutex_);
  expected_ = expectation;
  open_ = true;
  active_ = false;
  next_step_ = 1;
}

void StepGate::Activate(uint64_t epoch) {
  const std::lock_guard lock(mutex_);
  if (open_ && expected_.epoch == epoch) active_ = true;
}

void StepGate::Close() {
  const std::lock_guard lock(mutex_);
  open_ = false;
  active_ = false;
}

absl::Status StepGate::CheckSender(const EdgeSender& sender) {
  const std::lock_guard lock(mutex_);
  return CheckSenderLocked(sender);
}

absl::Status StepGate::CheckSenderLocked(const EdgeSender& sender) const {
  if (!open_ || sender.epoch != expected_.epoch) {
    return absl::FailedPreconditionError(
        absl::StrCat("epoch ", sender.epoch, " is not the one assigned here (",
                     open_ ? absl::StrCat(expected_.epoch) : "none", ")"));
  }
  const Role role = expected_.first ? Role::kCoordinator : Role::kWorker;
  if (sender.node_id != expected_.node_id || sender.role != role) {
    return absl::PermissionDeniedError(
        absl::StrCat(NameOf(sender.role), " ", sender.node_id,
                     " is not before this stage in the plan of epoch ", expected_.epoch));
  }
  if (sender.boot_id != expected_.boot_id) {
    return absl::PermissionDeniedError(absl::StrCat(sender.node_id, " has restarted since epoch ",
                                                    expected_.epoch, " was assigned"));
  }
  return absl::OkStatus();
}

absl::Status StepGate::CheckPayload(const Step& step) const {
  const int64_t rows = expected_.first ? 0 : step.batch.rows();
  const int64_t expected = BytesOf(expected_.activation_dtype, rows * expected_.hidden_size);
  if (static_cast<int64_t>(step.activations.size()) == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "activations of step ", step.number, " are ", step.activations.size(), " bytes, expected ",
      expected, " for ", rows, " rows of ", expected_.hidden_size));
}

absl::Status StepGate::TakeStep(const EdgeSender& sender, Step step) {
  const std::lock_guard lock(mutex_);
  if (sender.epoch < expected_.epoch) {
    ++stale_;
    return absl::OkStatus();
  }
  NG_RETURN_IF_ERROR(CheckSenderLocked(sender));
  if (!active_) {
    return absl::FailedPreconditionError(
        absl::StrCat("step ", step.number, " of epoch ", step.epoch,
                     " came before this stage was activated at that epoch"));
  }
  if (step.number < next_step_) {
    ++stale_;
    return absl::OkStatus();
  }
  if (step.number > next_step_) {
    return absl::FailedPreconditionError(
        absl::StrCat("step ", step.number, " came but ", next_step_, " is wanted next"));
  }
  if (!step.sampled.empty()) {
    return absl::InvalidArgumentError("sampled tokens came to a stage, which makes them itself");
  }
  if (step.status.ok()) {
    step.status = CheckBatch(step.batch, expected_.limits);
    // A size that does not follow from the batch is the sender's fault, not the request's.
    if (step.status.ok()) NG_RETURN_IF_ERROR(CheckPayload(step));
  }
  ++next_step_;
  if (!take_(std::move(step))) {
    return absl::ResourceExhaustedError(
        absl::StrCat("more than ", kStepsQueuedMax, " steps wait for this stage"));
  }
  return absl::OkStatus();
}

}  // namespace neurogrid
