#include "engine/model/gguf_part.h"

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"

namespace neurogrid {

std::string GgufPart::Name(int other) const {
  return absl::StrFormat("%s-%05d-of-%05d.gguf", stem, other, count);
}

std::optional<GgufPart> ParseGgufPart(absl::string_view name) {
  constexpr size_t kTail = sizeof("-00001-of-00002.gguf") - 1;
  if (name.size() <= kTail || !absl::EndsWith(name, ".gguf")) return std::nullopt;
  const absl::string_view tail = name.substr(name.size() - kTail);
  GgufPart part;
  part.stem = std::string(name.substr(0, name.size() - kTail));
  if (tail[0] != '-' || tail.substr(6, 4) != "-of-" ||
      !absl::SimpleAtoi(tail.substr(1, 5), &part.part) ||
      !absl::SimpleAtoi(tail.substr(10, 5), &part.count) || part.part < 1 ||
      part.part > part.count || part.Name(part.part) != name) {
    return std::nullopt;
  }
  return part;
}

}  // namespace neurogrid
