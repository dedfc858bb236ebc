#include "engine/model/foreign_content.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"

namespace neurogrid {

absl::string_view DescribeForeignContent(absl::Span<const uint8_t> bytes) {
  const absl::string_view start(reinterpret_cast<const char*>(bytes.data()),
                                std::min<size_t>(bytes.size(), 256));
  if (absl::StartsWith(start, "version https://git-lfs")) {
    return "a Git LFS pointer: the repository was cloned without its large files; run git lfs pull";
  }
  if (absl::StartsWith(start, "PK\x03\x04")) return "a zip file, perhaps a PyTorch checkpoint";
  if (start.size() >= 2 && start[0] == '\x80' && start[1] >= 2 && start[1] <= 5) {
    return "a Python pickle, which is never loaded";
  }
  if (absl::StartsWith(start, "GGUF")) return "a GGUF file";
  const absl::string_view text = absl::StripLeadingAsciiWhitespace(start);
  if (absl::StartsWithIgnoreCase(text, "<!doctype") || absl::StartsWithIgnoreCase(text, "<html")) {
    return "an HTML page, perhaps a login or error page saved by a download";
  }
  return "";
}

}  // namespace neurogrid
