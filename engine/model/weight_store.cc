#include "engine/model/weight_store.h"

#include "absl/strings/str_cat.h"

namespace neurogrid {

absl::StatusOr<WeightStore::Entry> WeightStore::Find(absl::string_view name,
                                                     const Shape& shape) const {
  const auto found = entries_.find(name);
  if (found == entries_.end()) {
    return absl::NotFoundError(
        absl::StrCat(source_, ": ", name, " is missing; the config implies ", shape.ToString()));
  }
  const Entry& entry = found->second;
  if (entry.tensor.shape == shape) return entry;
  return absl::InvalidArgumentError(absl::StrCat(entry.file, ": ", name, " is ",
                                                 entry.tensor.shape.ToString(),
                                                 " but the config implies ", shape.ToString()));
}

}  // namespace neurogrid
