// The tojson filter: json.dumps as transformers calls it, without HTML escaping (models.md 6.2).
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "engine/text/jinja_ops.h"
#include "engine/text/jinja_unicode.h"

namespace neurogrid::jinja {
namespace {

struct Style {
  bool ascii_only = false;
  bool sort_keys = false;
  bool indented = false;
  Text indent;
  Text item_separator;
  Text key_separator;
};

class JsonWriter {
 public:
  JsonWriter(Runtime& runtime, const Style& style, Origin structure)
      : runtime_(runtime), style_(style), structure_(structure) {}

  absl::Status Write(const Value& value, int level) {
    NG_RETURN_IF_ERROR(runtime_.Charge());
    if (value.is_string()) return WriteString(value.text());
    if (value.is_list() || value.is_tuple()) return WriteItems(value.items(), level);
    if (value.is_dict()) return WriteDict(value.dict(), level);
    if (!value.is_none() && !value.is_number()) {
      return TypeError(
          absl::StrCat("Object of type ", value.type_name(), " is not JSON serializable"));
    }
    return Put(Scalar(value));
  }

  Text Take() { return std::move(out_); }

 private:
  static std::string Scalar(const Value& value) {
    if (value.is_none()) return "null";
    if (value.is_bool()) return value.integer() != 0 ? "true" : "false";
    if (value.is_int()) return absl::StrCat(value.integer());
    const std::string text = FloatRepr(value.number());
    if (text == "nan") return "NaN";
    if (text == "inf") return "Infinity";
    return text == "-inf" ? "-Infinity" : text;
  }

  absl::Status Put(absl::string_view bytes) {
    out_.Append(bytes, structure_);
    return runtime_.Reserve(static_cast<double>(out_.size()));
  }
  absl::Status Put(const Text& text) {
    out_.Append(text);
    return runtime_.Reserve(static_cast<double>(out_.size()));
  }

  absl::Status NewLine(int level) {
    if (!style_.indented) return absl::OkStatus();
    NG_RETURN_IF_ERROR(Put("\n"));
    for (int i = 0; i < level; ++i) NG_RETURN_IF_ERROR(Put(style_.indent));
    return absl::OkStatus();
  }

  absl::Status WriteItems(const std::vector<Value>& items, int level) {
    if (items.empty()) return Put("[]");
    NG_RETURN_IF_ERROR(Put("["));
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) NG_RETURN_IF_ERROR(Put(style_.item_separator));
      NG_RETURN_IF_ERROR(NewLine(level + 1));
      NG_RETURN_IF_ERROR(Write(items[i], level + 1));
    }
    NG_RETURN_IF_ERROR(NewLine(level));
    return Put("]");
  }

  absl::StatusOr<std::vector<const Dict::Entry*>> Ordered(const Dict& dict) {
    std::vector<const Dict::Entry*> entries;
    for (const Dict::Entry& entry : dict.entries()) entries.push_back(&entry);
    if (!style_.sort_keys || entries.empty()) return entries;
    const bool strings = entries[0]->key.is_string();
    for (const Dict::Entry* entry : entries) {
      if (strings ? !entry->key.is_string() : !entry->key.is_number()) {
        return TypeError("keys of different types cannot be sorted");
      }
    }
    std::stable_sort(entries.begin(), entries.end(), [&](const auto* a, const auto* b) {
      return strings ? a->key.bytes() < b->key.bytes() : a->key.number() < b->key.number();
    });
    return entries;
  }

  absl::Status WriteKey(const Value& key) {
    if (key.is_string()) return WriteString(key.text());
    if (!key.is_none() && !key.is_number()) {
      return TypeError(
          absl::StrCat("keys must be str, int, float, bool or None, not ", key.type_name()));
    }
    return Put(absl::StrCat("\"", Scalar(key), "\""));
  }

  absl::Status WriteDict(const Dict& dict, int level) {
    if (dict.size() == 0) return Put("{}");
    NG_ASSIGN_OR_RETURN(const auto entries, Ordered(dict));
    NG_RETURN_IF_ERROR(Put("{"));
    for (size_t i = 0; i < entries.size(); ++i) {
      if (i > 0) NG_RETURN_IF_ERROR(Put(style_.item_separator));
      NG_RETURN_IF_ERROR(NewLine(level + 1));
      NG_RETURN_IF_ERROR(WriteKey(entries[i]->key));
      NG_RETURN_IF_ERROR(Put(style_.key_separator));
      NG_RETURN_IF_ERROR(Write(entries[i]->value, level + 1));
    }
    NG_RETURN_IF_ERROR(NewLine(level));
    return Put("}");
  }

  /// The escape of a code point, "" when it stands for itself.
  std::string Escape(int32_t code) const {
    switch (code) {
      case '"':
        return "\\\"";
      case '\\':
        return "\\\\";
      case '\n':
        return "\\n";
      case '\r':
        return "\\r";
      case '\t':
        return "\\t";
      case '\b':
        return "\\b";
      case '\f':
        return "\\f";
      default:
        break;
    }
    if (code < 0x20) return absl::StrFormat("\\u%04x", code);
    if (code < 0x7f || !style_.ascii_only) return "";
    if (code == 0x7f) return "";
    if (code < 0x10000) return absl::StrFormat("\\u%04x", code);
    const int32_t offset = code - 0x10000;
    return absl::StrFormat("\\u%04x\\u%04x", 0xd800 + (offset >> 10), 0xdc00 + (offset & 0x3ff));
  }

  absl::Status WriteString(const Text& text) {
    NG_RETURN_IF_ERROR(runtime_.ChargeBytes(text.size()));
    NG_RETURN_IF_ERROR(Put("\""));
    const std::string& bytes = text.bytes();
    size_t begin = 0;
    for (size_t i = 0; i < bytes.size();) {
      const CodePoint point = DecodeAt(bytes, i);
      const std::string escape = Escape(point.code);
      const size_t next = i + static_cast<size_t>(point.length);
      if (!escape.empty()) {
        out_.Append(text, begin, i);
        out_.Append(escape, text.OriginAt(i));
        begin = next;
      }
      i = next;
    }
    out_.Append(text, begin, bytes.size());
    return Put("\"");
  }

  Runtime& runtime_;
  const Style& style_;
  const Origin structure_;
  Text out_;
};

absl::Status ReadIndent(Runtime& runtime, const Value& indent, Style& style) {
  if (indent.is_none()) return absl::OkStatus();
  style.indented = true;
  style.item_separator = Text(",", Origin::kTemplate);
  if (indent.is_string()) {
    style.indent = indent.text();
    return absl::OkStatus();
  }
  NG_ASSIGN_OR_RETURN(const int64_t spaces, IntegerArgument(&indent, 0));
  NG_RETURN_IF_ERROR(runtime.Reserve(static_cast<double>(spaces)));
  if (spaces > 0) {
    style.indent = Text(std::string(static_cast<size_t>(spaces), ' '), Origin::kTemplate);
  }
  return absl::OkStatus();
}

absl::Status ReadSeparators(Runtime& runtime, const Value& separators, Style& style) {
  if (separators.is_none()) return absl::OkStatus();
  NG_ASSIGN_OR_RETURN(const std::vector<Value> both, Collect(runtime, separators));
  if (both.size() != 2 || !both[0].is_string() || !both[1].is_string()) {
    return TypeError("tojson: separators must be two strings");
  }
  style.item_separator = both[0].text();
  style.key_separator = both[1].text();
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Value> ToJson(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(
      const Bound bound,
      Bind("tojson", arguments, {"x", "ensure_ascii", "indent", "separators", "sort_keys"}, 1));
  Style style;
  style.item_separator = Text(", ", Origin::kTemplate);
  style.key_separator = Text(": ", Origin::kTemplate);
  style.ascii_only = bound[1] != nullptr && Truth(*bound[1]);
  style.sort_keys = bound[4] != nullptr && Truth(*bound[4]);
  if (bound[2] != nullptr) NG_RETURN_IF_ERROR(ReadIndent(runtime, *bound[2], style));
  if (bound[3] != nullptr) NG_RETURN_IF_ERROR(ReadSeparators(runtime, *bound[3], style));
  JsonWriter writer(runtime, style, LeastTrusted(*bound[0]));
  NG_RETURN_IF_ERROR(writer.Write(*bound[0], 0));
  return runtime.NewString(writer.Take());
}

}  // namespace neurogrid::jinja
