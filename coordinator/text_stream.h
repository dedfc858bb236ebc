// From generated tokens to the text a client sees: one choice's detokenizer and stop strings.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/text/detokenizer.h"
#include "engine/text/tokenizer.h"

namespace neurogrid {

struct TextStreamOptions {
  std::vector<std::string> stops;
  bool include_stop_text = false;
  int64_t tokens_min = 0;  // stop strings count from the token after these on
  bool skip_special = true;
  bool strip_leading_space = false;  // of the whole text
};

class TextStream {
 public:
  TextStream(const Tokenizer& tokenizer, TextStreamOptions options);

  struct Piece {
    std::string text;                 // released: whole code points, no beginning of a stop string
    std::optional<std::string> stop;  // the stop string that ended the text
  };
  /// Takes the next token. After a stop nothing more is released.
  Piece Push(int32_t token);
  /// What was held back, when the text ends for another reason.
  std::string Finish();

 private:
  const Tokenizer& tokenizer_;
  TextStreamOptions options_;
  Utf8Stream utf8_;
  StopMatcher matcher_;
  bool at_start_ = true;
  int64_t tokens_ = 0;
};

}  // namespace neurogrid
