// A model from a hub into the cache that all tools of this machine share.
#pragma once

#include <atomic>
#include <string>

#include "common/hub_settings.h"
#include "coordinator/hub_progress.h"
#include "coordinator/hub_transport.h"

namespace neurogrid {

struct HubDownload {
  std::string path;  // of the model: a snapshot folder or a .gguf file in one
  int files = 0;
  int64_t bytes = 0;             // of all its files
  int64_t bytes_downloaded = 0;  // now
};

/// Asks the hub for the revision and brings what the model needs and the cache lacks. Offline, or
/// when the hub cannot be reached, the cache alone answers. Cancelled when `stop` was set: what
/// arrived is kept and the next call goes on.
absl::StatusOr<HubDownload> DownloadModel(const HubSettings& settings, const HubName& name,
                                          const MakeHubTransport& transports,
                                          DownloadProgress& progress,
                                          const std::atomic<bool>& stop);

}  // namespace neurogrid
