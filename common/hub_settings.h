// Where models are downloaded from and kept: the variables of the environment that huggingface_hub
// reads too, so that both share one cache.
#pragma once

#include <functional>
#include <string>

#include "common/status.h"

namespace neurogrid {

struct HubSettings {
  std::string endpoint = "https://huggingface.co";  // HF_ENDPOINT
  std::string token;                                // HF_TOKEN; sent to the endpoint alone
  std::string cache;                                // HF_HUB_CACHE: folder of models--ORG--NAME
  std::string ca_file;                              // SSL_CERT_FILE; empty: the system's
  bool offline = false;                             // HF_HUB_OFFLINE
  int stall_timeout_ms = 30'000;                    // HF_HUB_DOWNLOAD_TIMEOUT: silence of a peer
  int retry_delay_ms = 500;  // NEUROGRID_HUB_RETRY_MS: before the second try; doubles
};

/// The value of a variable, or null.
using Environment = std::function<const char*(const char* name)>;

/// Called by main alone. The token comes from HF_TOKEN, else from the file HF_TOKEN_PATH or
/// HF_HOME/token, where the hub's own login stores it. InvalidArgument names the variable.
absl::StatusOr<HubSettings> ReadHubSettings(const Environment& environment);

}  // namespace neurogrid
