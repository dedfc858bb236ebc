// What a client reads of an answer: pieces of content, reasoning and tool calls, in order.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace neurogrid {

struct AnswerPiece {
  enum class Kind : uint8_t {
    kContent,
    kReasoning,
    kCallBegin,  // text: the function's name
    kArguments,  // text: more JSON of the call that began last
    kCallEnd,    // the call is complete; without it, it was cut or went wrong
  };
  Kind kind = Kind::kContent;
  std::string text;
  bool operator==(const AnswerPiece&) const = default;
};

using AnswerPieces = std::vector<AnswerPiece>;

/// Appends text, to the last piece where that is of the same kind.
inline void AddText(AnswerPieces& pieces, AnswerPiece::Kind kind, std::string text) {
  if (text.empty()) return;
  if (!pieces.empty() && pieces.back().kind == kind) {
    pieces.back().text += text;
  } else {
    pieces.push_back({kind, std::move(text)});
  }
}

/// The text of one kind, joined.
inline std::string TextOf(const AnswerPieces& pieces, AnswerPiece::Kind kind) {
  std::string text;
  for (const AnswerPiece& piece : pieces) {
    if (piece.kind == kind) text += piece.text;
  }
  return text;
}

}  // namespace neurogrid
