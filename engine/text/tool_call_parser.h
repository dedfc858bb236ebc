// Tells tool calls from content in an answer that arrives in pieces.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "engine/text/answer_format.h"
#include "engine/text/answer_piece.h"
#include "engine/text/json_call.h"

namespace neurogrid {

/// Adds pieces of every kind but kReasoning. A call begins when it is certain to be one; what turns
/// out to be none is content, as it stood. White space around calls is dropped.
class ToolCallParser {
 public:
  explicit ToolCallParser(AnswerFormat format);

  /// Text without markers that are tokens.
  void Push(absl::string_view text, AnswerPieces& out);
  /// A marker that came as its token. Text before it must have been pushed.
  void Open(AnswerPieces& out);
  void Close(AnswerPieces& out);
  /// The end; `cut` when the answer would have gone on.
  void Finish(bool cut, AnswerPieces& out);

 private:
  enum class State : uint8_t {
    kText,
    kListBegin,  // before the [ of kJsonList
    kBefore,     // before the { of a call
    kCall,
    kAfter,   // behind the } of a call
    kPython,  // held back until its closing marker
  };

  size_t PushText(absl::string_view text, AnswerPieces& out);
  size_t ContentBytes(size_t end) const;
  bool TryBareCall();
  void PushInCall(char c, AnswerPieces& out);
  void PushCall(char c, AnswerPieces& out);
  void PushAfter(char c, AnswerPieces& out);
  bool ClosesTag();
  void BeginCall(absl::string_view marker);
  void BackToText(AnswerPieces& out);
  void Fail(AnswerPieces& out);
  void EndPython(bool closed, bool cut, AnswerPieces& out);
  bool EndJson(absl::string_view text, bool cut, AnswerPieces& out) const;
  bool Knows(const std::string& name) const;

  const AnswerFormat format_;
  State state_ = State::kText;
  JsonCall call_{nullptr};
  std::string held_;         // kText: blanks and what may begin a marker; else what is no piece yet
  bool may_begin_ = true;    // only blanks so far: kBareJson begins here
  bool after_call_ = false;  // only blanks since the last call
  bool in_blanks_ = false;   // content ended in a run of blanks that was too long to wait
};

}  // namespace neurogrid
