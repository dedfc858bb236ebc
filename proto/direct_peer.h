// An edge between two parts of one process: no network, no copies.
#pragma once

#include <memory>

#include "common/status.h"
#include "proto/peer.h"

namespace neurogrid {

/// Asks `receiver` as OpenPeer asks a remote one. It must outlive the Peer. `on_end` runs within
/// Send when the receiver refuses a step.
absl::StatusOr<std::unique_ptr<Peer>> OpenDirectPeer(EdgeSender sender, StepReceiver* receiver,
                                                     PeerOptions options);

}  // namespace neurogrid
