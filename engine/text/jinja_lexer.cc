#include "engine/text/jinja_lexer.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "engine/text/jinja_text.h"
#include "engine/text/jinja_unicode.h"

namespace neurogrid::jinja {
namespace {

bool IsAsciiDigit(char c) { return absl::ascii_isdigit(static_cast<unsigned char>(c)); }

/// Python's \w: letters, digits and the underscore.
bool IsWord(int32_t code) { return code == '_' || IsAlnum(code); }

bool IsAllSpace(absl::string_view text) {
  const ByteRange kept = Strip(text, nullptr, true, false);
  return kept.first == text.size();
}

/// All line breaks become \n and one at the end is dropped.
std::string Normalized(absl::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

/// The value of a string literal's inside: the escapes of Python's unicode_escape codec.
class Unescaper {
 public:
  Unescaper(absl::string_view inside, int line) : inside_(inside), line_(line) {}

  absl::StatusOr<std::string> Run() {
    while (next_ < inside_.size()) {
      const char c = inside_[next_++];
      if (c != '\\') {
        out_ += c;
      } else {
        NG_RETURN_IF_ERROR(Escape());
      }
    }
    return std::move(out_);
  }

 private:
  absl::Status Escape() {
    static constexpr std::pair<char, char> kSimple[] = {
        {'\\', '\\'}, {'\'', '\''}, {'"', '"'},  {'n', '\n'}, {'t', '\t'},
        {'r', '\r'},  {'a', '\a'},  {'b', '\b'}, {'f', '\f'}, {'v', '\v'}};
    const char c = inside_[next_++];
    for (const auto& [name, value] : kSimple) {
      if (c == name) {
        out_ += value;
        return absl::OkStatus();
      }
    }
    if (c == '\n') return absl::OkStatus();
    if (c == 'x') return Hex(2);
    if (c == 'u') return Hex(4);
    if (c == 'U') return Hex(8);
    if (c == 'N') return ErrorAtLine(line_, "\\N{...} in a string is not supported");
    if (c >= '0' && c <= '7') {
      int32_t code = c - '0';
      for (int i = 0; i < 2 && next_ < inside_.size(); ++i) {
        if (inside_[next_] < '0' || inside_[next_] > '7') break;
        code = code * 8 + (inside_[next_++] - '0');
      }
      AppendUtf8(out_, code);
      return absl::OkStatus();
    }
    out_ += '\\';
    out_ += c;
    return absl::OkStatus();
  }

  absl::Status Hex(size_t digits) {
    const absl::string_view text = inside_.substr(next_, digits);
    uint32_t code = 0;
    if (text.size() < digits || !absl::SimpleHexAtoi(text, &code) ||
        !std::all_of(text.begin(), text.end(),
                     [](char c) { return absl::ascii_isxdigit(static_cast<unsigned char>(c)); })) {
      return ErrorAtLine(line_, "a string has a truncated \\x, \\u or \\U escape");
    }
    if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
      return ErrorAtLine(line_, "a string has an escape that is no character");
    }
    next_ += digits;
    AppendUtf8(out_, static_cast<int32_t>(code));
    return absl::OkStatus();
  }

  absl::string_view inside_;
  int line_;
  size_t next_ = 0;
  std::string out_;
};

class Lexer {
 public:
  explicit Lexer(absl::string_view source) : source_(source) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (next_ < source_.size()) NG_RETURN_IF_ERROR(Root());
    Push(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  absl::string_view Rest() const { return source_.substr(next_); }
  bool At(absl::string_view what) const { return absl::StartsWith(Rest(), what); }

  void Advance(size_t bytes) {
    const absl::string_view passed = source_.substr(next_, bytes);
    line_ += static_cast<int>(std::count(passed.begin(), passed.end(), '\n'));
    next_ += bytes;
  }

  void Push(TokenKind kind, std::string text) {
    Token token;
    token.kind = kind;
    token.text = std::move(text);
    token.line = line_;
    tokens_.push_back(std::move(token));
  }

  void SkipSpace() {
    const ByteRange kept = Strip(Rest(), nullptr, true, false);
    Advance(kept.first);
  }

  /// Text up to the next tag, then the tag's opening.
  absl::Status Root() {
    size_t begin = next_;
    size_t tag = begin;
    while (true) {
      tag = source_.find('{', tag);
      if (tag == absl::string_view::npos || tag + 1 == source_.size()) {
        PushText(source_.substr(begin));
        Advance(source_.size() - begin);
        return absl::OkStatus();
      }
      const char second = source_[tag + 1];
      if (second == '%' || second == '{' || second == '#') break;
      ++tag;
    }
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    absl::string_view text = source_.substr(begin, tag - begin);
    PushText(Trimmed(text, sign, source_[tag + 1] != '{'));
    Advance(tag - begin);
    const size_t opening = sign == '-' || sign == '+' ? 3 : 2;
    if (source_[tag + 1] == '#') return Comment(opening);
    if (source_[tag + 1] == '{')
      return Tag(opening, TokenKind::kVariableBegin, TokenKind::kVariableEnd);
    const size_t raw = RawOpening(opening);
    if (raw != 0) return Raw(raw);
    return Tag(opening, TokenKind::kBlockBegin, TokenKind::kBlockEnd);
  }

  /// What `-` and lstrip_blocks leave of the text before a tag.
  absl::string_view Trimmed(absl::string_view text, char sign, bool strips_line) const {
    if (sign == '-') {
      const ByteRange kept = Strip(text, nullptr, false, true);
      return text.substr(0, kept.second);
    }
    if (sign == '+' || !strips_line) return text;
    const size_t newline = text.rfind('\n');
    const size_t line = newline == absl::string_view::npos ? 0 : newline + 1;
    const bool whole_line = line > 0 || line_starting_;
    return whole_line && IsAllSpace(text.substr(line)) ? text.substr(0, line) : text;
  }

  void PushText(absl::string_view text) {
    if (!text.empty()) Push(TokenKind::kText, std::string(text));
  }

  /// After a tag: `-` eats all white space, `+` nothing, else one newline goes when `trims`.
  void CloseTag(char sign, size_t closing, bool trims) {
    Advance(closing);
    if (sign == '-') {
      SkipSpace();
    } else if (trims && sign != '+' && At("\n")) {
      Advance(1);
    }
    line_starting_ = next_ > 0 && source_[next_ - 1] == '\n';
  }

  absl::Status Comment(size_t opening) {
    const int begin_line = line_;
    const size_t end = source_.find("#}", next_ + opening);
    if (end == absl::string_view::npos)
      return ErrorAtLine(begin_line, "Missing end of comment tag");
    const char before = end > next_ + opening ? source_[end - 1] : '\0';
    const bool signed_end = before == '-' || before == '+';
    Advance(end - next_);
    CloseTag(signed_end ? before : '\0', 2, true);
    return absl::OkStatus();
  }

  /// Bytes of "{% raw %}" here, 0 when another tag stands here.
  size_t RawOpening(size_t opening) const {
    size_t i = next_ + opening;
    i += Strip(source_.substr(i), nullptr, true, false).first;
    if (!absl::StartsWith(source_.substr(i), "raw")) return 0;
    i += 3;
    i += Strip(source_.substr(i), nullptr, true, false).first;
    const absl::string_view rest = source_.substr(i);
    if (absl::StartsWith(rest, "%}")) return i + 2 - next_;
    if (!absl::StartsWith(rest, "-%}")) return 0;
    return i + 3 + Strip(rest.substr(3), nullptr, true, false).first - next_;
  }

  absl::Status Raw(size_t opening) {
    const int begin_line = line_;
    Advance(opening);
    line_starting_ = source_[next_ - 1] == '\n';
    const size_t begin = next_;
    for (size_t tag = begin; (tag = source_.find("{%", tag)) != absl::string_view::npos; ++tag) {
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
      size_t i = tag + (sign == '-' || sign == '+' ? 3 : 2);
      i += Strip(source_.substr(i), nullptr, true, false).first;
      if (!absl::StartsWith(source_.substr(i), "endraw")) continue;
      i += 6;
      i += Strip(source_.substr(i), nullptr, true, false).first;
      const char end_sign = i < source_.size() ? source_[i] : '\0';
      const bool signed_end = end_sign == '-' || end_sign == '+';
      if (signed_end) ++i;
      if (!absl::StartsWith(source_.substr(i), "%}")) continue;
      PushText(Trimmed(source_.substr(begin, tag - begin), sign, true));
      Advance(i - begin);
      CloseTag(signed_end ? end_sign : '\0', 2, true);
      return absl::OkStatus();
    }
    return ErrorAtLine(begin_line, "Missing end of raw directive");
  }

  /// Tokens up to the end of a {{ }} or {% %}.
  absl::Status Tag(size_t opening, TokenKind begin, TokenKind end) {
    const int begin_line = line_;
    const absl::string_view closing = end == TokenKind::kVariableEnd ? "}}" : "%}";
    Push(begin, "");
    Advance(opening);
    brackets_.clear();
    while (true) {
      SkipSpace();
      if (next_ == source_.size()) return ErrorAtLine(begin_line, "a tag is never closed");
      if (brackets_.empty()) {
        const char sign = source_[next_];
        const bool may_sign = sign == '-' || (sign == '+' && end == TokenKind::kBlockEnd);
        const size_t sign_bytes = may_sign ? 1 : 0;
        if (absl::StartsWith(Rest().substr(sign_bytes), closing)) {
          Push(end, "");
          CloseTag(may_sign ? sign : '\0', sign_bytes + 2, end == TokenKind::kBlockEnd);
          return absl::OkStatus();
        }
      }
      NG_RETURN_IF_ERROR(One());
    }
  }

  /// One token of an expression.
  absl::Status One() {
    const char c = source_[next_];
    if (IsAsciiDigit(c)) return Number();
    if (c == '\'' || c == '"') return String(c);
    if (IsWord(DecodeAt(source_, next_).code)) return Name();
    return Operator();
  }

  absl::Status Name() {
    size_t end = next_;
    while (end < source_.size()) {
      const CodePoint point = DecodeAt(source_, end);
      if (!IsWord(point.code)) break;
      end += static_cast<size_t>(point.length);
    }
    Push(TokenKind::kName, std::string(source_.substr(next_, end - next_)));
    Advance(end - next_);
    return absl::OkStatus();
  }

  absl::Status String(char quote) {
    size_t end = next_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) return ErrorAtLine(line_, "a string is never closed");
    NG_ASSIGN_OR_RETURN(std::string value,
                        Unescaper(source_.substr(next_ + 1, end - next_ - 1), line_).Run());
    Push(TokenKind::kString, std::move(value));
    Advance(end + 1 - next_);
    return absl::OkStatus();
  }

  /// Digits with single underscores between them, from `place`; the place after.
  size_t DigitsEnd(size_t place) const {
    while (place < source_.size()) {
      if (IsAsciiDigit(source_[place])) {
        ++place;
      } else if (source_[place] == '_' && place + 1 < source_.size() &&
                 IsAsciiDigit(source_[place + 1]) && IsAsciiDigit(source_[place - 1])) {
        ++place;
      } else {
        break;
      }
    }
    return place;
  }

  absl::Status Number() {
    const auto digit_at = [&](size_t i) { return i < source_.size() && IsAsciiDigit(source_[i]); };
    const auto lower_at = [&](size_t i) {
      return i < source_.size() ? absl::ascii_tolower(static_cast<unsigned char>(source_[i]))
                                : '\0';
    };
    size_t end = DigitsEnd(next_);
    bool floating = false;
    // After a dot there is no float: a.0.1 takes two items.
    if (next_ == 0 || source_[next_ - 1] != '.') {
      if (end < source_.size() && source_[end] == '.' && digit_at(end + 1)) {
        floating = true;
        end = DigitsEnd(end + 1);
      }
      if (lower_at(end) == 'e') {
        const size_t sign =
            end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '-');
        if (digit_at(end + 1 + sign)) {
          floating = true;
          end = DigitsEnd(end + 1 + sign);
        }
      }
    }
    if (floating) return PushNumber(end, 10, true);
    const char mark = lower_at(next_ + 1);
    const int base = source_[next_] != '0' ? 10
                     : mark == 'x'         ? 16
                     : mark == 'o'         ? 8
                     : mark == 'b'         ? 2
                                           : 10;
    if (base == 10) return PushNumber(IntegerEnd(end), 10, false);
    end = next_ + 2;
    while (end < source_.size() &&
           (absl::ascii_isalnum(static_cast<unsigned char>(source_[end])) || source_[end] == '_')) {
      ++end;
    }
    return PushNumber(end, base, false);
  }

  /// A number that begins with 0 is nothing but zeros.
  size_t IntegerEnd(size_t end) const {
    if (source_[next_] != '0') return end;
    size_t zeros = next_;
    while (zeros < end && (source_[zeros] == '0' || source_[zeros] == '_')) ++zeros;
    return zeros;
  }

  absl::Status PushNumber(size_t end, int base, bool floating) {
    std::string digits;
    for (const char c : source_.substr(next_, end - next_)) {
      if (c != '_') digits += c;
    }
    Push(floating ? TokenKind::kFloat : TokenKind::kInteger, digits);
    Token& token = tokens_.back();
    if (floating) {
      if (!absl::SimpleAtod(digits, &token.number)) return ErrorAtLine(line_, "bad number");
    } else {
      uint64_t value = 0;
      for (const char c : absl::string_view(digits).substr(base == 10 ? 0 : 2)) {
        const auto byte = static_cast<unsigned char>(c);
        const int digit = IsAsciiDigit(c) ? c - '0' : absl::ascii_tolower(byte) - 'a' + 10;
        if (digit >= base) return ErrorAtLine(line_, "bad number");
        if (__builtin_mul_overflow(value, static_cast<uint64_t>(base), &value) ||
            __builtin_add_overflow(value, static_cast<uint64_t>(digit), &value) ||
            value > static_cast<uint64_t>(INT64_MAX)) {
          return ErrorAtLine(line_,
                             "integer beyond 64 bits, which chat templates may not use here");
        }
      }
      token.integer = static_cast<int64_t>(value);
    }
    Advance(end - next_);
    return absl::OkStatus();
  }

  absl::Status Operator() {
    static constexpr absl::string_view kOperators[] = {
        "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const absl::string_view op : kOperators) {
      if (!At(op)) continue;
      if (op == "[") brackets_ += ']';
      if (op == "(") brackets_ += ')';
      if (op == "{") brackets_ += '}';
      if (op == "]" || op == ")" || op == "}") {
        if (brackets_.empty()) return ErrorAtLine(line_, absl::StrCat("unexpected '", op, "'"));
        if (brackets_.back() != op[0]) {
          return ErrorAtLine(line_, absl::StrCat("unexpected '", op, "', expected '",
                                                 std::string(1, brackets_.back()), "'"));
        }
        brackets_.pop_back();
      }
      Push(TokenKind::kOperator, std::string(op));
      Advance(op.size());
      return absl::OkStatus();
    }
    const auto length = static_cast<size_t>(DecodeAt(source_, next_).length);
    return ErrorAtLine(line_,
                       absl::StrCat("unexpected char '", source_.substr(next_, length), "'"));
  }

  absl::string_view source_;
  size_t next_ = 0;
  int line_ = 1;
  bool line_starting_ = true;
  std::string brackets_;  // the closing ones that are awaited
  std::vector<Token> tokens_;
};

}  // namespace

absl::Status ErrorAtLine(int line, absl::string_view message) {
  return absl::InvalidArgumentError(absl::StrCat("line ", line, ": ", message));
}

absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source) {
  const std::string normalized = Normalized(source);
  return Lexer(normalized).Run();
}

}  // namespace neurogrid::jinja
