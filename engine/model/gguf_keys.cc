#include "engine/model/gguf_keys.h"

#include <algorithm>

namespace neurogrid {

int64_t GgufKeys::Uniform(absl::string_view key, int64_t min, int64_t max,
                          std::optional<int64_t> fallback) {
  const auto list = gguf_.Integers(absl::StrCat(prefix_, key));
  if (!list.ok()) return Integer(key, min, max, fallback);
  const std::vector<int64_t>& values = **list;
  const bool equal =
      !values.empty() && std::equal(values.begin() + 1, values.end(), values.begin());
  if (!equal) {
    Fail(key, "differs between layers, which this architecture does not support");
    return min;
  }
  return InRange<int64_t>(key, std::nullopt, min, max, values[0]);
}

std::string GgufKeys::String(absl::string_view key, std::string fallback) {
  absl::StatusOr<std::string> found = gguf_.String(absl::StrCat(prefix_, key));
  if (absl::IsNotFound(found.status())) return fallback;
  status_.Update(found.status());
  return found.ok() ? *std::move(found) : fallback;
}

}  // namespace neurogrid
