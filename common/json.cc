#include "common/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

/// Builds the tree while counting; the first breach ends the parse.
class Builder final : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Builder(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return Add(Json()); }
  bool boolean(bool value) override { return Add(Json(value)); }
  bool number_integer(number_integer_t value) override { return Add(Json(int64_t{value})); }
  bool number_unsigned(number_unsigned_t value) override {
    if (value > static_cast<uint64_t>(INT64_MAX)) return Add(Json(static_cast<double>(value)));
    return Add(Json(static_cast<int64_t>(value)));
  }
  bool number_float(number_float_t value, const string_t& text) override {
    if (text.size() > static_cast<size_t>(limits_.number_chars_max)) {
      return Fail(absl::StrCat("a number has more than ", limits_.number_chars_max, " characters"));
    }
    return Add(Json(double{value}));
  }
  bool string(string_t& value) override {
    return CheckString(value) && Add(Json(std::move(value)));
  }
  bool binary(binary_t&) override { return Fail("binary value"); }
  bool start_object(size_t) override { return Open(Json(Json::Object())); }
  bool key(string_t& value) override {
    if (!CheckString(value)) return false;
    stack_.back()->as_object().push_back({std::move(value), Json()});
    return true;
  }
  bool end_object() override {
    std::vector<absl::string_view> keys;
    for (const JsonMember& member : stack_.back()->as_object()) keys.push_back(member.key);
    std::sort(keys.begin(), keys.end());
    const auto twice = std::adjacent_find(keys.begin(), keys.end());
    if (twice != keys.end()) {
      return Fail(absl::StrCat("the key \"", twice->substr(0, 100), "\" stands twice"));
    }
    stack_.pop_back();
    return true;
  }
  bool start_array(size_t) override { return Open(Json(Json::Array())); }
  bool end_array() override {
    stack_.pop_back();
    return true;
  }
  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    absl::string_view what = error.what();
    // "[json.exception.parse_error.101] parse error at line 1, column 2: syntax error ...; last
    // read"
    if (const size_t colon = what.find(": "); colon != absl::string_view::npos) {
      what.remove_prefix(colon + 2);
    }
    return Fail(absl::StrCat(what.substr(0, 200), ", at byte ", position));
  }

  Json TakeRoot() { return std::move(root_); }
  const std::string& failure() const { return failure_; }

 private:
  bool Fail(std::string what) {
    if (failure_.empty()) failure_ = std::move(what);
    return false;
  }
  bool CheckString(const std::string& value) {
    if (static_cast<int64_t>(value.size()) <= limits_.string_bytes_max) return true;
    return Fail(absl::StrCat("a string has more than ", limits_.string_bytes_max, " bytes"));
  }
  bool Open(Json container) {
    if (static_cast<int>(stack_.size()) >= limits_.depth_max) {
      return Fail(absl::StrCat("nested deeper than ", limits_.depth_max, " levels"));
    }
    Json* place = Place(std::move(container));
    if (place != nullptr) stack_.push_back(place);
    return place != nullptr;
  }
  bool Add(Json value) { return Place(std::move(value)) != nullptr; }
  Json* Place(Json value) {
    if (++values_ > limits_.values_max) {
      Fail(absl::StrCat("more than ", limits_.values_max, " values"));
      return nullptr;
    }
    if (stack_.empty()) {
      root_ = std::move(value);
      return &root_;
    }
    Json& parent = *stack_.back();
    if (parent.is_array()) {
      parent.as_array().push_back(std::move(value));
      return &parent.as_array().back();
    }
    parent.as_object().back().value = std::move(value);
    return &parent.as_object().back().value;
  }

  const JsonLimits limits_;
  Json root_;
  // Pointers stay valid: a container grows only while it is the innermost one.
  std::vector<Json*> stack_;
  int64_t values_ = 0;
  std::string failure_;
};

void AppendEscaped(std::string& out, absl::string_view text, bool ascii_only);

void AppendDouble(std::string& out, double value) {
  if (!std::isfinite(value)) {
    out += "null";
    return;
  }
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  const absl::string_view text(digits, static_cast<size_t>(end - digits));
  absl::StrAppend(&out, text);
  if (text.find_first_of(".e") == absl::string_view::npos) out += ".0";
}

struct Writer {
  const JsonStyle& style;
  std::string out;

  void NewLine(int level) {
    if (style.indent < 0) return;
    out += '\n';
    out.append(static_cast<size_t>(style.indent) * static_cast<size_t>(level), ' ');
  }

  void Write(const Json& value, int level) {
    if (value.is_null()) {
      out += "null";
    } else if (value.is_bool()) {
      out += value.as_bool() ? "true" : "false";
    } else if (value.is_integer()) {
      absl::StrAppend(&out, value.as_integer());
    } else if (value.is_double()) {
      AppendDouble(out, value.as_number());
    } else if (value.is_string()) {
      AppendEscaped(out, value.as_string(), style.ascii_only);
    } else if (value.is_array()) {
      WriteArray(value.as_array(), level);
    } else {
      WriteObject(value.as_object(), level);
    }
  }

  void WriteArray(const Json::Array& array, int level) {
    if (array.empty()) {
      out += "[]";
      return;
    }
    out += '[';
    bool first = true;
    for (const Json& item : array) {
      if (!first) absl::StrAppend(&out, style.item_separator);
      first = false;
      NewLine(level + 1);
      Write(item, level + 1);
    }
    NewLine(level);
    out += ']';
  }

  void WriteObject(const Json::Object& object, int level) {
    if (object.empty()) {
      out += "{}";
      return;
    }
    std::vector<const JsonMember*> members;
    for (const JsonMember& member : object) members.push_back(&member);
    if (style.sort_keys) {
      std::sort(members.begin(), members.end(),
                [](const JsonMember* a, const JsonMember* b) { return a->key < b->key; });
    }
    out += '{';
    bool first = true;
    for (const JsonMember* member : members) {
      if (!first) absl::StrAppend(&out, style.item_separator);
      first = false;
      NewLine(level + 1);
      AppendEscaped(out, member->key, style.ascii_only);
      absl::StrAppend(&out, style.key_separator);
      Write(member->value, level + 1);
    }
    NewLine(level);
    out += '}';
  }
};

void AppendUnit(std::string& out, uint32_t unit) {
  absl::StrAppend(&out, "\\u", absl::Hex(unit, absl::kZeroPad4));
}

/// Length of the UTF-8 sequence at `text`, 0 when it is not one (RFC 3629).
size_t SequenceLength(absl::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xc0) != 0x80) return 0;
  }
  if (lead == 0xe0 && byte(1) < 0xa0) return 0;
  if (lead == 0xed && byte(1) > 0x9f) return 0;
  if (lead == 0xf0 && byte(1) < 0x90) return 0;
  if (lead == 0xf4 && byte(1) > 0x8f) return 0;
  return length;
}

void AppendCodePoint(std::string& out, absl::string_view sequence, bool ascii_only) {
  if (!ascii_only) {
    absl::StrAppend(&out, sequence);
    return;
  }
  uint32_t code = static_cast<unsigned char>(sequence[0]) & (0x7fu >> sequence.size());
  for (size_t i = 1; i < sequence.size(); ++i) {
    code = (code << 6) | (static_cast<unsigned char>(sequence[i]) & 0x3fu);
  }
  if (code < 0x10000) return AppendUnit(out, code);
  code -= 0x10000;
  AppendUnit(out, 0xd800 + (code >> 10));
  AppendUnit(out, 0xdc00 + (code & 0x3ff));
}

void AppendEscaped(std::string& out, absl::string_view text, bool ascii_only) {
  out += '"';
  while (!text.empty()) {
    const unsigned char c = static_cast<unsigned char>(text[0]);
    size_t length = 1;
    if (c == '"' || c == '\\') {
      out += '\\';
      out += static_cast<char>(c);
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\r') {
      out += "\\r";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\b') {
      out += "\\b";
    } else if (c == '\f') {
      out += "\\f";
    } else if (c < 0x20) {
      AppendUnit(out, c);
    } else if (c < 0x80) {
      out += static_cast<char>(c);
    } else {
      length = SequenceLength(text);
      AppendCodePoint(out, length ? text.substr(0, length) : "\xef\xbf\xbd", ascii_only);
      length = std::max<size_t>(length, 1);
    }
    text.remove_prefix(length);
  }
  out += '"';
}

}  // namespace

const Json* Json::Find(absl::string_view key) const {
  if (!is_object()) return nullptr;
  for (const JsonMember& member : as_object()) {
    if (member.key == key) return &member.value;
  }
  return nullptr;
}

Json* Json::Find(absl::string_view key) {
  return const_cast<Json*>(static_cast<const Json&>(*this).Find(key));
}

Json& Json::Set(absl::string_view key, Json value) {
  if (Json* found = Find(key)) {
    *found = std::move(value);
    return *found;
  }
  as_object().push_back({std::string(key), std::move(value)});
  return as_object().back().value;
}

absl::string_view Json::kind_name() const {
  if (is_null()) return "null";
  if (is_bool()) return "boolean";
  if (is_integer()) return "integer";
  if (is_double()) return "number";
  if (is_string()) return "string";
  return is_array() ? "array" : "object";
}

bool Json::operator==(const Json& other) const {
  if (is_number() && other.is_number()) {
    if (is_integer() && other.is_integer()) return as_integer() == other.as_integer();
    return as_number() == other.as_number();
  }
  if (value_.index() != other.value_.index()) return false;
  if (!is_object()) return value_ == other.value_;
  if (as_object().size() != other.as_object().size()) return false;
  return std::all_of(as_object().begin(), as_object().end(), [&](const JsonMember& member) {
    const Json* twin = other.Find(member.key);
    return twin != nullptr && member.value == *twin;
  });
}

bool operator==(const JsonMember& a, const JsonMember& b) {
  return a.key == b.key && a.value == b.value;
}

absl::StatusOr<Json> ParseJson(absl::string_view text, const JsonLimits& limits) {
  Builder builder(limits);
  const bool whole = nlohmann::json::sax_parse(text.begin(), text.end(), &builder);
  if (!whole || !builder.failure().empty()) {
    return absl::InvalidArgumentError(builder.failure().empty() ? "not JSON" : builder.failure());
  }
  return builder.TakeRoot();
}

std::string ToString(const Json& value, const JsonStyle& style) {
  Writer writer{style, {}};
  writer.Write(value, 0);
  return std::move(writer.out);
}

}  // namespace neurogrid
