// Checked access to the keys of a GGUF file under one prefix.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "common/status.h"
#include "engine/model/gguf.h"

namespace neurogrid {

/// Reads key after key and keeps the first error, as ConfigFields does for JSON.
class GgufKeys {
 public:
  GgufKeys(const Gguf& gguf, absl::string_view prefix) : gguf_(gguf), prefix_(prefix) {}

  bool Has(absl::string_view key) const {
    return gguf_.Find(absl::StrCat(prefix_, key)) != nullptr;
  }

  int64_t Integer(absl::string_view key, int64_t min, int64_t max,
                  std::optional<int64_t> fallback) {
    return InRange(key, fallback, min, max, gguf_.Integer(absl::StrCat(prefix_, key)));
  }
  double Number(absl::string_view key, double min, double max, std::optional<double> fallback) {
    return InRange(key, fallback, min, max, gguf_.Number(absl::StrCat(prefix_, key)));
  }
  /// An integer, or an array of one for each layer which must all be the same.
  int64_t Uniform(absl::string_view key, int64_t min, int64_t max, std::optional<int64_t> fallback);
  std::string String(absl::string_view key, std::string fallback);

  void Fail(absl::string_view key, absl::string_view what) {
    status_.Update(
        absl::InvalidArgumentError(absl::StrCat(gguf_.path(), ": ", prefix_, key, " ", what)));
  }
  const absl::Status& status() const { return status_; }

 private:
  template <typename T>
  T InRange(absl::string_view key, std::optional<T> fallback, T min, T max,
            const absl::StatusOr<T>& found) {
    if (absl::IsNotFound(found.status()) && fallback) return *fallback;
    if (!found.ok()) {
      status_.Update(found.status());
      return min;
    }
    if (*found >= min && *found <= max) return *found;
    Fail(key, absl::StrCat("is ", *found, " but must be in [", min, ", ", max, "]"));
    return min;
  }

  const Gguf& gguf_;
  std::string prefix_;
  absl::Status status_;
};

}  // namespace neurogrid
