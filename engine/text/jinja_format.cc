// The % operator and str.format of Python: the part of both that templates use.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/text/jinja_ops.h"
#include "engine/text/jinja_string_methods.h"

namespace neurogrid::jinja {
namespace {

constexpr int64_t kPrecisionMax = 300;

/// One conversion, of either notation.
struct Spec {
  std::string fill = " ";
  char align = 0;  // < > ^ = or 0: the type's own
  char sign = '-';
  bool alternate = false;
  bool zeros = false;
  char grouping = 0;
  int64_t width = 0;
  int64_t precision = -1;
  char type = 0;
};

absl::Status BadSpec(absl::string_view spec) {
  return absl::InvalidArgumentError(
      absl::StrCat("the format '", spec.substr(0, 100), "' is not supported in chat templates"));
}

std::string WithGroups(std::string digits, char separator, int every) {
  const size_t whole = std::min(digits.find_first_not_of("0123456789abcdefABCDEF"), digits.size());
  for (size_t place = whole; place > static_cast<size_t>(every);) {
    place -= static_cast<size_t>(every);
    digits.insert(place, 1, separator);
  }
  return digits;
}

std::string InBase(uint64_t value, unsigned base, bool capitals) {
  std::string digits;
  do {
    digits.insert(digits.begin(), "0123456789abcdef"[value % base]);
    value /= base;
  } while (value != 0);
  if (capitals) absl::AsciiStrToUpper(&digits);
  return digits;
}

/// printf of one double; precision and type are ours, so the format is no input.
std::string PrintDouble(double value, int64_t precision, char type, bool alternate) {
  const char format[] = {'%', '.', '*', type, '\0'};
  const char with_point[] = {'%', '#', '.', '*', type, '\0'};
  char buffer[1024];
  const int length = std::snprintf(buffer, sizeof buffer, alternate ? with_point : format,
                                   static_cast<int>(precision), value);
  return std::string(buffer, static_cast<size_t>(length));
}

/// Sign, then zeros or grouping as asked, then digits.
std::string Assemble(const Spec& spec, bool negative, const std::string& prefix,
                     std::string digits) {
  std::string head = negative ? "-" : spec.sign == '+' ? "+" : spec.sign == ' ' ? " " : "";
  head += prefix;
  const auto length = static_cast<int64_t>(head.size() + digits.size());
  const bool fill_inside = spec.zeros || spec.align == '=';
  if (fill_inside && length < spec.width) {
    const std::string fill = spec.zeros ? "0" : spec.fill;
    std::string padding;
    for (int64_t i = length; i < spec.width; ++i) padding += fill;
    digits = padding + digits;
  }
  return head + digits;
}

absl::StatusOr<std::string> FormatInteger(const Spec& spec, int64_t value) {
  const bool negative = value < 0;
  const uint64_t size = negative ? ~static_cast<uint64_t>(value) + 1 : static_cast<uint64_t>(value);
  std::string prefix;
  std::string digits;
  switch (spec.type) {
    case 'x':
    case 'X':
      if (spec.alternate) prefix = spec.type == 'x' ? "0x" : "0X";
      digits = InBase(size, 16, spec.type == 'X');
      break;
    case 'o':
      if (spec.alternate) prefix = "0o";
      digits = InBase(size, 8, false);
      break;
    case 'b':
      if (spec.alternate) prefix = "0b";
      digits = InBase(size, 2, false);
      break;
    default:
      digits = absl::StrCat(size);
  }
  // Only % has a precision for integers: the least number of digits.
  while (static_cast<int64_t>(digits.size()) < spec.precision) digits.insert(0, 1, '0');
  if (spec.grouping != 0) digits = WithGroups(std::move(digits), spec.grouping, 3);
  return Assemble(spec, negative, prefix, std::move(digits));
}

absl::StatusOr<std::string> FormatDouble(const Spec& spec, double value) {
  const bool negative = std::signbit(value) && !std::isnan(value);
  const double size = std::abs(value);
  const bool percent = spec.type == '%';
  const char type = percent ? 'f' : spec.type == 'F' ? 'f' : spec.type;
  std::string digits;
  if (!std::isfinite(value)) {
    digits = std::isnan(value) ? "nan" : "inf";
    if (absl::ascii_isupper(static_cast<unsigned char>(spec.type))) {
      absl::AsciiStrToUpper(&digits);
    }
  } else if (type == 0) {
    digits = FloatRepr(size);
  } else {
    digits = PrintDouble(percent ? size * 100 : size, spec.precision < 0 ? 6 : spec.precision, type,
                         spec.alternate);
  }
  if (spec.grouping != 0) {
    const size_t point = std::min(digits.find_first_of(".e"), digits.size());
    digits = WithGroups(digits.substr(0, point), spec.grouping, 3) + digits.substr(point);
  }
  if (percent) digits += '%';
  return Assemble(spec, negative, "", std::move(digits));
}

bool IsFloatType(char type) {
  return absl::string_view("eEfFgG%").find(type) != absl::string_view::npos;
}

absl::StatusOr<std::string> FormatNumber(Runtime& runtime, const Spec& spec, const Value& value) {
  NG_RETURN_IF_ERROR(runtime.Reserve(static_cast<double>(spec.width) * 4));
  if (value.is_float() || (spec.type != 0 && IsFloatType(spec.type))) {
    return FormatDouble(spec, value.number());
  }
  return FormatInteger(spec, value.integer());
}

absl::StatusOr<Text> Padded(Runtime& runtime, const Spec& spec, Text text, char align) {
  if (spec.align != 0 && spec.align != '=') align = spec.align;
  NG_ASSIGN_OR_RETURN(const Value inner, runtime.NewString(std::move(text)));
  const Align how = align == '^' ? Align::kCenter : align == '>' ? Align::kRight : Align::kLeft;
  if (how == Align::kCenter) {
    // format() puts the odd space right of the text, where str.center may not.
    NG_ASSIGN_OR_RETURN(const int64_t length, Length(runtime, inner));
    const int64_t left = std::max<int64_t>(spec.width - length, 0) / 2;
    NG_ASSIGN_OR_RETURN(const Value half,
                        StringPad(runtime, inner, length + left, Text(spec.fill, Origin::kTemplate),
                                  Align::kRight));
    NG_ASSIGN_OR_RETURN(
        const Value whole,
        StringPad(runtime, half, spec.width, Text(spec.fill, Origin::kTemplate), Align::kLeft));
    return whole.text();
  }
  NG_ASSIGN_OR_RETURN(const Value padded, StringPad(runtime, inner, spec.width,
                                                    Text(spec.fill, Origin::kTemplate), how));
  return padded.text();
}

Text Truncated(const Text& text, int64_t code_points) {
  if (code_points < 0) return text;
  return text.Slice(0, OffsetOf(text.bytes(), code_points));
}

/// Reads digits at `place`; -1 when there are none. Larger numbers than any memory are cut off.
int64_t ReadNumber(absl::string_view text, size_t& place) {
  int64_t number = -1;
  while (place < text.size() && absl::ascii_isdigit(static_cast<unsigned char>(text[place]))) {
    number = std::min<int64_t>(std::max<int64_t>(number, 0) * 10 + (text[place++] - '0'),
                               int64_t{1} << 40);
  }
  return number;
}

class PercentFormatter {
 public:
  PercentFormatter(Runtime& runtime, const Value& format, const Value& values)
      : runtime_(runtime), format_(format), values_(values) {}

  absl::StatusOr<Value> Run() {
    const std::string& bytes = format_.bytes();
    for (size_t i = 0; i < bytes.size();) {
      const size_t percent = std::min(bytes.find('%', i), bytes.size());
      out_.Append(format_.text(), i, percent);
      i = percent;
      if (i == bytes.size()) break;
      NG_RETURN_IF_ERROR(Conversion(++i));
    }
    // Python asks whether the value can be subscripted, and takes it for a mapping then.
    const bool mapping = values_.is_dict() || values_.is_list() || values_.is_undefined() ||
                         (values_.is_object() && values_.object().is_sequence());
    const size_t given = values_.is_tuple() ? values_.items().size() : 1;
    if (!mapping && !named_ && next_ < given) {
      return TypeError("not all arguments converted during string formatting");
    }
    return runtime_.NewString(std::move(out_));
  }

 private:
  absl::StatusOr<Value> NextValue() {
    if (!values_.is_tuple() && next_ == 0) {
      ++next_;
      return values_;
    }
    if (!values_.is_tuple() || next_ == values_.items().size()) {
      return TypeError("not enough arguments for format string");
    }
    return values_.items()[next_++];
  }

  /// `i` is behind the percent sign, and then behind the conversion.
  absl::Status Conversion(size_t& i) {
    const std::string& bytes = format_.bytes();
    std::optional<Value> named;
    if (i < bytes.size() && bytes[i] == '(') {
      const size_t close = bytes.find(')', i);
      if (close == std::string::npos) return TypeError("incomplete format key");
      if (!values_.is_dict()) return TypeError("format requires a mapping");
      const Value* const found =
          values_.dict().Get(absl::string_view(bytes).substr(i + 1, close - i - 1));
      if (found == nullptr) return absl::InvalidArgumentError("format key is not in the mapping");
      named = *found;
      named_ = true;
      i = close + 1;
    }
    Spec spec;
    bool left = false;
    for (; i < bytes.size(); ++i) {
      if (bytes[i] == '-') {
        left = true;
      } else if (bytes[i] == '+' || (bytes[i] == ' ' && spec.sign != '+')) {
        spec.sign = bytes[i];
      } else if (bytes[i] == '#') {
        spec.alternate = true;
      } else if (bytes[i] == '0') {
        spec.zeros = true;
      } else if (bytes[i] != ' ') {
        break;
      }
    }
    if (left) spec.zeros = false;
    spec.align = left ? '<' : '>';
    spec.width = std::max<int64_t>(ReadNumber(bytes, i), 0);
    if (i < bytes.size() && bytes[i] == '.') {
      spec.precision = std::max<int64_t>(ReadNumber(bytes, ++i), 0);
    }
    while (i < bytes.size() && (bytes[i] == 'h' || bytes[i] == 'l' || bytes[i] == 'L')) ++i;
    if (i == bytes.size()) return absl::InvalidArgumentError("incomplete format");
    spec.type = bytes[i++];
    return Put(spec, named);
  }

  absl::Status Put(Spec spec, const std::optional<Value>& named) {
    if (spec.type == '%') {
      out_.Append("%", Origin::kTemplate);
      return absl::OkStatus();
    }
    Value value;
    if (named.has_value()) {
      value = *named;
    } else {
      NG_ASSIGN_OR_RETURN(value, NextValue());
    }
    Text text;
    if (spec.type == 's' || spec.type == 'r') {
      spec.zeros = false;
      NG_ASSIGN_OR_RETURN(const Text whole,
                          spec.type == 's' ? ToText(runtime_, value) : ToRepr(runtime_, value));
      text = Truncated(whole, spec.precision);
    } else {
      NG_ASSIGN_OR_RETURN(text, Number(spec, value));
    }
    NG_ASSIGN_OR_RETURN(const Text padded, Padded(runtime_, spec, std::move(text), '>'));
    out_.Append(padded);
    return runtime_.Reserve(static_cast<double>(out_.size()));
  }

  absl::StatusOr<Text> Number(Spec spec, const Value& value) {
    static constexpr absl::string_view kTypes = "diuoxXeEfFgG";
    if (kTypes.find(spec.type) == absl::string_view::npos || spec.precision > kPrecisionMax) {
      return BadSpec(absl::StrCat("%", std::string(1, spec.type)));
    }
    if (value.is_undefined()) return UndefinedError(value);
    const bool whole = !IsFloatType(spec.type);
    if (!value.is_number() ||
        (whole && value.is_float() && spec.type != 'd' && spec.type != 'i' && spec.type != 'u')) {
      return TypeError(absl::StrCat("%", std::string(1, spec.type),
                                    " format: a number is required, not ", value.type_name()));
    }
    Value number = value;
    if (whole && value.is_float()) {
      if (!(std::abs(value.number()) < 9e18)) return TypeError("cannot convert float to integer");
      number = Value::Int(static_cast<int64_t>(value.number()));
    }
    NG_ASSIGN_OR_RETURN(const std::string digits, FormatNumber(runtime_, spec, number));
    return Text(digits, Origin::kTemplate);
  }

  Runtime& runtime_;
  const Value& format_;
  const Value& values_;
  Text out_;
  size_t next_ = 0;
  bool named_ = false;
};

/// "[[fill]align][sign][#][0][width][grouping][.precision][type]"
absl::StatusOr<Spec> ParseSpec(absl::string_view text) {
  Spec spec;
  size_t i = 0;
  const auto is_align = [&](size_t place) {
    return place < text.size() &&
           absl::string_view("<>^=").find(text[place]) != absl::string_view::npos;
  };
  const size_t first = text.empty() ? 0 : static_cast<size_t>(DecodeAt(text, 0).length);
  if (is_align(first)) {
    spec.fill = std::string(text.substr(0, first));
    spec.align = text[first];
    i = first + 1;
  } else if (is_align(0)) {
    spec.align = text[0];
    i = 1;
  }
  const auto take = [&](absl::string_view any) {
    if (i == text.size() || any.find(text[i]) == absl::string_view::npos) return '\0';
    return text[i++];
  };
  if (const char sign = take("+- ")) spec.sign = sign;
  spec.alternate = take("#") != '\0';
  if (take("0") != '\0') spec.zeros = spec.align == 0;
  spec.width = std::max<int64_t>(ReadNumber(text, i), 0);
  spec.grouping = take(",_");
  if (take(".") != '\0') {
    spec.precision = ReadNumber(text, i);
    if (spec.precision < 0) return absl::InvalidArgumentError("Format specifier missing precision");
  }
  spec.type = take("sdboxXeEfFgG%");
  if (i != text.size()) return BadSpec(text);
  return spec;
}

absl::StatusOr<Text> FormatValue(Runtime& runtime, const Value& value, absl::string_view text) {
  if (text.empty()) return ToText(runtime, value);
  NG_ASSIGN_OR_RETURN(const Spec spec, ParseSpec(text));
  if (value.is_string()) {
    if ((spec.type != 0 && spec.type != 's') || spec.align == '=' || spec.grouping != 0) {
      return BadSpec(text);
    }
    return Padded(runtime, spec, Truncated(value.text(), spec.precision), '<');
  }
  if (!value.is_number()) {
    return TypeError(
        absl::StrCat("unsupported format string passed to ", value.type_name(), ".__format__"));
  }
  const bool floating = value.is_float() || (spec.type != 0 && IsFloatType(spec.type));
  const bool refused = spec.type == 's' || spec.precision > kPrecisionMax ||
                       (value.is_float() && spec.type != 0 && !IsFloatType(spec.type)) ||
                       (spec.precision >= 0 && (!floating || spec.type == 0)) ||
                       (spec.grouping != 0 && spec.zeros) ||
                       (spec.grouping != 0 && spec.type != 0 && spec.type != 'd' && !floating);
  if (refused) return BadSpec(text);
  NG_ASSIGN_OR_RETURN(const std::string digits, FormatNumber(runtime, spec, value));
  return Padded(runtime, spec, Text(digits, Origin::kTemplate), '>');
}

class BraceFormatter {
 public:
  BraceFormatter(Runtime& runtime, const Value& format, const Arguments& arguments)
      : runtime_(runtime), format_(format), arguments_(arguments) {}

  absl::StatusOr<Value> Run() {
    const std::string& bytes = format_.bytes();
    for (size_t i = 0; i < bytes.size();) {
      const size_t brace = std::min(bytes.find_first_of("{}", i), bytes.size());
      out_.Append(format_.text(), i, brace);
      i = brace;
      if (i == bytes.size()) break;
      if (i + 1 < bytes.size() && bytes[i + 1] == bytes[i]) {
        out_.Append(format_.text(), i, i + 1);
        i += 2;
        continue;
      }
      const size_t close = bytes.find_first_of("{}", i + 1);
      if (bytes[i] == '}' || close == std::string::npos) {
        return absl::InvalidArgumentError("Single brace encountered in format string");
      }
      if (bytes[close] == '{') return BadSpec(bytes.substr(i));
      NG_RETURN_IF_ERROR(Field(absl::string_view(bytes).substr(i + 1, close - i - 1)));
      i = close + 1;
    }
    return runtime_.NewString(std::move(out_));
  }

 private:
  absl::Status Field(absl::string_view field) {
    const size_t colon = std::min(field.find(':'), field.size());
    absl::string_view name = field.substr(0, colon);
    const absl::string_view spec = colon == field.size() ? "" : field.substr(colon + 1);
    char conversion = 0;
    if (name.size() >= 2 && name[name.size() - 2] == '!') {
      conversion = name[name.size() - 1];
      name.remove_suffix(2);
    }
    if (name.find_first_of(".[!") != absl::string_view::npos) return BadSpec(field);
    NG_ASSIGN_OR_RETURN(Value value, Named(name));
    if (conversion == 'r') {
      NG_ASSIGN_OR_RETURN(Text repr, ToRepr(runtime_, value));
      NG_ASSIGN_OR_RETURN(value, runtime_.NewString(std::move(repr)));
    } else if (conversion == 's') {
      NG_ASSIGN_OR_RETURN(value, ToStringValue(runtime_, value));
    } else if (conversion != 0) {
      return BadSpec(field);
    }
    NG_ASSIGN_OR_RETURN(const Text text, FormatValue(runtime_, value, spec));
    out_.Append(text);
    return runtime_.Reserve(static_cast<double>(out_.size()));
  }

  absl::StatusOr<Value> Named(absl::string_view name) {
    int64_t index = 0;
    const bool numbered = !name.empty() && absl::SimpleAtoi(name, &index);
    if (name.empty() || numbered) {
      if (numbered_ != (numbered ? 1 : 2) && numbered_ != 0) {
        return absl::InvalidArgumentError(
            "cannot switch between manual field specification and automatic field numbering");
      }
      numbered_ = numbered ? 1 : 2;
      const int64_t place = numbered ? index : next_++;
      if (place < 0 || place >= static_cast<int64_t>(arguments_.positional.size())) {
        return absl::InvalidArgumentError(
            absl::StrCat("Replacement index ", place, " out of range for positional args tuple"));
      }
      return arguments_.positional[static_cast<size_t>(place)];
    }
    for (const Arguments::Keyword& keyword : arguments_.keyword) {
      if (keyword.name.bytes() == name) return keyword.value;
    }
    return absl::InvalidArgumentError(absl::StrCat("format field '", name, "' is not given"));
  }

  Runtime& runtime_;
  const Value& format_;
  const Arguments& arguments_;
  Text out_;
  int numbered_ = 0;  // 1: {0}, 2: {}
  int64_t next_ = 0;
};

}  // namespace

absl::StatusOr<Value> FormatPercent(Runtime& runtime, const Value& format, const Value& values) {
  return PercentFormatter(runtime, format, values).Run();
}

absl::StatusOr<Value> FormatBraces(Runtime& runtime, const Value& format,
                                   const Arguments& arguments) {
  return BraceFormatter(runtime, format, arguments).Run();
}

}  // namespace neurogrid::jinja
