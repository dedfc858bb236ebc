// The JSON header of a safetensors file, read without building a tree.
#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/status.h"
#include "common/tensor.h"

namespace neurogrid {

struct SafetensorsEntry {
  absl::string_view name;  // into the header's text, or into SafetensorsHeader::unescaped
  DType dtype = DType::kF32;
  Shape shape;
  uint64_t begin = 0;  // from the end of the header
  uint64_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;
  std::deque<std::string> unescaped;  // strings that the text spells with escapes
};

/// A header may have 100 MB and a million entries, for which a JSON tree would take gigabytes: this
/// walks the text once and keeps only the entries. InvalidArgument without the file's name, naming
/// the tensor where there is one. Sizes are compared with dtype and shape; ranges are not. The
/// views in the result last as long as `text` and the result.
absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view text);

}  // namespace neurogrid
