// Recursive descent over the tokens of a template, after jinja2's grammar.
#pragma once

#include <algorithm>
#include <initializer_list>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/jinja_ast.h"
#include "engine/text/jinja_lexer.h"

namespace neurogrid::jinja {

/// Expressions. Statements are in StatementParser, which derives from this.
class ExpressionParser {
 public:
  ExpressionParser(std::vector<Token> tokens, int nesting_max)
      : tokens_(std::move(tokens)), nesting_max_(nesting_max) {}
  virtual ~ExpressionParser() = default;

 protected:
  using Parsed = absl::StatusOr<ExpressionPtr>;

  enum class Items { kAny, kNoConditional, kTargets };
  struct TupleRules {
    Items items = Items::kAny;
    absl::string_view end_name = "";  // a name that ends the tuple: "in", "recursive"
    bool parentheses = false;         // "()" is a tuple
    bool namespaces = false;          // ns.x may be a target
  };

  Parsed ParseExpression(bool with_conditional = true);
  Parsed ParseTuple(const TupleRules& rules);
  Parsed ParsePrimary(bool namespaces = false);
  Parsed ParsePostfix(ExpressionPtr node);
  /// | name(arguments) | ...; `node` null in front of a block, where the first name has no pipe.
  Parsed ParseFilters(ExpressionPtr node, bool start_inline);

  const Token& current() const { return tokens_[place_]; }
  const Token& look() const { return tokens_[std::min(place_ + 1, tokens_.size() - 1)]; }
  const Token& Next() { return tokens_[std::min(place_++, tokens_.size() - 1)]; }
  bool IsOperator(absl::string_view text) const {
    return current().kind == TokenKind::kOperator && current().text == text;
  }
  bool IsName(absl::string_view text) const {
    return current().kind == TokenKind::kName && current().text == text;
  }
  bool SkipOperator(absl::string_view text) {
    const bool is = IsOperator(text);
    if (is) Next();
    return is;
  }
  bool SkipName(absl::string_view text) {
    const bool is = IsName(text);
    if (is) Next();
    return is;
  }
  absl::Status ExpectOperator(absl::string_view text);
  absl::Status ExpectKind(TokenKind kind);
  absl::StatusOr<std::string> ExpectName();
  absl::Status Fail(absl::string_view message) const {
    return ErrorAtLine(current().line, message);
  }
  absl::Status Unexpected(absl::string_view expected) const;

  ExpressionPtr New(ExpressionKind kind, std::vector<ExpressionPtr> operands = {}) const;
  /// Refuses trees deeper than the limit.
  Parsed Checked(ExpressionPtr node) const;

  /// Counts recursion; Enter before, Leave after.
  absl::Status Enter();
  void Leave() { --nesting_; }

  size_t place() const { return place_; }
  /// Whether a name was read as a variable at or after token `begin`.
  bool NameSince(size_t begin, absl::string_view name) const;

  static Value Literal(absl::string_view text);

  int conditional_ = 0;  // inside of if: an unknown filter there is an error only when reached

 private:
  Parsed ParseConditional();
  Parsed ParseOr();
  Parsed ParseAnd();
  Parsed ParseNot();
  Parsed ParseComparison();
  Parsed ParseSum();
  Parsed ParseConcatenation();
  Parsed ParseProduct();
  Parsed ParsePower();
  Parsed ParseUnary(bool with_filters);
  Parsed ParseLiteral();
  Parsed ParseList();
  Parsed ParseDict();
  Parsed ParseSubscript(ExpressionPtr node);
  Parsed ParseSubscripted(ExpressionPtr node);
  Parsed ParseTest(ExpressionPtr node);
  absl::StatusOr<CallArguments> ParseArguments();
  absl::Status ParseArgument(CallArguments& arguments);
  Parsed Arithmetics(Parsed (ExpressionParser::*operand)(),
                     std::initializer_list<std::pair<absl::string_view, Arithmetic>> operators);
  absl::StatusOr<std::string> ParseDottedName();
  bool AtTupleEnd(absl::string_view end_name) const;

  std::vector<Token> tokens_;
  size_t place_ = 0;
  const int nesting_max_;
  int nesting_ = 0;
};

}  // namespace neurogrid::jinja
