// From what a user calls a model to its files: looks on this machine, then asks the hub.
#pragma once

#include <string>

#include "common/hub_settings.h"
#include "common/status.h"
#include "coordinator/command_line.h"

namespace neurogrid {

/// The path that `model` means (FindModel); a name on the hub that the cache lacks is downloaded.
/// Says on standard error where it was found. Cancelled when a signal ended the download.
absl::StatusOr<std::string> LocateModel(const HubSettings& settings, const std::string& model);

/// The verb download: progress on standard error, the model's path as the one line on standard
/// output.
absl::Status Download(const HubSettings& settings, const DownloadOptions& options);

}  // namespace neurogrid
