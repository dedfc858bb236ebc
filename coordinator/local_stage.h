// A worker inside the coordinator's process, for its own device. It joins over the coordinator's
// port like any other; its steps to and from the pipeline skip the network.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "common/identity.h"
#include "common/status.h"
#include "proto/peer.h"

namespace neurogrid {

class LocalStage {
 public:
  struct Options {
    std::string device;      // auto | cpu | cuda:N
    int threads = 0;         // 0: one for each core
    bool any_order = false;  // --determinism off
    bool managed_memory = false;
    std::string model_path;
    std::string state_dir;  // its disk is the one reported
    Identity identity;      // of node kLocalNode, role worker
    std::string host;       // of the coordinator's port
    int port = 0;
    std::string listen_host;          // where stages of other machines reach this one
    StepReceiver* results = nullptr;  // of the pipeline; must outlive this
    /// Hears, on a thread of the stage, why it is no member any more although nobody stopped it:
    /// its device is broken.
    std::function<void(const absl::Status&)> on_lost;
  };
  /// Measures the device (half a second) and starts joining.
  static absl::StatusOr<std::unique_ptr<LocalStage>> Start(const Options& options);
  virtual ~LocalStage() = default;

  /// The pipeline's edge to this stage.
  virtual absl::StatusOr<std::unique_ptr<Peer>> Open(PeerOptions options) = 0;
};

}  // namespace neurogrid
