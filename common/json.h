// JSON as a value: ordered objects, exact 64-bit integers, bounded parsing, compact writing.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/status.h"

namespace neurogrid {

struct JsonMember;

/// A JSON value. Objects keep the order of their keys and never hold a key twice.
class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<JsonMember>;

  // Defined below, where JsonMember is complete.
  Json();
  Json(std::nullptr_t);           // NOLINT: a literal is a value
  Json(bool value);               // NOLINT
  Json(int value);                // NOLINT
  Json(int64_t value);            // NOLINT
  Json(double value);             // NOLINT
  Json(const char* value);        // NOLINT
  Json(absl::string_view value);  // NOLINT
  Json(std::string value);        // NOLINT
  Json(Array value);              // NOLINT
  Json(Object value);             // NOLINT
  Json(const Json& other);
  Json(Json&& other) noexcept;
  Json& operator=(const Json& other);
  Json& operator=(Json&& other) noexcept;
  ~Json();

  bool is_null() const { return std::holds_alternative<std::nullptr_t>(value_); }
  bool is_bool() const { return std::holds_alternative<bool>(value_); }
  bool is_integer() const { return std::holds_alternative<int64_t>(value_); }
  bool is_double() const { return std::holds_alternative<double>(value_); }
  bool is_number() const { return is_integer() || is_double(); }
  bool is_string() const { return std::holds_alternative<std::string>(value_); }
  bool is_array() const { return std::holds_alternative<Array>(value_); }
  bool is_object() const { return std::holds_alternative<Object>(value_); }

  /// Each of these is a programming error on another kind: ask is_...() first.
  bool as_bool() const { return std::get<bool>(value_); }
  int64_t as_integer() const { return std::get<int64_t>(value_); }
  double as_number() const {
    return is_integer() ? static_cast<double>(as_integer()) : std::get<double>(value_);
  }
  const std::string& as_string() const { return std::get<std::string>(value_); }
  const Array& as_array() const { return std::get<Array>(value_); }
  Array& as_array() { return std::get<Array>(value_); }
  const Object& as_object() const { return std::get<Object>(value_); }
  Object& as_object() { return std::get<Object>(value_); }

  /// The value of `key`, or null when this is no object or has no such key. Linear in the keys.
  const Json* Find(absl::string_view key) const;
  Json* Find(absl::string_view key);
  /// Appends or replaces a member of an object.
  Json& Set(absl::string_view key, Json value);

  /// "null", "boolean", "integer", "number", "string", "array" or "object", for error messages.
  absl::string_view kind_name() const;

  /// Deep equality; objects compare without regard to key order; 1 equals 1.0.
  bool operator==(const Json& other) const;

 private:
  std::variant<std::nullptr_t, bool, int64_t, double, std::string, Array, Object> value_;
};

struct JsonMember {
  std::string key;
  Json value;
};

inline Json::Json() : value_(nullptr) {}
inline Json::Json(std::nullptr_t) : value_(nullptr) {}
inline Json::Json(bool value) : value_(value) {}
inline Json::Json(int value) : value_(static_cast<int64_t>(value)) {}
inline Json::Json(int64_t value) : value_(value) {}
inline Json::Json(double value) : value_(value) {}
inline Json::Json(const char* value) : value_(std::string(value)) {}
inline Json::Json(absl::string_view value) : value_(std::string(value)) {}
inline Json::Json(std::string value) : value_(std::move(value)) {}
inline Json::Json(Array value) : value_(std::move(value)) {}
inline Json::Json(Object value) : value_(std::move(value)) {}
inline Json::Json(const Json& other) = default;
inline Json::Json(Json&& other) noexcept = default;
inline Json& Json::operator=(const Json& other) = default;
inline Json& Json::operator=(Json&& other) noexcept = default;
inline Json::~Json() = default;

bool operator==(const JsonMember& a, const JsonMember& b);

struct JsonLimits {
  int depth_max = 64;
  int64_t values_max = 1'000'000;
  int64_t string_bytes_max = int64_t{4} << 20;
  int number_chars_max = 64;
};

/// Limits for model files: tokenizer.json holds millions of values.
inline constexpr JsonLimits kModelFileJsonLimits = {64, 64'000'000, int64_t{64} << 20, 64};

/// Strict RFC 8259 in UTF-8: duplicate keys, lone surrogates, trailing text, numbers beyond double
/// range and breaches of the limits are InvalidArgument saying what and at which byte.
/// Integers beyond int64 become doubles.
absl::StatusOr<Json> ParseJson(absl::string_view text, const JsonLimits& limits = {});

struct JsonStyle {
  absl::string_view item_separator = ",";
  absl::string_view key_separator = ":";
  bool ascii_only = false;
  bool sort_keys = false;
  int indent = -1;  // spaces a level; negative: everything on one line
};

/// Doubles are the shortest text that reads back equal and always show a point or exponent.
/// Strings that are not UTF-8 get U+FFFD for each bad byte.
std::string ToString(const Json& value, const JsonStyle& style = {});

}  // namespace neurogrid
