// One HTTP request to the hub or to a host it redirects to. Follows nothing, retries nothing.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"
#include "common/hub_settings.h"
#include "common/status.h"
#include "coordinator/hub_protocol.h"
#include "coordinator/hub_url.h"

namespace neurogrid {

struct HubRequest {
  Url url;
  bool head_only = false;
  std::string token;   // shown to this host; empty: none
  int64_t first = -1;  // asks for bytes [first, last]; negative: for all
  int64_t last = -1;
  /// Called with status and headers before the body (not for head_only); false ends the request.
  std::function<bool(const HubHead&)> on_head;
  /// Called with pieces of the body in order; false ends the request.
  std::function<bool(absl::string_view)> on_body;
};

/// The connections of one thread.
class HubTransport {
 public:
  virtual ~HubTransport() = default;

  /// The head of the answer once its body was read whole. Unavailable: no connection, a cut or
  /// silence: trying again may help. FailedPrecondition: the other side's certificate, which will
  /// not change. Aborted: a callback said false.
  virtual absl::StatusOr<HubHead> Send(const HubRequest& request) = 0;

  /// Ends a request that runs on another thread, and those to come.
  virtual void Stop() = 0;
};

using MakeHubTransport = std::function<std::unique_ptr<HubTransport>()>;

/// The real one: HTTPS, certificates checked against the system's authorities or
/// settings.ca_file. `settings` outlives what is made.
MakeHubTransport HttpsTransports(const HubSettings& settings);

}  // namespace neurogrid
