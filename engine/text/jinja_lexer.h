// Template source to tokens, with the white space rules of trim_blocks and lstrip_blocks
// (models.md 6.2).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/status.h"

namespace neurogrid::jinja {

enum class TokenKind {
  kText,           // outside of any tag
  kBlockBegin,     // {%
  kBlockEnd,       // %}
  kVariableBegin,  // {{
  kVariableEnd,    // }}
  kName,
  kString,
  kInteger,
  kFloat,
  kOperator,
  kEnd,
};

struct Token {
  TokenKind kind = TokenKind::kEnd;
  std::string text;  // text, name, operator, or a string with its escapes resolved
  int line = 1;
  int64_t integer = 0;
  double number = 0;
};

/// "line N: message" as InvalidArgument.
absl::Status ErrorAtLine(int line, absl::string_view message);

/// Ends with one kEnd. Errors name the line.
absl::StatusOr<std::vector<Token>> Tokenize(absl::string_view source);

}  // namespace neurogrid::jinja
