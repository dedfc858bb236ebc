// Requests to the hub with its redirects followed and its token kept at home; waits between tries.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "common/hub_settings.h"
#include "coordinator/hub_transport.h"

namespace neurogrid {

/// The endpoint's address: https, or http on loopback. InvalidArgument names HF_ENDPOINT.
absl::StatusOr<Url> ParseEndpoint(const std::string& endpoint);

struct HubAnswer {
  HubHead head;
  Url url;           // that answered, after redirects
  std::string body;  // of an error, at most 64 KiB; else what the caller collected
};

class HubCaller {
 public:
  /// All outlive this.
  HubCaller(const HubSettings& settings, const Url& endpoint, HubTransport& transport)
      : settings_(settings), endpoint_(endpoint), transport_(transport) {}

  /// Sends `request`, whose token is set here: only the endpoint's own origin gets it. Redirects
  /// are followed, at most five; for head_only up to the first that leaves the endpoint, whose own
  /// head describes the file. The callbacks see an answer of 2xx alone.
  absl::StatusOr<HubAnswer> Call(HubRequest request);

  /// A whole answer of at most `bytes_max` bytes. An error is that of ExplainAnswer.
  absl::StatusOr<std::string> Get(const Url& url, int64_t bytes_max, const HubQuestion& question,
                                  int& wait_s);
  absl::StatusOr<HubHead> Head(const Url& url, const HubQuestion& question, int& wait_s);

 private:
  const HubSettings& settings_;
  const Url& endpoint_;
  HubTransport& transport_;
};

inline constexpr int kHubTriesMax = 6;

/// Time before try number `tries` + 1: doubles, and at least what the hub asked for.
int RetryDelayMs(const HubSettings& settings, int tries, int wait_s);

/// Sleeps in small steps; false when `stop` was set meanwhile.
bool SleepUnlessStopped(int milliseconds, const std::atomic<bool>& stop);

/// Runs `attempt` until it gives something else than Unavailable, kHubTriesMax times at most.
/// `attempt` may set the seconds that the hub asks to wait.
absl::Status WithRetries(const HubSettings& settings, const std::atomic<bool>& stop,
                         const std::function<absl::Status(int& wait_s)>& attempt);

}  // namespace neurogrid
