// From generated tokens to what a client reads: one choice's detokenizer, stop strings, reasoning
// and tool calls.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/text/answer_format.h"
#include "engine/text/answer_piece.h"
#include "engine/text/detokenizer.h"
#include "engine/text/reasoning_splitter.h"
#include "engine/text/tool_call_parser.h"

namespace neurogrid {

struct AnswerOptions {
  AnswerFormat format;
  std::vector<std::string> stops;  // in content and calls, not in reasoning
  bool include_stop_text = false;
  int64_t tokens_min = 0;  // stop strings count from the token after these on
  bool skip_special = true;
  bool strip_leading_space = false;  // of the whole text
};

/// Tokens in, pieces out as soon as they are certain: any way of cutting the text into tokens gives
/// the same pieces when joined. Linear time.
class AnswerParser {
 public:
  explicit AnswerParser(AnswerOptions options);

  struct Step {
    AnswerPieces pieces;
    std::optional<std::string> stop;  // the stop string that ended the answer
  };
  /// Takes the next token: its id, its bytes, and whether it is special. After a stop nothing more
  /// is released.
  Step Push(int32_t id, absl::string_view bytes, bool special);
  /// What was held back, when the answer ends for another reason; `cut` when it would have gone on.
  AnswerPieces Finish(bool cut);

  bool in_reasoning() const { return reasoning_.inside(); }
  /// Tokens of reasoning, through the closing tag.
  int64_t reasoning_tokens() const { return reasoning_tokens_; }
  /// The same without the opening tag, since reasoning was opened last.
  int64_t open_reasoning_tokens() const { return open_reasoning_tokens_; }

 private:
  bool TakeMarker(int32_t id, bool may_stop, Step& step);
  void Feed(absl::string_view text, bool may_stop, Step& step);
  void Take(const AnswerPieces& parts, bool may_stop, Step& step);
  std::optional<std::string> StopOf(absl::string_view bytes) const;

  AnswerOptions options_;
  Utf8Stream utf8_;
  ReasoningSplitter reasoning_;
  StopMatcher matcher_;
  ToolCallParser calls_;
  bool at_start_ = true;
  bool ended_ = false;
  int64_t tokens_ = 0;
  int64_t reasoning_tokens_ = 0;
  int64_t open_reasoning_tokens_ = 0;
};

}  // namespace neurogrid
