// Which keys of a config.json are understood, which have no effect, and which are refused.
#pragma once

#include <string>
#include <vector>

#include "common/json.h"
#include "common/status.h"
#include "engine/model/architecture.h"

namespace neurogrid {

/// Refuses keys that change what the model computes in a way that no family here has, by name.
/// A key that is not known is told in `warnings`: the reference ignores it too. Null is absent.
absl::Status CheckConfigKeys(const Json& root, const std::string& file, const Architecture& row,
                             std::vector<std::string>* warnings);

/// The same for the object around a text_config.
absl::Status CheckWrapperKeys(const Json& root, const std::string& file,
                              std::vector<std::string>* warnings);

}  // namespace neurogrid
