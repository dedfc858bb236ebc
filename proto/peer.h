// One edge of the chain: steps out to the next stage, steps in from the one before. Any transport
// that gives these two can replace the framed one.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "common/identity.h"
#include "common/status.h"
#include "proto/wire.h"

namespace neurogrid {

/// The sending end.
class Peer {
 public:
  /// Closes the edge; steps that are still queued are dropped.
  virtual ~Peer() = default;
  /// Queues the step; never blocks. After the end of the edge it drops it.
  virtual void Send(Step step) = 0;
};

struct PeerOptions {
  std::string cluster_id;
  uint64_t epoch = 0;
  uint64_t boot_id = 0;  // of the sender
  std::string node_id;   // of the receiver
  std::string host;
  int port = 0;
  Identity identity;
  /// Called once, on a thread of the transport, when the edge ends before the Peer is destroyed. It
  /// may not destroy the Peer itself.
  std::function<void(const absl::Status&)> on_end;
};

/// Dials and asks the receiver whether it expects us at this epoch; takes at most 5 s.
absl::StatusOr<std::unique_ptr<Peer>> OpenPeer(PeerOptions options);

struct EdgeSender {
  std::string node_id;
  Role role = Role::kWorker;
  uint64_t epoch = 0;
  uint64_t boot_id = 0;
};

/// The receiving end; called from threads of the transport.
class StepReceiver {
 public:
  virtual ~StepReceiver() = default;
  /// OK when the sender is the one expected at this epoch, else the reason.
  virtual absl::Status CheckSender(const EdgeSender& sender) = 0;
  /// OK: taken, or dropped as late. An error ends the edge and is told to the sender.
  virtual absl::Status TakeStep(const EdgeSender& sender, Step step) = 0;
  /// The edge is over: closed by the sender (OK), lost, or refused with `status`.
  virtual void OnEdgeEnd(const EdgeSender& sender, const absl::Status& status) = 0;
  /// Whether cores are free for those who wait for steps at present, see Polling.
  virtual bool polls() const { return false; }
};

}  // namespace neurogrid
