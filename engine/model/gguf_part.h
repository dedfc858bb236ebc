// Names of the files of a GGUF model in parts.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace neurogrid {

/// "model-00002-of-00003.gguf", with or without a folder: one file of a model in several.
struct GgufPart {
  std::string stem;  // "model"
  int part = 0;      // from 1 to count
  int count = 0;
  /// The name of another part of the same model.
  std::string Name(int other) const;
};
/// Nothing when the name is not that of a part.
std::optional<GgufPart> ParseGgufPart(absl::string_view name);

}  // namespace neurogrid
