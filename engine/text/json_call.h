// One tool call written as a JSON object, read byte by byte; arguments pass through as they stand.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "engine/text/answer_piece.h"
#include "engine/text/json_scanner.h"

namespace neurogrid {

/// {"name": NAME, "arguments" or "parameters": {...}} in any order, beside "type" and "id". The
/// call begins when its name is known to be one of `names` and its arguments have begun.
class JsonCall {
 public:
  explicit JsonCall(const std::vector<std::string>* names) : names_(names) {}

  enum class Step : uint8_t { kMore, kDone, kBad };
  /// Adds to `out` what is certain. Nothing may be pushed after kDone or kBad.
  Step Push(char c, AnswerPieces& out);
  /// The text ended: a call whose arguments are whole counts as complete.
  void Finish(AnswerPieces& out);

  bool begun() const { return begun_; }

 private:
  enum class State : uint8_t { kBrace, kFirstKey, kKey, kInKey, kColon, kValue, kInValue, kAfter };

  Step EndKey();
  Step BeginValue(char c, AnswerPieces& out);
  Step PushValue(char c, AnswerPieces& out);
  Step EndValue();
  Step EndObject(AnswerPieces& out);
  Step PushAfter(char c, AnswerPieces& out);
  void Begin(AnswerPieces& out);

  const std::vector<std::string>* names_;
  State state_ = State::kBrace;
  JsonScanner scanner_;
  std::string key_;
  std::string value_;  // of the member that is read, unless it streams
  std::optional<std::string> name_;
  std::optional<std::string> arguments_;  // read before the name, or not as an object
  bool streams_ = false;                  // the value goes straight into the call
  bool begun_ = false;
  bool arguments_done_ = false;
};

}  // namespace neurogrid
