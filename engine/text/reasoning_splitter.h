// Tells reasoning from content in an answer that arrives in pieces.
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "engine/text/answer_format.h"
#include "engine/text/answer_piece.h"

namespace neurogrid {

/// Adds pieces of kinds kContent and kReasoning. The tags themselves, one newline after the opening
/// one, all after the closing one, and white space before the opening one belong to neither.
class ReasoningSplitter {
 public:
  ReasoningSplitter(Marker open, Marker close, ReasoningStart start);

  /// Text without tags that are tokens.
  void Push(absl::string_view text, AnswerPieces& out);
  /// A tag that came as its token. Text before it must have been pushed.
  void Open(AnswerPieces& out);
  void Close(AnswerPieces& out);
  /// What was held back, because it might have begun a tag.
  void Finish(AnswerPieces& out);

  bool inside() const { return state_ == State::kInside || state_ == State::kOpened; }

 private:
  enum class State : uint8_t { kStart, kOpened, kInside, kClosed, kOutside };

  bool PushStart();
  bool PushInside(AnswerPieces& out);
  void Release(size_t bytes, AnswerPieces& out);

  const Marker open_;
  const Marker close_;
  State state_ = State::kOutside;
  std::string held_;
};

}  // namespace neurogrid
