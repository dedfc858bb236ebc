#include "proto/direct_peer.h"

#include <utility>

namespace neurogrid {
namespace {

class DirectPeer : public Peer {
 public:
  DirectPeer(EdgeSender sender, StepReceiver* receiver,
             std::function<void(const absl::Status&)> on_end)
      : sender_(std::move(sender)), receiver_(receiver), on_end_(std::move(on_end)) {}

  void Send(Step step) override {
    if (ended_) return;
    step.epoch = sender_.epoch;
    step.arrived = std::chrono::steady_clock::now();
    const absl::Status status = receiver_->TakeStep(sender_, std::move(step));
    if (status.ok()) return;
    ended_ = true;
    if (on_end_ != nullptr) on_end_(status);
  }

 private:
  EdgeSender sender_;
  StepReceiver* receiver_;
  std::function<void(const absl::Status&)> on_end_;
  bool ended_ = false;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Peer>> OpenDirectPeer(EdgeSender sender, StepReceiver* receiver,
                                                     PeerOptions options) {
  NG_RETURN_IF_ERROR(receiver->CheckSender(sender));
  return std::make_unique<DirectPeer>(std::move(sender), receiver, std::move(options.on_end));
}

}  // namespace neurogrid
