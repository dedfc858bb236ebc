#include "engine/text/split_scanners.h"

namespace neurogrid {

const absl::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
const absl::string_view kQwen2Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const absl::string_view kLlama3Pattern =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)";
const absl::string_view kTekkenPattern =
    R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)";

namespace {

/// A place in the text, with the class of the code point there.
struct Cursor {
  const CharClasses& classes;
  absl::string_view text;
  size_t at;    // this code point
  size_t next;  // the one after it
  char32_t code = 0;
  CharClass kind = CharClass::kOther;

  Cursor(const CharClasses& classes_in, absl::string_view text_in, size_t at_in)
      : classes(classes_in), text(text_in), at(at_in), next(at_in) {
    Read();
  }
  bool done() const { return at == text.size(); }
  void Step() {
    at = next;
    Read();
  }
  void Read() {
    if (done()) return;
    code = NextCodePoint(text, next);
    kind = classes.Of(code);
  }
  bool letter() const { return !done() && kind >= CharClass::kLu && kind <= CharClass::kLo; }
  bool number() const {
    return !done() && (kind == CharClass::kNumber || kind == CharClass::kNumberOther);
  }
  bool space() const { return !done() && kind == CharClass::kSpace; }
  bool line_end() const { return !done() && (code == '\r' || code == '\n'); }
  /// [^\s\p{L}\p{N}]
  bool other() const { return !done() && !letter() && !number() && !space(); }
  /// [^\r\n\p{L}\p{N}]
  bool may_lead_word() const { return !done() && !letter() && !number() && !line_end(); }
  /// [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]
  bool upper() const {
    return (letter() && kind != CharClass::kLl) || (!done() && kind == CharClass::kMark);
  }
  /// [\p{Ll}\p{Lm}\p{Lo}\p{M}]
  bool lower() const {
    if (!letter()) return !done() && kind == CharClass::kMark;
    return kind != CharClass::kLu && kind != CharClass::kLt;
  }
};

char AsciiLower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c; }

/// Length of 's 't 're 've 'm 'll 'd at `at`, 0 when none is there.
size_t Contraction(absl::string_view text, size_t at, bool fold_case) {
  if (text[at] != '\'') return 0;
  const absl::string_view rest = text.substr(at + 1);
  // U+017F, the long s, folds to s; no other letter here has a partner outside ASCII.
  if (fold_case && rest.substr(0, 2) == "\xc5\xbf") return 3;
  const auto letter = [&](size_t i) {
    if (i >= rest.size()) return '\0';
    return fold_case ? AsciiLower(rest[i]) : rest[i];
  };
  const char first = letter(0);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 2;
  const char second = letter(1);
  if ((first == 'r' || first == 'v') && second == 'e') return 3;
  return first == 'l' && second == 'l' ? 3 : 0;
}

/// ` ?[^\s\p{L}\p{N}]+` and then any of `tail`; `at` itself when that does not match.
size_t OtherRun(Cursor cursor, absl::string_view tail) {
  const size_t begin = cursor.at;
  if (cursor.code == ' ') cursor.Step();
  if (!cursor.other()) return begin;
  while (cursor.other()) cursor.Step();
  while (!cursor.done() && cursor.code < 0x80 &&
         tail.find(static_cast<char>(cursor.code)) != absl::string_view::npos) {
    cursor.Step();
  }
  return cursor.at;
}

/// `\s+(?!\S)|\s+`, after `\s*[\r\n]+` when `lines`. There is white space at the cursor.
size_t SpaceRun(Cursor cursor, bool lines) {
  const size_t begin = cursor.at;
  size_t last = begin;  // start of the run's last code point
  size_t after_line_end = 0;
  while (cursor.space()) {
    last = cursor.at;
    if (cursor.line_end()) after_line_end = cursor.next;
    cursor.Step();
  }
  if (lines && after_line_end != 0) return after_line_end;
  // Before a word the last space stays for the word, unless it is the only one.
  return cursor.done() || last == begin ? cursor.at : last;
}

size_t ScanGpt2(const CharClasses& classes, absl::string_view text, size_t at) {
  if (const size_t length = Contraction(text, at, /*fold_case=*/false)) return at + length;
  Cursor cursor(classes, text, at);
  const Cursor begin = cursor;
  if (cursor.code == ' ') cursor.Step();
  if (cursor.letter()) {
    while (cursor.letter()) cursor.Step();
    return cursor.at;
  }
  if (cursor.number()) {
    while (cursor.number()) cursor.Step();
    return cursor.at;
  }
  const size_t end = OtherRun(begin, "");
  return end != at ? end : SpaceRun(begin, /*lines=*/false);
}

/// What QWEN2, LLAMA3 and TEKKEN share after words: numbers, others, line ends, spaces.
size_t ScanAfterWords(Cursor cursor, int digits_max, absl::string_view tail) {
  if (cursor.number()) {
    for (int i = 0; i < digits_max && cursor.number(); ++i) cursor.Step();
    return cursor.at;
  }
  const size_t end = OtherRun(cursor, tail);
  return end != cursor.at ? end : SpaceRun(cursor, /*lines=*/true);
}

template <int kDigitsMax>
size_t ScanQwen2(const CharClasses& classes, absl::string_view text, size_t at) {
  if (const size_t length = Contraction(text, at, /*fold_case=*/true)) return at + length;
  Cursor cursor(classes, text, at);
  const Cursor begin = cursor;
  if (cursor.may_lead_word()) cursor.Step();
  if (cursor.letter()) {
    while (cursor.letter()) cursor.Step();
    return cursor.at;
  }
  return ScanAfterWords(begin, kDigitsMax, "\r\n");
}

/// `upper* lower+` from the cursor, 0 when it does not match.
size_t UpperThenLower(Cursor cursor) {
  size_t after_shared = 0;  // end of the last code point of the run that is upper and lower
  while (cursor.upper()) {
    if (cursor.lower()) after_shared = cursor.next;
    cursor.Step();
  }
  if (!cursor.lower()) return after_shared;
  while (cursor.lower()) cursor.Step();
  return cursor.at;
}

/// `upper+ lower*` from the cursor, 0 when it does not match.
size_t UpperRun(Cursor cursor) {
  if (!cursor.upper()) return 0;
  while (cursor.upper()) cursor.Step();
  while (cursor.lower()) cursor.Step();
  return cursor.at;
}

size_t ScanTekken(const CharClasses& classes, absl::string_view text, size_t at) {
  const Cursor begin(classes, text, at);
  Cursor led = begin;
  if (led.may_lead_word()) led.Step();
  for (const auto word : {UpperThenLower, UpperRun}) {
    if (const size_t end = word(led)) return end;
    if (led.at != at) {
      if (const size_t end = word(begin)) return end;
    }
  }
  return ScanAfterWords(begin, 1, "\r\n/");
}

}  // namespace

SplitScanner ScannerFor(absl::string_view pattern) {
  if (pattern == kGpt2Pattern) return ScanGpt2;
  if (pattern == kQwen2Pattern) return ScanQwen2<1>;
  if (pattern == kLlama3Pattern) return ScanQwen2<3>;
  if (pattern == kTekkenPattern) return ScanTekken;
  return nullptr;
}

}  // namespace neurogrid
