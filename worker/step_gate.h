// What stands between the network and a stage: a step passes when cluster, sender, epoch, order,
// sizes and every batch field agree with the assignment; anything else is refused by name.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>

#include "common/dtype.h"
#include "proto/peer.h"

namespace neurogrid {

class StepGate : public StepReceiver {
 public:
  struct Expectation {
    uint64_t epoch = 0;
    std::string node_id;  // of the stage before this one, or the coordinator
    uint64_t boot_id = 0;
    bool first = false;  // the first stage takes no activations
    int hidden_size = 0;
    DType activation_dtype = DType::kBF16;
    BatchLimits limits;
  };
  /// `take` queues a step for the stage; false when it has no room. With `polls` cores are free to
  /// wait for steps on, see Polling.
  explicit StepGate(std::function<bool(Step)> take, bool polls = false)
      : take_(std::move(take)), polls_(polls) {}

  /// An assignment is loaded: senders may open their edge, steps are still refused.
  void Expect(const Expectation& expectation);
  /// Steps of this epoch pass from now on.
  void Activate(uint64_t epoch);
  /// Nothing passes. Remembers the highest epoch, so that late steps are told from early ones.
  void Close();

  absl::Status CheckSender(const EdgeSender& sender) override;
  absl::Status TakeStep(const EdgeSender& sender, Step step) override;
  void OnEdgeEnd(const EdgeSender& /*sender*/, const absl::Status& /*status*/) override {}
  bool polls() const override { return polls_; }

  uint64_t stale() const { return stale_; }

 private:
  absl::Status CheckSenderLocked(const EdgeSender& sender) const;
  absl::Status CheckPayload(const Step& step) const;

  const std::function<bool(Step)> take_;
  const bool polls_;
  std::atomic<uint64_t> stale_ = 0;  // late steps of older epochs, and repeats
  std::mutex mutex_;
  Expectation expected_;
  bool open_ = false;
  bool active_ = false;
  uint64_t next_step_ = 1;
};

}  // namespace neurogrid
