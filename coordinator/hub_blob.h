// Brings one file of the hub into the cache: parallel ranges, tries, digest.
#pragma once

#include <atomic>
#include <functional>
#include <string>

#include "common/hub_settings.h"
#include "coordinator/hub_caller.h"
#include "coordinator/hub_progress.h"
#include "coordinator/hub_protocol.h"

namespace neurogrid {

/// What all files of a download share. Everything outlives it.
struct HubJob {
  const HubSettings& settings;
  const Url& endpoint;
  const HubName& name;
  const MakeHubTransport& transports;
  DownloadProgress& progress;
  const std::atomic<bool>& stop;
};

/// Address of a file at a commit.
Url FileUrl(const HubJob& job, const std::string& commit, const std::string& file);

/// Leaves the bytes of `file` (size and digest known) at `blob`, checked. What arrived before an
/// error or a stop stays beside it for the next time. Cancelled when `job.stop` was set; DataLoss
/// for a wrong length or digest; ResourceExhausted for a full disk.
absl::Status DownloadBlob(const HubJob& job, const std::string& commit, const HubFile& file,
                          const std::string& blob);

}  // namespace neurogrid
