// YAML as a plain tree in which every node knows its line and column. Bounded; no aliases, no tags.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/status.h"

namespace neurogrid {

struct YamlNode {
  enum class Kind { kNull, kScalar, kSequence, kMap };
  Kind kind = Kind::kNull;
  int line = 0;    // from 1; 0: a flag's value, which has no line
  int column = 0;  // from 1
  std::string scalar;
  std::vector<YamlNode> items;  // of a sequence; of a map: key, value, key, value, ...

  /// "cluster.yaml:3:5", the way compilers name a place.
  std::string At(absl::string_view file) const;
};

/// One document of at most 1 MiB, 16 levels and 10,000 nodes. Aliases, anchors, tags, duplicate
/// keys, tabs in indentation and a second document are InvalidArgument with `file`, line and
/// column.
absl::StatusOr<YamlNode> ParseYaml(absl::string_view text, absl::string_view file);

}  // namespace neurogrid
