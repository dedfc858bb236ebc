// Checked access to the fields of a configuration object of JSON.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "common/json.h"
#include "common/status.h"

namespace neurogrid {

/// Reads field after field and keeps the first error, so that a list of reads stays a list. Every
/// message names file, field, found and expected. A field of null is one that is missing.
class ConfigFields {
 public:
  /// `where` opens each message, such as "m/config.json" or "m/config.json: rope_scaling".
  ConfigFields(const Json& object, std::string where) : object_(object), where_(std::move(where)) {}

  /// Null when missing or null.
  const Json* Find(absl::string_view key) const;
  bool Has(absl::string_view key) const { return Find(key) != nullptr; }
  /// There and null, for the few keys where that is not the same as missing.
  bool IsNull(absl::string_view key) const;

  /// In [min, max]. Missing: the fallback, or an error without one.
  int64_t Integer(absl::string_view key, int64_t min, int64_t max, std::optional<int64_t> fallback);
  double Number(absl::string_view key, double min, double max, std::optional<double> fallback);
  bool Bool(absl::string_view key, bool fallback);
  std::string String(absl::string_view key, std::string fallback);

  void Fail(absl::string_view what);
  const absl::Status& status() const { return status_; }

 private:
  void FailKind(absl::string_view key, const Json& found, absl::string_view expected);

  const Json& object_;
  std::string where_;
  absl::Status status_;
};

}  // namespace neurogrid
