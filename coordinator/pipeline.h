// Steps into the chain, results out of it: the coordinator's end of the data plane.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/identity.h"
#include "common/status.h"
#include "coordinator/cluster_state.h"
#include "engine/batch.h"
#include "proto/peer.h"

namespace neurogrid {

struct StepResult {
  uint64_t epoch = 0;
  uint64_t id = 0;                    // as given to Submit
  absl::Status status;                // why the step did not run; the epoch goes on
  std::vector<SampledToken> sampled;  // [samples] of the batch
  std::vector<StageTime> times;       // [stages]
  double total_ms = 0;                // from Submit to here
};

/// Sends steps to the first stage and takes results from the last. Results come in the order of the
/// steps; whatever else comes ends the epoch.
class Pipeline : public StepReceiver {
 public:
  using PeerOpener = std::function<absl::StatusOr<std::unique_ptr<Peer>>(PeerOptions)>;

  struct Route {
    uint64_t epoch = 0;
    std::string first_node;
    std::string first_host;
    int first_port = 0;
    std::string last_node;
    uint64_t last_boot_id = 0;
    size_t stages = 1;
    int vocab_size = 0;
    bool polls = false;  // cores are free to wait for results on, see Polling
  };
  struct Options {
    std::string cluster_id;
    uint64_t boot_id = 0;
    Identity identity;
    PeerOpener open_peer = OpenPeer;
    std::function<void(StepResult)> on_result;                           // any thread
    std::function<void(uint64_t epoch)> on_open;                         // any thread
    std::function<void(uint64_t epoch, const absl::Status&)> on_broken;  // any thread
  };
  explicit Pipeline(Options options);
  ~Pipeline() override;
  /// Ends the epoch and opens no edge any more: after the return `open_peer` is not running.
  void Stop();

  /// Opens the edge to the first stage, on a thread of its own; on_open or on_broken follows.
  /// Results of the last stage are expected from now on.
  void Begin(const Route& route);
  /// Steps in flight come to nothing; no result of the epoch is told after the return.
  void End(uint64_t epoch);

  /// FailedPrecondition when `epoch` is not the open one, ResourceExhausted when
  /// kStepsQueuedMax steps are under way.
  absl::Status Submit(uint64_t epoch, uint64_t id, Batch batch);
  uint64_t stale() const { return stale_; }

  /// Ends the epoch when a step has been under way for too long.
  void CheckDeadline(ClusterTime now);

  absl::Status CheckSender(const EdgeSender& sender) override;
  absl::Status TakeStep(const EdgeSender& sender, Step step) override;
  void OnEdgeEnd(const EdgeSender& sender, const absl::Status& status) override;
  bool polls() const override { return polls_; }

 private:
  struct InFlight {
    uint64_t id;
    size_t samples;
    ClusterTime submitted;
  };
  absl::Status CheckSenderLocked(const EdgeSender& sender) const;
  absl::Status CheckResult(const Step& step) const;
  void OpenLoop();
  void Open(const Route& route);

  Options options_;
  mutable std::mutex mutex_;
  Route route_;  // epoch 0: none
  std::deque<InFlight> in_flight_;
  uint64_t closed_epoch_ = 0;  // the highest that has ended
  uint64_t next_sent_ = 1;
  uint64_t next_result_ = 1;
  std::chrono::steady_clock::duration longest_step_{0};
  std::atomic<uint64_t> stale_ = 0;
  std::atomic<bool> polls_ = false;  // of route_
  std::mutex peer_mutex_;            // one step at a time goes out; taken before mutex_
  std::unique_ptr<Peer> peer_;       // null: not open
  std::condition_variable to_open_changed_;
  std::optional<Route> to_open_;
  std::vector<std::unique_ptr<Peer>> to_close_;
  bool stopping_ = false;
  std::thread opener_;  // dials and hangs up, so that nobody else waits for a dead node
};

}  // namespace neurogrid
