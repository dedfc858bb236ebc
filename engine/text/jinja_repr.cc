// str() and repr() of template values, and HTML escaping, with the origin of what they print.
#include <algorithm>
#include <charconv>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/text/jinja_ops.h"
#include "engine/text/jinja_unicode.h"

namespace neurogrid::jinja {
namespace {

/// repr() is recursive over containers; what they nest is bounded, but for namespaces.
constexpr int kReprDepthMax = 200;

std::string EscapedCode(int32_t code) {
  if (code == '\n') return "\\n";
  if (code == '\r') return "\\r";
  if (code == '\t') return "\\t";
  if (code < 0x100) return absl::StrFormat("\\x%02x", code);
  if (code < 0x10000) return absl::StrFormat("\\u%04x", code);
  return absl::StrFormat("\\U%08x", code);
}

Text StringRepr(const Text& text) {
  const std::string& bytes = text.bytes();
  const bool single = bytes.find('\'') != std::string::npos;
  const bool both = single && bytes.find('"') != std::string::npos;
  const char quote = single && !both ? '"' : '\'';
  const Origin outside = text.LeastTrusted();
  Text out(absl::string_view(&quote, 1), outside);
  for (size_t i = 0; i < bytes.size();) {
    const CodePoint point = DecodeAt(bytes, i);
    const size_t next = i + static_cast<size_t>(point.length);
    if (point.code == quote || point.code == '\\') {
      out.Append("\\", text.OriginAt(i));
      out.Append(text, i, next);
    } else if (!IsPrintable(point.code)) {
      out.Append(EscapedCode(point.code), text.OriginAt(i));
    } else {
      out.Append(text, i, next);
    }
    i = next;
  }
  out.Append(absl::string_view(&quote, 1), outside);
  return out;
}

class ReprWriter {
 public:
  ReprWriter(Runtime& runtime, Origin structure) : runtime_(runtime), structure_(structure) {}

  absl::Status Write(const Value& value) {
    NG_RETURN_IF_ERROR(runtime_.Charge());
    switch (value.kind()) {
      case Value::Kind::kUndefined:
        return Put("Undefined");
      case Value::Kind::kNone:
        return Put("None");
      case Value::Kind::kBool:
        return Put(value.integer() != 0 ? "True" : "False");
      case Value::Kind::kInt:
        return Put(absl::StrCat(value.integer()));
      case Value::Kind::kFloat:
        return Put(FloatRepr(value.number()));
      case Value::Kind::kString:
        NG_RETURN_IF_ERROR(runtime_.ChargeBytes(value.bytes().size()));
        if (value.str().markup) NG_RETURN_IF_ERROR(Put("Markup("));
        out_.Append(StringRepr(value.text()));
        return Put(value.str().markup ? ")" : "");
      case Value::Kind::kList:
        return WriteItems(value.items(), "[", "]");
      case Value::Kind::kTuple:
        return WriteItems(value.items(), "(", value.items().size() == 1 ? ",)" : ")");
      case Value::Kind::kDict:
        return WriteDict(value.dict());
      case Value::Kind::kObject:
        return WriteObject(value.object());
    }
    return absl::OkStatus();
  }

  Text Take() { return std::move(out_); }

 private:
  absl::Status Put(absl::string_view bytes) {
    out_.Append(bytes, structure_);
    return runtime_.Reserve(static_cast<double>(out_.size()));
  }
  absl::Status WriteItems(const std::vector<Value>& items, absl::string_view open,
                          absl::string_view close) {
    NG_RETURN_IF_ERROR(Put(open));
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) NG_RETURN_IF_ERROR(Put(", "));
      NG_RETURN_IF_ERROR(Write(items[i]));
    }
    return Put(close);
  }
  absl::Status WriteDict(const Dict& dict) {
    NG_RETURN_IF_ERROR(Put("{"));
    bool first = true;
    for (const Dict::Entry& entry : dict.entries()) {
      if (!first) NG_RETURN_IF_ERROR(Put(", "));
      first = false;
      NG_RETURN_IF_ERROR(Write(entry.key));
      NG_RETURN_IF_ERROR(Put(": "));
      NG_RETURN_IF_ERROR(Write(entry.value));
    }
    return Put("}");
  }
  absl::Status WriteObject(Object& object) {
    if (runtime_.run_depth > runtime_.limits().run_depth) {
      return absl::InvalidArgumentError("a namespace that contains itself cannot be printed");
    }
    runtime_.run_depth += runtime_.limits().run_depth / kReprDepthMax + 1;
    absl::StatusOr<Text> text = object.Repr(runtime_);
    runtime_.run_depth -= runtime_.limits().run_depth / kReprDepthMax + 1;
    NG_RETURN_IF_ERROR(text.status());
    out_.Append(*text);
    return absl::OkStatus();
  }

  Runtime& runtime_;
  const Origin structure_;
  Text out_;
};

absl::string_view Entity(char c) {
  switch (c) {
    case '&':
      return "&amp;";
    case '<':
      return "&lt;";
    case '>':
      return "&gt;";
    case '\'':
      return "&#39;";
    case '"':
      return "&#34;";
    default:
      return "";
  }
}

}  // namespace

Origin LeastTrusted(const Value& value) {
  Origin least = Origin::kTemplate;
  if (value.is_string()) {
    least = value.text().LeastTrusted();
  } else if (value.is_list() || value.is_tuple()) {
    for (const Value& item : value.items()) least = std::max(least, LeastTrusted(item));
  } else if (value.is_dict()) {
    for (const Dict::Entry& entry : value.dict().entries()) {
      least = std::max({least, LeastTrusted(entry.key), LeastTrusted(entry.value)});
    }
  }
  return least;
}

std::string FloatRepr(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value < 0 ? "-inf" : "inf";
  char digits[40];
  const auto end =
      std::to_chars(digits, digits + sizeof digits, value, std::chars_format::scientific).ptr;
  const std::string shortest(digits, static_cast<size_t>(end - digits));
  const size_t e = shortest.find('e');
  int exponent = 0;
  std::from_chars(shortest.data() + e + (shortest[e + 1] == '+' ? 2 : 1),
                  shortest.data() + shortest.size(), exponent);
  if (exponent < -4 || exponent >= 16) return shortest;
  char fixed[40];
  const auto fixed_end =
      std::to_chars(fixed, fixed + sizeof fixed, value, std::chars_format::fixed).ptr;
  std::string text(fixed, static_cast<size_t>(fixed_end - fixed));
  if (text.find('.') == std::string::npos) text += ".0";
  return text;
}

absl::StatusOr<Text> ToRepr(Runtime& runtime, const Value& value) {
  ReprWriter writer(runtime, LeastTrusted(value));
  NG_RETURN_IF_ERROR(writer.Write(value));
  return writer.Take();
}

absl::StatusOr<Text> ToText(Runtime& runtime, const Value& value) {
  if (value.is_string()) return value.text();
  if (value.is_undefined()) return Text();
  return ToRepr(runtime, value);
}

absl::StatusOr<Value> ToStringValue(Runtime& runtime, const Value& value) {
  if (value.is_string()) return value;
  NG_ASSIGN_OR_RETURN(Text text, ToText(runtime, value));
  return runtime.NewString(std::move(text));
}

absl::StatusOr<Text> EscapeHtml(Runtime& runtime, const Text& text) {
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(text.size()));
  const std::string& bytes = text.bytes();
  size_t grown = bytes.size();
  for (const char c : bytes) grown += Entity(c).size();
  NG_RETURN_IF_ERROR(runtime.Reserve(static_cast<double>(grown)));
  Text out;
  size_t begin = 0;
  for (size_t i = 0; i < bytes.size(); ++i) {
    const absl::string_view entity = Entity(bytes[i]);
    if (entity.empty()) continue;
    out.Append(text, begin, i);
    out.Append(entity, text.OriginAt(i));
    begin = i + 1;
  }
  out.Append(text, begin, bytes.size());
  return out;
}

}  // namespace neurogrid::jinja
