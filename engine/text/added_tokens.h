// Added tokens: spellings that are found in the text before any splitting (models.md 5.1).
#pragma once

#include <array>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/strings/string_view.h"
#include "engine/text/marked_text.h"

namespace neurogrid {

struct AddedToken {
  int32_t id = 0;
  std::string content;
  bool special = false;
  bool normalized = false;   // looked for in the normalised text, in its own normalised form
  bool single_word = false;  // dropped when it touches a word character
  bool lstrip = false;       // swallows the white space before it
  bool rstrip = false;
};

/// A stretch of text, or the token found there.
struct TextPart {
  ByteRange range;
  int32_t id = -1;  // -1: text
};

/// Splits text at added tokens: at each place the longest one that is allowed there wins.
class AddedTokenMatcher {
 public:
  /// Each token is looked for as `spelling`; empty spellings are never found.
  struct Pattern {
    std::string spelling;
    AddedToken token;
  };
  explicit AddedTokenMatcher(std::vector<Pattern> patterns);

  bool empty() const { return patterns_.empty(); }

  /// Parts of `text` in order, none of them empty text. `allowed` refuses a token at a place; a
  /// shorter or later one may then be found there. Time: text times the longest spelling, and in
  /// practice one table look-up a byte, because few bytes begin a token.
  std::vector<TextPart> Split(absl::string_view text,
                              absl::FunctionRef<bool(int32_t id, ByteRange place)> allowed) const;

 private:
  /// The longest allowed pattern at `begin`, or null.
  const Pattern* LongestAt(absl::string_view text, size_t begin,
                           absl::FunctionRef<bool(int32_t, ByteRange)> allowed) const;

  std::vector<Pattern> patterns_;  // sorted by spelling, each spelling once
  std::array<uint32_t, 257>
      first_byte_;  // patterns beginning with byte b: [first_byte_[b], first_byte_[b + 1])
};

}  // namespace neurogrid
