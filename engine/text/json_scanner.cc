#include "engine/text/json_scanner.h"

#include <cstring>

namespace neurogrid {
namespace {

constexpr size_t kDepthMax = 64;

bool IsBlank(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsHex(char c) { return IsDigit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F'); }

}  // namespace

JsonScanner::Step JsonScanner::Push(char c) {
  switch (state_) {
    case State::kString:
    case State::kEscape:
    case State::kHex:
      return PushString(c);
    case State::kLiteral:
      if (c != *rest_) return Step::kBad;
      return *++rest_ == '\0' ? EndValue() : Step::kMore;
    case State::kMinus:
    case State::kZero:
    case State::kInteger:
    case State::kPoint:
    case State::kFraction:
    case State::kExponent:
    case State::kSign:
    case State::kPower:
      return PushNumber(c);
    case State::kValue:
    case State::kFirstValue:
    case State::kFirstKey:
    case State::kKey:
    case State::kColon:
    case State::kAfter:
      break;
  }
  return IsBlank(c) ? Step::kMore : PushStructure(c);
}

JsonScanner::Step JsonScanner::PushStructure(char c) {
  switch (state_) {
    case State::kFirstValue:
      if (c == ']') break;
      return BeginValue(c);
    case State::kFirstKey:
    case State::kKey:
      if (c == '}' && state_ == State::kFirstKey) break;
      if (c != '"') return Step::kBad;
      in_key_ = true;
      state_ = State::kString;
      return Step::kMore;
    case State::kColon:
      state_ = State::kValue;
      return c == ':' ? Step::kMore : Step::kBad;
    case State::kAfter:
      if (c == ',') {
        state_ = open_.back() == '{' ? State::kKey : State::kValue;
        return Step::kMore;
      }
      if (c != (open_.back() == '{' ? '}' : ']')) return Step::kBad;
      break;
    default:
      return BeginValue(c);
  }
  open_.pop_back();
  return EndValue();
}

JsonScanner::Step JsonScanner::BeginValue(char c) {
  switch (c) {
    case '{':
    case '[':
      if (open_.size() >= kDepthMax) return Step::kBad;
      open_ += c;
      state_ = c == '{' ? State::kFirstKey : State::kFirstValue;
      return Step::kMore;
    case '"':
      in_key_ = false;
      state_ = State::kString;
      return Step::kMore;
    case 't':
    case 'f':
    case 'n':
      rest_ = c == 't' ? "rue" : c == 'f' ? "alse" : "ull";
      state_ = State::kLiteral;
      return Step::kMore;
    default:
      if (c != '-' && !IsDigit(c)) return Step::kBad;
      state_ = c == '-' ? State::kMinus : c == '0' ? State::kZero : State::kInteger;
      return Step::kMore;
  }
}

JsonScanner::Step JsonScanner::EndValue() {
  state_ = State::kAfter;
  return open_.empty() ? Step::kDone : Step::kMore;
}

JsonScanner::Step JsonScanner::PushString(char c) {
  if (state_ == State::kHex) {
    if (!IsHex(c)) return Step::kBad;
    if (--hex_left_ == 0) state_ = State::kString;
    return Step::kMore;
  }
  if (state_ == State::kEscape) {
    if (std::strchr("\"\\/bfnrtu", c) == nullptr || c == '\0') return Step::kBad;
    state_ = c == 'u' ? State::kHex : State::kString;
    hex_left_ = 4;
    return Step::kMore;
  }
  if (static_cast<unsigned char>(c) < 0x20) return Step::kBad;
  if (c == '\\') state_ = State::kEscape;
  if (c != '"') return Step::kMore;
  if (!in_key_) return EndValue();
  state_ = State::kColon;
  return Step::kMore;
}

JsonScanner::Step JsonScanner::PushNumber(char c) {
  const auto go = [&](State next) {
    state_ = next;
    return Step::kMore;
  };
  const bool digit = IsDigit(c);
  switch (state_) {
    case State::kMinus:
      return digit ? go(c == '0' ? State::kZero : State::kInteger) : Step::kBad;
    case State::kZero:
    case State::kInteger:
      if (digit) return state_ == State::kZero ? Step::kBad : Step::kMore;
      if (c == '.') return go(State::kPoint);
      if (c == 'e' || c == 'E') return go(State::kExponent);
      break;
    case State::kPoint:
      return digit ? go(State::kFraction) : Step::kBad;
    case State::kFraction:
      if (digit) return Step::kMore;
      if (c == 'e' || c == 'E') return go(State::kExponent);
      break;
    case State::kExponent:
      if (c == '+' || c == '-') return go(State::kSign);
      return digit ? go(State::kPower) : Step::kBad;
    case State::kSign:
      return digit ? go(State::kPower) : Step::kBad;
    default:
      if (digit) return Step::kMore;
      break;
  }
  if (EndValue() == Step::kDone) return Step::kBefore;
  return Push(c);
}

}  // namespace neurogrid
