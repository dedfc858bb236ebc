#include "engine/model/config_fields.h"

#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

/// The value as a reader finds it in the file, cut where it is long.
std::string Shown(const Json& value) {
  if (value.is_array() || value.is_object()) return std::string(value.kind_name());
  std::string text = ToString(value);
  if (text.size() > 60) text = text.substr(0, 60) + "...";
  return text;
}

}  // namespace

const Json* ConfigFields::Find(absl::string_view key) const {
  const Json* value = object_.Find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

bool ConfigFields::IsNull(absl::string_view key) const {
  const Json* value = object_.Find(key);
  return value != nullptr && value->is_null();
}

void ConfigFields::Fail(absl::string_view what) {
  status_.Update(absl::InvalidArgumentError(absl::StrCat(where_, ": ", what)));
}

void ConfigFields::FailKind(absl::string_view key, const Json& found, absl::string_view expected) {
  Fail(absl::StrCat(key, " is ", Shown(found), " but must be ", expected));
}

int64_t ConfigFields::Integer(absl::string_view key, int64_t min, int64_t max,
                              std::optional<int64_t> fallback) {
  const Json* value = Find(key);
  if (value == nullptr) {
    if (!fallback) Fail(absl::StrCat(key, " is missing"));
    return fallback.value_or(min);
  }
  if (value->is_integer() && value->as_integer() >= min && value->as_integer() <= max) {
    return value->as_integer();
  }
  FailKind(key, *value, absl::StrCat("an integer in [", min, ", ", max, "]"));
  return min;
}

double ConfigFields::Number(absl::string_view key, double min, double max,
                            std::optional<double> fallback) {
  const Json* value = Find(key);
  if (value == nullptr) {
    if (!fallback) Fail(absl::StrCat(key, " is missing"));
    return fallback.value_or(min);
  }
  if (value->is_number() && value->as_number() >= min && value->as_number() <= max) {
    return value->as_number();
  }
  FailKind(key, *value, absl::StrCat("a number in [", min, ", ", max, "]"));
  return min;
}

bool ConfigFields::Bool(absl::string_view key, bool fallback) {
  const Json* value = Find(key);
  if (value == nullptr) return fallback;
  if (value->is_bool()) return value->as_bool();
  FailKind(key, *value, "true or false");
  return fallback;
}

std::string ConfigFields::String(absl::string_view key, std::string fallback) {
  const Json* value = Find(key);
  if (value == nullptr) return fallback;
  if (value->is_string()) return value->as_string();
  FailKind(key, *value, "a string");
  return fallback;
}

}  // namespace neurogrid
