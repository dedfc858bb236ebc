// UTF-8 in and out, and the character classes that the split patterns of tokenizers speak of.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace neurogrid {

/// What stands at the front of bytes that need not be UTF-8.
struct Utf8Step {
  enum Kind : uint8_t {
    kValid,      // one code point
    kInvalid,    // a maximal subpart of an ill-formed sequence (Unicode 16, 3.9): one U+FFFD
    kTruncated,  // all of the bytes, and more bytes could complete them
  };
  Kind kind = kInvalid;
  int length = 1;
  char32_t code = 0xFFFD;
};

/// `bytes` is not empty.
Utf8Step StepUtf8(absl::string_view bytes);

/// Place of the first byte that is not UTF-8 (RFC 3629); bytes.size() when all of it is.
size_t FirstInvalidUtf8(absl::string_view bytes);

void AppendUtf8(std::string& out, char32_t code);

/// The code point at `at`, moving `at` past it. The text must be valid there.
inline char32_t NextCodePoint(absl::string_view text, size_t& at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[at + i]); };
  const char32_t lead = byte(0);
  if (lead < 0x80) {
    at += 1;
    return lead;
  }
  if (lead < 0xe0) {
    const char32_t code = ((lead & 0x1fu) << 6) | (byte(1) & 0x3fu);
    at += 2;
    return code;
  }
  if (lead < 0xf0) {
    const char32_t code = ((lead & 0xfu) << 12) | ((byte(1) & 0x3fu) << 6) | (byte(2) & 0x3fu);
    at += 3;
    return code;
  }
  const char32_t code = ((lead & 7u) << 18) | ((byte(1) & 0x3fu) << 12) | ((byte(2) & 0x3fu) << 6) |
                        (byte(3) & 0x3fu);
  at += 4;
  return code;
}

/// Start of the code point that ends at `end`, which is above 0.
inline size_t CodePointBefore(absl::string_view text, size_t end) {
  size_t at = end - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80) --at;
  return at;
}

/// General categories of Unicode 16.0, as far as patterns ask for them.
enum class CharClass : uint8_t {
  kOther,
  kLu,
  kLl,
  kLt,
  kLm,
  kLo,
  kMark,
  kNumber,       // Nd and Nl
  kNumber17,     // category N only since Unicode 17.0: a digit for the Digits pre-tokenizer alone
  kSpace,        // the 25 code points of White_Space
  kNumberOther,  // No: a number, but no word character
};

/// Every code point's class, in two stages of lookup.
class CharClasses {
 public:
  /// Built on first use.
  static const CharClasses& Get();

  CharClass Of(char32_t code) const {
    return static_cast<CharClass>(blocks_[block_of_[code >> 8]][code & 0xff]);
  }
  bool IsSpace(char32_t code) const { return Of(code) == CharClass::kSpace; }

 private:
  CharClasses();
  std::array<uint16_t, 0x1100> block_of_;
  std::vector<std::array<uint8_t, 256>> blocks_;
};

/// \w of single_word and of the Whitespace pre-tokenizer (Unicode Technical Standard 18, Annex C):
/// Alphabetic, marks, Nd, connector punctuation, Join_Control.
bool IsWord(char32_t code);

}  // namespace neurogrid
