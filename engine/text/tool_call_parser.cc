#include "engine/text/tool_call_parser.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "engine/text/marker_search.h"
#include "engine/text/python_calls.h"

namespace neurogrid {
namespace {

using Kind = AnswerPiece::Kind;

constexpr size_t kBlanksMax = 64;  // longer runs are content, whatever follows
constexpr size_t kChunk = 256;     // text is looked through in steps, so that time stays linear

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

bool AllBlank(absl::string_view text) { return std::all_of(text.begin(), text.end(), IsBlank); }

/// How many blanks end a text, counted up to one more than may wait.
size_t BlanksAtEnd(absl::string_view text) {
  size_t count = 0;
  while (count < text.size() && count <= kBlanksMax && IsBlank(text[text.size() - 1 - count])) {
    ++count;
  }
  return count;
}

}  // namespace

ToolCallParser::ToolCallParser(AnswerFormat format) : format_(std::move(format)) {}

bool ToolCallParser::Knows(const std::string& name) const {
  return std::find(format_.tool_names.begin(), format_.tool_names.end(), name) !=
         format_.tool_names.end();
}

void ToolCallParser::Push(absl::string_view text, AnswerPieces& out) {
  if (format_.tools == ToolSyntax::kNone) {
    AddText(out, Kind::kContent, std::string(text));
    return;
  }
  while (!text.empty()) {
    if (state_ == State::kText) {
      text.remove_prefix(PushText(text.substr(0, kChunk), out));
    } else if (state_ == State::kPython && format_.call_close.id >= 0) {
      held_.append(text.data(), text.size());
      return;
    } else {
      PushInCall(text[0], out);
      text.remove_prefix(1);
    }
  }
}

/// Releases what can be nothing but content. Returns how many bytes of `text` it took: those up to
/// a call, when one begins.
size_t ToolCallParser::PushText(absl::string_view text, AnswerPieces& out) {
  const size_t before = held_.size();
  held_.append(text.data(), text.size());
  if (TryBareCall()) {
    const size_t brace = held_.find('{');
    held_.resize(brace);
    state_ = State::kBefore;
    return brace - before;
  }
  if (may_begin_ && format_.tools == ToolSyntax::kBareJson) return text.size();
  const Marker& open = format_.call_open;
  size_t kept = 0;
  if (open.id < 0 && !open.text.empty()) {
    const size_t found = held_.find(open.text);
    if (found != std::string::npos) {
      const size_t content = ContentBytes(found);
      AddText(out, Kind::kContent, held_.substr(0, content));
      held_ = held_.substr(content, found - content);
      BeginCall(open.text);
      return found + open.text.size() - before;
    }
    kept = BytesThatMayBegin(open.text, held_);
  }
  const size_t release = ContentBytes(held_.size() - kept);
  if (release > 0) {
    const size_t blanks = BlanksAtEnd(absl::string_view(held_).substr(0, release));
    in_blanks_ = blanks > kBlanksMax || (blanks == release && in_blanks_);
    AddText(out, Kind::kContent, held_.substr(0, release));
    held_.erase(0, release);
    may_begin_ = after_call_ = false;
  }
  return text.size();
}

/// How much of held_[0, end) is content whatever follows: all but the blanks at its end.
size_t ToolCallParser::ContentBytes(size_t end) const {
  const size_t blanks = BlanksAtEnd(absl::string_view(held_).substr(0, end));
  const bool many = blanks > kBlanksMax || (blanks == end && in_blanks_);
  return many ? end : end - blanks;
}

/// Whether held_ is blanks and the { of a call without a marker.
bool ToolCallParser::TryBareCall() {
  if (format_.tools != ToolSyntax::kBareJson || !may_begin_) return false;
  const absl::string_view text = absl::StripLeadingAsciiWhitespace(held_);
  if (text.empty() && held_.size() <= kBlanksMax) return false;
  may_begin_ = false;
  return absl::StartsWith(text, "{") && held_.size() - text.size() <= kBlanksMax;
}

void ToolCallParser::BeginCall(absl::string_view marker) {
  held_.append(marker.data(), marker.size());
  may_begin_ = after_call_ = in_blanks_ = false;
  switch (format_.tools) {
    case ToolSyntax::kJsonList:
      state_ = State::kListBegin;
      break;
    case ToolSyntax::kPython:
      state_ = State::kPython;
      break;
    case ToolSyntax::kNone:
    case ToolSyntax::kTagged:
    case ToolSyntax::kBareJson:
      state_ = State::kBefore;
      break;
  }
}

void ToolCallParser::PushInCall(char c, AnswerPieces& out) {
  switch (state_) {
    case State::kText:
      break;
    case State::kListBegin:
      held_ += c;
      if (c == '[') {
        state_ = State::kBefore;
      } else if (!IsBlank(c)) {
        Fail(out);
      }
      break;
    case State::kBefore:
      if (c == '{') {
        call_ = JsonCall(&format_.tool_names);
        state_ = State::kCall;
        PushCall(c, out);
        break;
      }
      held_ += c;
      if (!IsBlank(c)) Fail(out);
      break;
    case State::kCall:
      PushCall(c, out);
      break;
    case State::kAfter:
      PushAfter(c, out);
      break;
    case State::kPython:
      held_ += c;
      if (absl::EndsWith(held_, format_.call_close.text)) {
        held_.resize(held_.size() - format_.call_close.text.size());
        EndPython(/*closed=*/true, /*cut=*/false, out);
      }
      break;
  }
}

void ToolCallParser::PushCall(char c, AnswerPieces& out) {
  const JsonCall::Step step = call_.Push(c, out);
  if (!call_.begun()) {
    held_ += c;
  } else if (step == JsonCall::Step::kBad) {
    held_ = c;
  } else {
    held_.clear();
  }
  if (step == JsonCall::Step::kBad) Fail(out);
  if (step != JsonCall::Step::kDone) return;
  held_.clear();
  state_ = State::kAfter;
}

void ToolCallParser::PushAfter(char c, AnswerPieces& out) {
  held_ += c;
  switch (format_.tools) {
    case ToolSyntax::kTagged:
      if (held_.size() <= kBlanksMax && AllBlank(held_)) return;
      if (format_.call_close.id < 0 && ClosesTag()) return;
      break;
    case ToolSyntax::kBareJson:
      if (IsBlank(c) || c == ';') return;
      if (c != '{') break;
      held_.pop_back();
      state_ = State::kBefore;
      return PushInCall(c, out);
    case ToolSyntax::kJsonList:
      if (IsBlank(c)) return;
      if (c == ',') state_ = State::kBefore;
      if (c == ']') {
        held_.clear();
        state_ = State::kText;
        after_call_ = true;
      }
      if (c == ',' || c == ']') return;
      break;
    case ToolSyntax::kNone:
    case ToolSyntax::kPython:
      break;
  }
  BackToText(out);
}

/// Whether held_ is a closing marker, or may become one.
bool ToolCallParser::ClosesTag() {
  const absl::string_view text = absl::StripLeadingAsciiWhitespace(held_);
  if (text.empty()) return false;  // too many blanks
  if (text != format_.call_close.text) return absl::StartsWith(format_.call_close.text, text);
  held_.clear();
  state_ = State::kText;
  after_call_ = true;
  return true;
}

/// What is held follows a complete call and is no part of it.
void ToolCallParser::BackToText(AnswerPieces& out) {
  state_ = State::kText;
  after_call_ = true;
  const std::string rest = std::exchange(held_, {});
  Push(rest, out);
}

/// What is held was to be a call and is none.
void ToolCallParser::Fail(AnswerPieces& out) {
  AddText(out, Kind::kContent, std::exchange(held_, {}));
  state_ = State::kText;
  may_begin_ = after_call_ = in_blanks_ = false;
}

void ToolCallParser::Open(AnswerPieces& out) {
  if (state_ == State::kPython) {
    EndPython(/*closed=*/false, /*cut=*/false, out);
  } else if (state_ == State::kAfter) {
    held_.clear();
  } else if (state_ != State::kText) {
    Fail(out);
  }
  BeginCall(format_.call_open.text);
}

void ToolCallParser::Close(AnswerPieces& out) {
  switch (state_) {
    case State::kPython:
      return EndPython(/*closed=*/true, /*cut=*/false, out);
    case State::kCall:
      if (!call_.begun()) break;
      call_.Finish(out);
      [[fallthrough]];
    case State::kAfter:
      held_.clear();
      state_ = State::kText;
      after_call_ = true;
      return;
    case State::kText:
    case State::kListBegin:
    case State::kBefore:
      break;
  }
  held_ += format_.call_close.text;
  Fail(out);
}

void ToolCallParser::Finish(bool cut, AnswerPieces& out) {
  switch (state_) {
    case State::kPython:
      return EndPython(/*closed=*/false, cut, out);
    case State::kCall:
      if (call_.begun()) return call_.Finish(out);
      break;
    case State::kAfter:
      return;  // blanks, or the beginning of a closing marker
    case State::kText:
      if (after_call_ && AllBlank(held_)) return;
      break;
    case State::kListBegin:
    case State::kBefore:
      break;
  }
  Fail(out);
}

/// held_ has blanks, the opening marker and a list of calls.
void ToolCallParser::EndPython(bool closed, bool cut, AnswerPieces& out) {
  const size_t begin = held_.find(format_.call_open.text) + format_.call_open.text.size();
  const absl::string_view text = absl::string_view(held_).substr(begin);
  const PythonCalls read = ReadPythonCalls(text);
  const bool known = std::all_of(read.calls.begin(), read.calls.end(),
                                 [&](const PythonCall& call) { return Knows(call.name); });
  const bool stays = cut && read.cut && Knows(read.open_name);
  if (known && (read.whole || stays)) {
    for (const PythonCall& call : read.calls) {
      out.push_back({Kind::kCallBegin, call.name});
      AddText(out, Kind::kArguments, call.arguments);
      out.push_back({Kind::kCallEnd, ""});
    }
    if (!read.whole) out.push_back({Kind::kCallBegin, read.open_name});
  } else if (!EndJson(text, cut, out)) {
    if (closed) held_ += format_.call_close.text;
    return Fail(out);
  }
  held_.clear();
  state_ = State::kText;
  after_call_ = true;
}

/// The same model writes JSON between the markers when it is asked to.
bool ToolCallParser::EndJson(absl::string_view text, bool cut, AnswerPieces& out) const {
  AnswerFormat format;
  format.tools = ToolSyntax::kJsonList;
  format.tool_names = format_.tool_names;
  ToolCallParser list(std::move(format));
  list.BeginCall("");
  AnswerPieces pieces;
  list.Push(text, pieces);
  list.Finish(cut, pieces);
  const bool content = std::any_of(pieces.begin(), pieces.end(), [](const AnswerPiece& piece) {
    return piece.kind == Kind::kContent;
  });
  if (content || pieces.empty()) return false;
  out.insert(out.end(), pieces.begin(), pieces.end());
  return true;
}

}  // namespace neurogrid
