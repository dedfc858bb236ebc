#include "common/tensor.h"

#include "absl/strings/str_cat.h"

namespace neurogrid {

std::string Shape::ToString() const {
  std::string text = "[";
  for (int i = 0; i < rank_; ++i) absl::StrAppend(&text, i ? ", " : "", dimensions_[i]);
  return text + "]";
}

}  // namespace neurogrid
