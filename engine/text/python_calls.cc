#include "engine/text/python_calls.h"

#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/json.h"
#include "engine/text/json_scanner.h"
#include "engine/text/unicode.h"

namespace neurogrid {
namespace {

constexpr int kDepthMax = 64;

bool InName(char c) { return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_'; }

class Reader {
 public:
  explicit Reader(absl::string_view text) : text_(text) {}

  PythonCalls Read() {
    PythonCalls read;
    SkipBlanks();
    bool fits = Take('[');
    while (fits) {
      SkipBlanks();
      if (Take(']')) {
        SkipBlanks();
        read.whole = at_ == text_.size() && !read.calls.empty();
        return read;
      }
      fits = ReadCall(read);
      SkipBlanks();
      if (fits && Peek() != ']') fits = Take(',');
    }
    read.cut = at_ == text_.size();
    if (!read.cut) read.open_name.clear();
    return read;
  }

 private:
  char Peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool Take(char c) {
    if (Peek() != c || at_ == text_.size()) return false;
    ++at_;
    return true;
  }
  bool TakeWord(absl::string_view word) {
    if (!absl::StartsWith(text_.substr(at_), word)) return false;
    if (at_ + word.size() < text_.size() && InName(text_[at_ + word.size()])) return false;
    at_ += word.size();
    return true;
  }
  void SkipBlanks() {
    while (at_ < text_.size() && absl::StrContains(" \t\r\n", text_[at_])) ++at_;
  }
  std::string Name(absl::string_view more) {
    const size_t begin = at_;
    while (at_ < text_.size() && (InName(text_[at_]) || absl::StrContains(more, text_[at_]))) ++at_;
    return std::string(text_.substr(begin, at_ - begin));
  }

  bool ReadCall(PythonCalls& read) {
    const std::string name = Name(".-:");
    SkipBlanks();
    if (name.empty() || !Take('(')) return false;
    read.open_name = name;
    std::string arguments = "{";
    SkipBlanks();
    while (!Take(')')) {
      const std::string key = Name("");
      SkipBlanks();
      if (key.empty() || !Take('=')) return false;
      absl::StrAppend(&arguments, arguments.size() > 1 ? "," : "", ToString(Json(key)), ":");
      if (!ReadValue(arguments, 1)) return false;
      SkipBlanks();
      if (Peek() != ')' && !Take(',')) return false;
      SkipBlanks();
    }
    read.calls.push_back({name, arguments + "}"});
    read.open_name.clear();
    return true;
  }

  /// Appends the value as JSON.
  bool ReadValue(std::string& out, int depth) {
    SkipBlanks();
    if (depth > kDepthMax) return false;
    const std::pair<absl::string_view, absl::string_view> words[] = {
        {"True", "true"}, {"False", "false"}, {"None", "null"},
        {"true", "true"}, {"false", "false"}, {"null", "null"}};
    for (const auto& [python, json] : words) {
      if (!TakeWord(python)) continue;
      absl::StrAppend(&out, json);
      return true;
    }
    switch (Peek()) {
      case '"':
      case '\'':
        return ReadString(out);
      case '[':
        return ReadItems(']', out, depth);
      case '(':
        return ReadItems(')', out, depth);
      case '{':
        return ReadItems('}', out, depth);
      default:
        return ReadNumber(out);
    }
  }

  bool ReadItems(char close, std::string& out, int depth) {
    ++at_;
    const bool dict = close == '}';
    out += dict ? '{' : '[';
    bool first = true;
    SkipBlanks();
    while (!Take(close)) {
      if (!std::exchange(first, false)) out += ',';
      if (dict) {
        if (!ReadString(out)) return false;
        SkipBlanks();
        if (!Take(':')) return false;
        out += ':';
      }
      if (!ReadValue(out, depth + 1)) return false;
      SkipBlanks();
      if (Peek() != close && !Take(',')) return false;
      SkipBlanks();
    }
    out += dict ? '}' : ']';
    return true;
  }

  bool ReadNumber(std::string& out) {
    JsonScanner scanner;
    const size_t begin = at_;
    for (; at_ < text_.size(); ++at_) {
      if (text_[at_] != '-' && !absl::ascii_isdigit(static_cast<unsigned char>(text_[at_])) &&
          begin == at_) {
        return false;
      }
      const JsonScanner::Step step = scanner.Push(text_[at_]);
      if (step == JsonScanner::Step::kMore) continue;
      if (step != JsonScanner::Step::kBefore) return false;
      absl::StrAppend(&out, text_.substr(begin, at_ - begin));
      return true;
    }
    return false;
  }

  bool ReadString(std::string& out) {
    const char quote = Peek();
    if (quote != '"' && quote != '\'') return false;
    ++at_;
    std::string value;
    while (at_ < text_.size()) {
      const char c = text_[at_++];
      if (c == quote) {
        absl::StrAppend(&out, ToString(Json(value)));
        return true;
      }
      if (c == '\n') return false;
      if (c != '\\') {
        value += c;
      } else if (!ReadEscape(value)) {
        return false;
      }
    }
    return false;
  }

  bool ReadEscape(std::string& value) {
    if (at_ == text_.size()) return false;
    const char c = text_[at_++];
    const absl::string_view names = "ntrbfav0\\'\"";
    const absl::string_view bytes("\n\t\r\b\f\a\v\0\\'\"", 11);
    const size_t known = names.find(c);
    if (known != absl::string_view::npos) {
      value += bytes[known];
      return true;
    }
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
    if (digits == 0) {  // Python keeps the backslash of an escape it does not know
      value += '\\';
      value += c;
      return true;
    }
    char32_t code = 0;
    for (size_t i = 0; i < digits; ++i, ++at_) {
      const auto digit = static_cast<unsigned char>(Peek());
      if (at_ == text_.size() || !absl::ascii_isxdigit(digit)) return false;
      const int value_of = digit <= '9' ? digit - '0' : (digit | 0x20) - 'a' + 10;
      code = code * 16 + static_cast<char32_t>(value_of);
    }
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
    AppendUtf8(value, code);
    return true;
  }

  absl::string_view text_;
  size_t at_ = 0;
};

}  // namespace

PythonCalls ReadPythonCalls(absl::string_view text) { return Reader(text).Read(); }

}  // namespace neurogrid
