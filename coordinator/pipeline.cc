#include "coordinator/pipeline.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

/// A stage that hangs while its heartbeats go on is given up after this, or after eight times the
/// longest step of the epoch.
constexpr std::chrono::seconds kStepTimeLeast{60};

}  // namespace

Pipeline::Pipeline(Options options)
    : options_(std::move(options)), opener_([this] { OpenLoop(); }) {}

Pipeline::~Pipeline() { Stop(); }

void Pipeline::Stop() {
  uint64_t epoch = 0;
  {
    const std::lock_guard lock(mutex_);
    epoch = route_.epoch;
  }
  End(epoch);
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    to_open_changed_.notify_all();
  }
  if (opener_.joinable()) opener_.join();
}

void Pipeline::Begin(const Route& route) {
  const std::lock_guard lock(mutex_);
  route_ = route;
  polls_ = route.polls;
  in_flight_.clear();
  next_sent_ = next_result_ = 1;
  longest_step_ = {};
  to_open_ = route;
  to_open_changed_.notify_all();
}

void Pipeline::OpenLoop() {
  std::unique_lock lock(mutex_);
  while (true) {
    to_open_changed_.wait(
        lock, [this] { return stopping_ || to_open_.has_value() || !to_close_.empty(); });
    std::vector<std::unique_ptr<Peer>> closed = std::exchange(to_close_, {});
    const std::optional<Route> route = std::exchange(to_open_, std::nullopt);
    const bool stopping = stopping_;
    lock.unlock();
    closed.clear();
    if (stopping) return;
    if (route.has_value()) Open(*route);
    lock.lock();
  }
}

void Pipeline::Open(const Route& route) {
  absl::StatusOr<std::unique_ptr<Peer>> peer =
      options_.open_peer({.cluster_id = options_.cluster_id,
                          .epoch = route.epoch,
                          .boot_id = options_.boot_id,
                          .node_id = route.first_node,
                          .host = route.first_host,
                          .port = route.first_port,
                          .identity = options_.identity,
                          .on_end = [this, epoch = route.epoch](const absl::Status& status) {
                            options_.on_broken(epoch, status);
                          }});
  if (!peer.ok()) return options_.on_broken(route.epoch, peer.status());
  {
    const std::lock_guard peer_lock(peer_mutex_);
    const std::lock_guard lock(mutex_);
    if (route_.epoch != route.epoch) return;
    peer_ = *std::move(peer);
  }
  options_.on_open(route.epoch);
}

void Pipeline::End(uint64_t epoch) {
  const std::lock_guard peer_lock(peer_mutex_);
  const std::lock_guard lock(mutex_);
  if (route_.epoch != epoch) return;
  closed_epoch_ = std::max(closed_epoch_, epoch);
  route_ = Route();
  polls_ = false;
  to_open_.reset();
  in_flight_.clear();
  if (peer_ == nullptr) return;
  to_close_.push_back(std::move(peer_));
  to_open_changed_.notify_all();
}

absl::Status Pipeline::Submit(uint64_t epoch, uint64_t id, Batch batch) {
  const std::lock_guard peer_lock(peer_mutex_);
  Step step;
  {
    const std::lock_guard lock(mutex_);
    if (route_.epoch != epoch || peer_ == nullptr) {
      return absl::FailedPreconditionError(absl::StrCat("epoch ", epoch, " is not open"));
    }
    if (in_flight_.size() >= kStepsQueuedMax) {
      return absl::ResourceExhaustedError("too many steps are under way");
    }
    in_flight_.push_back({id, batch.sampled_rows.size(), std::chrono::steady_clock::now()});
    step.epoch = epoch;
    step.number = next_sent_++;
  }
  step.batch = std::move(batch);
  peer_->Send(std::move(step));
  return absl::OkStatus();
}

void Pipeline::CheckDeadline(ClusterTime now) {
  uint64_t epoch = 0;
  {
    const std::lock_guard lock(mutex_);
    if (in_flight_.empty()) return;
    const auto limit =
        std::max<std::chrono::steady_clock::duration>(kStepTimeLeast, 8 * longest_step_);
    if (now - in_flight_.front().submitted < limit) return;
    epoch = route_.epoch;
  }
  options_.on_broken(epoch, absl::DeadlineExceededError("a step did not come back in time"));
}

absl::Status Pipeline::CheckSender(const EdgeSender& sender) {
  const std::lock_guard lock(mutex_);
  return CheckSenderLocked(sender);
}

absl::Status Pipeline::CheckSenderLocked(const EdgeSender& sender) const {
  if (route_.epoch == 0 || sender.epoch != route_.epoch) {
    return absl::FailedPreconditionError(
        absl::StrCat("epoch ", sender.epoch, " is not in force (", route_.epoch, " is)"));
  }
  if (sender.role != Role::kWorker || sender.node_id != route_.last_node ||
      sender.boot_id != route_.last_boot_id) {
    return absl::PermissionDeniedError(
        absl::StrCat(sender.node_id, " is not the last stage of epoch ", route_.epoch));
  }
  return absl::OkStatus();
}

absl::Status Pipeline::CheckResult(const Step& step) const {
  if (in_flight_.empty() || step.number != next_result_) {
    return absl::FailedPreconditionError(
        absl::StrCat("a result of step ", step.number, " came but ", next_result_, " is wanted"));
  }
  if (!step.status.ok()) return absl::OkStatus();
  const size_t samples = in_flight_.front().samples;
  if (step.sampled.size() != samples || step.times.size() != route_.stages) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the result of step ", step.number, " holds ", step.sampled.size(), " tokens of ",
        step.times.size(), " stages, expected ", samples, " of ", route_.stages));
  }
  for (const SampledToken& token : step.sampled) {
    if (token.token < 0 || token.token >= route_.vocab_size) {
      return absl::InvalidArgumentError(absl::StrCat("the result of step ", step.number,
                                                     " holds token ", token.token,
                                                     ", expected one below ", route_.vocab_size));
    }
  }
  return absl::OkStatus();
}

absl::Status Pipeline::TakeStep(const EdgeSender& sender, Step step) {
  // Held while the result is told, so that End cannot return in between.
  const std::lock_guard lock(mutex_);
  if (sender.epoch <= closed_epoch_ || (route_.epoch != 0 && step.number < next_result_)) {
    ++stale_;
    return absl::OkStatus();
  }
  NG_RETURN_IF_ERROR(CheckSenderLocked(sender));
  // A stage broke: the end of the epoch is on its way, by the deadline at the latest, and takes the
  // step and those behind it along.
  if (absl::IsUnavailable(step.status)) return absl::OkStatus();
  NG_RETURN_IF_ERROR(CheckResult(step));
  const auto took = std::chrono::steady_clock::now() - in_flight_.front().submitted;
  longest_step_ = std::max(longest_step_, took);
  StepResult result{.epoch = step.epoch,
                    .id = in_flight_.front().id,
                    .status = std::move(step.status),
                    .sampled = std::move(step.sampled),
                    .times = std::move(step.times),
                    .total_ms = std::chrono::duration<double, std::milli>(took).count()};
  in_flight_.pop_front();
  ++next_result_;
  options_.on_result(std::move(result));
  return absl::OkStatus();
}

void Pipeline::OnEdgeEnd(const EdgeSender& sender, const absl::Status& status) {
  {
    const std::lock_guard lock(mutex_);
    if (route_.epoch == 0 || sender.epoch != route_.epoch) return;
  }
  options_.on_broken(
      sender.epoch, absl::UnavailableError(absl::StrCat(
                        "the edge of the last stage, ", sender.node_id, ", ",
                        status.ok() ? "was closed" : absl::StrCat("is over: ", status.message()))));
}

}  // namespace neurogrid
