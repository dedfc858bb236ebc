// Text whose every byte remembers its origin, on its way through normalising and splitting.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "engine/text/provenance.h"

namespace neurogrid {

/// Bytes [begin, end) of a text.
struct ByteRange {
  uint32_t begin = 0;
  uint32_t end = 0;
  uint32_t size() const { return end - begin; }
  bool operator==(const ByteRange&) const = default;
};

struct MarkedText {
  std::string bytes;
  std::string origins;  // [bytes] each an Origin; a larger one is trusted less

  void Append(absl::string_view text, Origin origin) {
    bytes.append(text.data(), text.size());
    origins.append(text.size(), static_cast<char>(origin));
  }
  void Append(const MarkedText& from, ByteRange range) {
    bytes.append(from.bytes, range.begin, range.size());
    origins.append(from.origins, range.begin, range.size());
  }
  absl::string_view View(ByteRange range) const {
    return absl::string_view(bytes).substr(range.begin, range.size());
  }
  /// The least trusted origin among the bytes of a range that is not empty.
  Origin WorstOrigin(ByteRange range) const {
    return static_cast<Origin>(
        *std::max_element(origins.begin() + range.begin, origins.begin() + range.end));
  }
};

}  // namespace neurogrid
