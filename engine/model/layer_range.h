// The layers of one stage.
#pragma once

#include <string>

#include "absl/strings/str_cat.h"

namespace neurogrid {

/// Half-open: layers first, first + 1, ..., last - 1.
struct LayerRange {
  int first = 0;
  int last = 0;

  int count() const { return last - first; }
  bool contains(int layer) const { return layer >= first && layer < last; }
  bool operator==(const LayerRange&) const = default;
  std::string ToString() const { return absl::StrCat("[", first, ",", last, ")"); }
};

}  // namespace neurogrid
