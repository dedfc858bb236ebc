// Finds a text in text that arrives in pieces.
#pragma once

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/string_view.h"

namespace neurogrid {

/// Bytes at the end of `text` that may begin `marker`, less than all of it.
inline size_t BytesThatMayBegin(absl::string_view marker, absl::string_view text) {
  size_t most = marker.empty() ? 0 : std::min(marker.size() - 1, text.size());
  while (most > 0 && !absl::EndsWith(text, marker.substr(0, most))) --most;
  return most;
}

}  // namespace neurogrid
