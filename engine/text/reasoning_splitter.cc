#include "engine/text/reasoning_splitter.h"

#include <utility>

#include "absl/strings/match.h"
#include "engine/text/marker_search.h"

namespace neurogrid {
namespace {

constexpr absl::string_view kBlanks = " \t\r\n";
constexpr size_t kBlanksMax = 64;  // before the opening tag; more of them are content

}  // namespace

ReasoningSplitter::ReasoningSplitter(Marker open, Marker close, ReasoningStart start)
    : open_(std::move(open)), close_(std::move(close)) {
  if (open_.text.empty() || close_.text.empty()) return;
  switch (start) {
    case ReasoningStart::kOutside:
      state_ = State::kStart;
      break;
    case ReasoningStart::kAfterOpenTag:
      state_ = State::kOpened;
      break;
    case ReasoningStart::kInside:
      state_ = State::kInside;
      break;
    case ReasoningStart::kAfterCloseTag:
      state_ = State::kClosed;
      break;
  }
}

void ReasoningSplitter::Release(size_t bytes, AnswerPieces& out) {
  AddText(out, inside() ? AnswerPiece::Kind::kReasoning : AnswerPiece::Kind::kContent,
          held_.substr(0, bytes));
  held_.erase(0, bytes);
}

void ReasoningSplitter::Push(absl::string_view text, AnswerPieces& out) {
  held_.append(text.data(), text.size());
  // Each round takes something from what is held, or waits for more.
  bool again = true;
  while (again && !held_.empty()) {
    switch (state_) {
      case State::kStart:
        again = PushStart();
        break;
      case State::kOpened:
        if (held_[0] == '\n') held_.erase(0, 1);
        state_ = State::kInside;
        break;
      case State::kInside:
        again = PushInside(out);
        break;
      case State::kClosed: {
        const size_t newlines = held_.find_first_not_of('\n');
        held_.erase(0, newlines);
        if (!held_.empty()) state_ = State::kOutside;
        break;
      }
      case State::kOutside:
        Release(held_.size(), out);
        break;
    }
  }
}

/// Nothing but white space so far: the opening tag may follow.
bool ReasoningSplitter::PushStart() {
  const size_t begin = held_.find_first_not_of(kBlanks.data(), 0, kBlanks.size());
  if (begin == std::string::npos && held_.size() <= kBlanksMax) return false;
  const absl::string_view text =
      absl::string_view(held_).substr(begin == std::string::npos ? held_.size() : begin);
  if (open_.id < 0 && !text.empty() && begin <= kBlanksMax) {
    if (absl::StartsWith(text, open_.text)) {
      held_.erase(0, begin + open_.text.size());
      state_ = State::kOpened;
      return true;
    }
    if (absl::StartsWith(open_.text, text)) return false;
  }
  state_ = State::kOutside;
  return true;
}

bool ReasoningSplitter::PushInside(AnswerPieces& out) {
  if (close_.id >= 0) {
    Release(held_.size(), out);
    return false;
  }
  const size_t found = held_.find(close_.text);
  if (found == std::string::npos) {
    Release(held_.size() - BytesThatMayBegin(close_.text, held_), out);
    return false;
  }
  Release(found, out);
  held_.erase(0, close_.text.size());
  state_ = State::kClosed;
  return true;
}

void ReasoningSplitter::Open(AnswerPieces& out) {
  if (state_ == State::kStart) held_.clear();  // white space
  Release(held_.size(), out);
  state_ = State::kOpened;
}

void ReasoningSplitter::Close(AnswerPieces& out) {
  Release(held_.size(), out);
  state_ = State::kClosed;
}

void ReasoningSplitter::Finish(AnswerPieces& out) { Release(held_.size(), out); }

}  // namespace neurogrid
