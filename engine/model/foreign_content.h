// Files that are not what their name says.
#pragma once

#include <cstdint>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace neurogrid {

/// What the first bytes of a file show, as the end of a sentence "it is ..."; empty when they show
/// nothing known. Pickle and zip files are named because loading them could run code: never do.
absl::string_view DescribeForeignContent(absl::Span<const uint8_t> bytes);

}  // namespace neurogrid
