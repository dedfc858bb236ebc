// What a user means by --model: a file, a folder of a model, a folder of models, or a name on a hub
// whose files are in the cache.
#pragma once

#include <string>

#include "common/status.h"

namespace neurogrid {

struct FoundModel {
  std::string path;  // for Checkpoint::Open
  std::string note;  // where it was found, when `text` does not say it; for the log
};

/// Looks at files alone, never at the network. A path that exists wins over a name on the hub.
/// NotFound says everything that was tried; FailedPrecondition: a folder without a model;
/// InvalidArgument lists models of which one must be chosen.
absl::StatusOr<FoundModel> FindModel(const std::string& text, const std::string& hub_cache);

}  // namespace neurogrid
