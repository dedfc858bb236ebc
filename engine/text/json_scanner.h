// Follows one JSON value byte by byte: tells where it ends, and that it is JSON (RFC 8259).
#pragma once

#include <cstdint>
#include <string>

namespace neurogrid {

class JsonScanner {
 public:
  enum class Step : uint8_t {
    kMore,    // the byte belongs to the value, which goes on
    kDone,    // the byte ended the value
    kBefore,  // the value ended before this byte (numbers end so); the byte was not taken
    kBad,     // no JSON, or nested deeper than 64 levels
  };
  /// Nothing may be pushed after an answer other than kMore.
  Step Push(char c);

 private:
  enum class State : uint8_t {
    kValue,       // a value, after white space
    kFirstValue,  // the same, or the end of an array
    kFirstKey,    // a key, or the end of an object
    kKey,
    kColon,
    kAfter,  // a comma, or the end of what holds the value
    kString,
    kEscape,
    kHex,
    kLiteral,
    kMinus,
    kZero,
    kInteger,
    kPoint,
    kFraction,
    kExponent,
    kSign,
    kPower,
  };
  Step BeginValue(char c);
  Step EndValue();
  Step PushString(char c);
  Step PushNumber(char c);
  Step PushStructure(char c);

  State state_ = State::kValue;
  std::string open_;       // '{' and '[' that are open
  bool in_key_ = false;    // the string is a key
  int hex_left_ = 0;       // digits of \uXXXX
  const char* rest_ = "";  // of a literal
};

}  // namespace neurogrid
