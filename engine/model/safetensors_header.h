// The JSON header of a safetensors file, read without building a tree.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/status.h"
#include "common/tensor.h"

namespace neurogrid {

struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::kF32;
  Shape shape;
  uint64_t begin = 0;  // from the end of the header
  uint64_t end = 0;
};

/// A header may have 100 MB and a million entries, for which a JSON tree would take gigabytes: this
/// walks the text once and keeps only the entries. InvalidArgument without the file's name, naming
/// the tensor where there is one. Sizes are compared with dtype and shape; ranges are not.
absl::StatusOr<std::vector<SafetensorsEntry>> ParseSafetensorsHeader(absl::string_view text);

}  // namespace neurogrid
