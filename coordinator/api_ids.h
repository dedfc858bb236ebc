// Ids that clients see.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace neurogrid {

/// `prefix` and 24 random alphanumerics.
std::string NewId(absl::string_view prefix);
/// From the operating system's generator.
uint64_t RandomBits();

}  // namespace neurogrid
