#include "engine/text/json_call.h"

#include <algorithm>
#include <utility>

#include "common/json.h"

namespace neurogrid {
namespace {

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

bool IsArguments(const std::string& key) { return key == "arguments" || key == "parameters"; }

/// The text of a JSON string, or nothing.
std::optional<std::string> StringOf(const std::string& json) {
  const absl::StatusOr<Json> value = ParseJson(json);
  if (!value.ok() || !value->is_string()) return std::nullopt;
  return value->as_string();
}

}  // namespace

JsonCall::Step JsonCall::Push(char c, AnswerPieces& out) {
  if (state_ == State::kInValue) return PushValue(c, out);
  if (state_ == State::kInKey) {
    value_ += c;
    const JsonScanner::Step step = scanner_.Push(c);
    if (step == JsonScanner::Step::kDone) return EndKey();
    return step == JsonScanner::Step::kMore ? Step::kMore : Step::kBad;
  }
  if (IsBlank(c)) return Step::kMore;
  switch (state_) {
    case State::kBrace:
      state_ = State::kFirstKey;
      return c == '{' ? Step::kMore : Step::kBad;
    case State::kFirstKey:
    case State::kKey:
      if (c != '"') return Step::kBad;
      state_ = State::kInKey;
      scanner_ = {};
      value_ = c;
      scanner_.Push(c);
      return Step::kMore;
    case State::kColon:
      state_ = State::kValue;
      return c == ':' ? Step::kMore : Step::kBad;
    case State::kValue:
      return BeginValue(c, out);
    default:
      return PushAfter(c, out);
  }
}

JsonCall::Step JsonCall::EndKey() {
  const std::optional<std::string> key = StringOf(value_);
  if (!key.has_value()) return Step::kBad;
  // Other keys are no call's: a JSON answer that only looks like one is let go early.
  const bool twice = (*key == "name" && name_.has_value()) ||
                     (IsArguments(*key) && (begun_ || arguments_.has_value()));
  const bool known = *key == "name" || *key == "type" || *key == "id" || IsArguments(*key);
  key_ = *key;
  state_ = State::kColon;
  return known && !twice ? Step::kMore : Step::kBad;
}

JsonCall::Step JsonCall::BeginValue(char c, AnswerPieces& out) {
  state_ = State::kInValue;
  scanner_ = {};
  value_.clear();
  streams_ = IsArguments(key_) && name_.has_value() && c == '{';
  if (streams_) Begin(out);
  return PushValue(c, out);
}

JsonCall::Step JsonCall::PushValue(char c, AnswerPieces& out) {
  const JsonScanner::Step step = scanner_.Push(c);
  if (step == JsonScanner::Step::kBad) return Step::kBad;
  if (step != JsonScanner::Step::kBefore) {
    if (streams_) {
      AddText(out, AnswerPiece::Kind::kArguments, std::string(1, c));
    } else {
      value_ += c;
    }
  }
  if (step == JsonScanner::Step::kMore) return Step::kMore;
  const Step ended = EndValue();
  if (ended == Step::kBad || step == JsonScanner::Step::kDone) return ended;
  return IsBlank(c) ? Step::kMore : PushAfter(c, out);
}

JsonCall::Step JsonCall::EndValue() {
  state_ = State::kAfter;
  if (std::exchange(streams_, false)) {
    arguments_done_ = true;
  } else if (key_ == "name") {
    name_ = StringOf(value_);
    if (!name_.has_value()) return Step::kBad;
    if (std::find(names_->begin(), names_->end(), *name_) == names_->end()) return Step::kBad;
  } else if (IsArguments(key_)) {
    // Some models write the object as a string once more.
    arguments_ = value_[0] == '"' ? StringOf(value_).value_or("") : value_;
    const absl::StatusOr<Json> object = ParseJson(*arguments_);
    if (!object.ok() || !object->is_object()) return Step::kBad;
  }
  return Step::kMore;
}

JsonCall::Step JsonCall::PushAfter(char c, AnswerPieces& out) {
  if (c == ',') {
    state_ = State::kKey;
    return Step::kMore;
  }
  return c == '}' ? EndObject(out) : Step::kBad;
}

JsonCall::Step JsonCall::EndObject(AnswerPieces& out) {
  if (!name_.has_value()) return Step::kBad;
  if (!begun_) {
    Begin(out);
    AddText(out, AnswerPiece::Kind::kArguments, arguments_.value_or("{}"));
  }
  out.push_back({AnswerPiece::Kind::kCallEnd, ""});
  return Step::kDone;
}

void JsonCall::Begin(AnswerPieces& out) {
  begun_ = true;
  out.push_back({AnswerPiece::Kind::kCallBegin, *name_});
}

void JsonCall::Finish(AnswerPieces& out) {
  if (begun_ && arguments_done_) out.push_back({AnswerPiece::Kind::kCallEnd, ""});
}

}  // namespace neurogrid
