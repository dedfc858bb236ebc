// Filters over numbers: abs, float, int, round.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "engine/text/jinja_filters.h"

namespace neurogrid::jinja {
namespace {

absl::Status Overflow() {
  return absl::InvalidArgumentError(
      "integer beyond 64 bits, which chat templates may not use here");
}

absl::string_view Stripped(absl::string_view text) {
  const ByteRange kept = Strip(text, nullptr, true, true);
  return text.substr(kept.first, kept.second - kept.first);
}

/// Takes out the underscores Python allows between digits; nothing when one stands elsewhere.
std::optional<std::string> WithoutUnderscores(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '_') {
      out += text[i];
      continue;
    }
    const auto digit = [&](size_t place) {
      return place < text.size() && absl::ascii_isalnum(static_cast<unsigned char>(text[place]));
    };
    if (i == 0 || !digit(i - 1) || !digit(i + 1)) return std::nullopt;
  }
  return out;
}

/// float(text) of Python.
std::optional<double> ParseFloat(absl::string_view text) {
  const std::optional<std::string> plain = WithoutUnderscores(Stripped(text));
  double value = 0;
  if (!plain.has_value() || !absl::SimpleAtod(*plain, &value)) return std::nullopt;
  return value;
}

struct ParsedInteger {
  bool valid = false;
  bool overflow = false;
  int64_t value = 0;
};

/// int(text, base) of Python.
ParsedInteger ParseInteger(absl::string_view text, int64_t base) {
  std::optional<std::string> plain = WithoutUnderscores(Stripped(text));
  if (!plain.has_value()) return {};
  absl::string_view digits = *plain;
  const bool negative = absl::ConsumePrefix(&digits, "-");
  if (!negative) absl::ConsumePrefix(&digits, "+");
  const std::string head = absl::AsciiStrToLower(digits.substr(0, 2));
  const int64_t named = head == "0x" ? 16 : head == "0o" ? 8 : head == "0b" ? 2 : 0;
  if (named != 0 && (base == named || base == 0)) {
    digits.remove_prefix(2);
    base = named;
  } else if (base == 0) {
    base = 10;
  }
  if (digits.empty()) return {};
  ParsedInteger parsed{true, false, 0};
  for (const char c : digits) {
    const auto byte = static_cast<unsigned char>(c);
    const int64_t digit = absl::ascii_isdigit(byte)   ? c - '0'
                          : absl::ascii_isalpha(byte) ? absl::ascii_tolower(byte) - 'a' + 10
                                                      : 99;
    if (digit >= base) return {};
    if (__builtin_mul_overflow(parsed.value, base, &parsed.value) ||
        __builtin_sub_overflow(parsed.value, digit, &parsed.value)) {
      parsed.overflow =
          true;  // The value is built as a negative number: its range is larger by one.
      parsed.value = 0;
    }
  }
  if (!negative && __builtin_sub_overflow(int64_t{0}, parsed.value, &parsed.value)) {
    parsed.overflow = true;
  }
  return parsed;
}

absl::StatusOr<Value> Truncated(double value) {
  if (!(std::abs(value) < 9.2e18)) return Overflow();
  return Value::Int(static_cast<int64_t>(value));
}

}  // namespace

absl::StatusOr<Value> FilterAbs(Runtime&, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("abs", arguments, {"/x"}, 1));
  const Value& value = *bound[0];
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_float()) return Value::Float(std::abs(value.number()));
  if (!value.is_integral()) {
    return TypeError(absl::StrCat("bad operand type for abs(): '", value.type_name(), "'"));
  }
  return value.integer() < 0 ? Negate(value) : Value::Int(value.integer());
}

absl::StatusOr<Value> FilterFloat(Runtime&, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("float", arguments, {"value", "default"}, 1));
  const Value& value = *bound[0];
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_number()) return Value::Float(value.number());
  if (value.is_string()) {
    if (const std::optional<double> parsed = ParseFloat(value.bytes())) {
      return Value::Float(*parsed);
    }
  }
  return bound[1] == nullptr ? Value::Float(0) : *bound[1];
}

absl::StatusOr<Value> FilterInt(Runtime&, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("int", arguments, {"value", "default", "base"}, 1));
  NG_ASSIGN_OR_RETURN(const int64_t base, IntegerArgument(bound[2], 10));
  const Value otherwise = bound[1] == nullptr ? Value::Int(0) : *bound[1];
  const Value& value = *bound[0];
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_integral()) return Value::Int(value.integer());
  double number = 0;
  if (value.is_string()) {
    const bool known_base = base == 0 || (base >= 2 && base <= 36);
    const ParsedInteger parsed = known_base ? ParseInteger(value.bytes(), base) : ParsedInteger{};
    if (parsed.overflow) return Overflow();
    if (parsed.valid) return Value::Int(parsed.value);
    const std::optional<double> floating = ParseFloat(value.bytes());
    if (!floating.has_value() || !std::isfinite(*floating)) return otherwise;
    number = *floating;
  } else if (value.is_float()) {
    number = value.number();
    if (std::isnan(number)) return otherwise;
    if (std::isinf(number)) {
      return absl::InvalidArgumentError("cannot convert float infinity to integer");
    }
  } else {
    return otherwise;
  }
  return Truncated(number);
}

absl::StatusOr<Value> FilterRound(Runtime&, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("round", arguments, {"value", "precision", "method"}, 1));
  NG_ASSIGN_OR_RETURN(const int64_t precision, IntegerArgument(bound[1], 0));
  const std::string method = bound[2] == nullptr     ? "common"
                             : bound[2]->is_string() ? bound[2]->bytes()
                                                     : "";
  if (method != "common" && method != "ceil" && method != "floor") {
    return absl::InvalidArgumentError("method must be common, ceil or floor");
  }
  const Value& value = *bound[0];
  if (!value.is_number()) {
    return TypeError(absl::StrCat("type ", value.type_name(), " doesn't define __round__ method"));
  }
  if (precision < -300 || precision > 300) {
    return absl::InvalidArgumentError("round() to that many digits is not supported");
  }
  const double scale = std::pow(10.0, static_cast<double>(precision));
  if (method != "common") {
    const double scaled = value.number() * scale;
    if (!std::isfinite(scaled)) {
      return absl::InvalidArgumentError("cannot convert float infinity or NaN to integer");
    }
    // math.ceil and math.floor give integers, which have no negative zero.
    return Value::Float((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / scale + 0.0);
  }
  if (value.is_integral() && precision >= 0) return Value::Int(value.integer());
  if (!std::isfinite(value.number())) return value;
  if (precision < 0) {
    const double rounded = std::nearbyint(value.number() / (1 / scale)) * (1 / scale);
    return value.is_float() ? absl::StatusOr<Value>(Value::Float(rounded)) : Truncated(rounded);
  }
  // printf rounds the exact binary value half to even, as Python does.
  char digits[700];
  const int length =
      std::snprintf(digits, sizeof digits, "%.*f", static_cast<int>(precision), value.number());
  double rounded = 0;
  if (!absl::SimpleAtod(absl::string_view(digits, static_cast<size_t>(length)), &rounded)) {
    return absl::InvalidArgumentError("round() failed");
  }
  return Value::Float(rounded);
}

}  // namespace neurogrid::jinja
