// The tree a chat template is compiled to. Depth is bounded by the parser, so walking it may
// recurse.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/text/jinja_ops.h"

namespace neurogrid::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct CallArguments {
  std::vector<ExpressionPtr> positional;
  struct Keyword {
    Value name;  // a string of the template
    ExpressionPtr value;
  };
  std::vector<Keyword> keyword;
  ExpressionPtr star;         // *values
  ExpressionPtr double_star;  // **mapping
};

enum class ExpressionKind {
  kConstant,
  kName,          // name
  kTuple,         // operands
  kList,          // operands
  kDict,          // operands: key, value, key, value ...
  kConditional,   // operands: condition, then, else (may be missing)
  kOr,            // operands
  kAnd,           // operands
  kNot,           // operands[0]
  kComparison,    // operands joined by comparisons
  kArithmetic,    // operands joined by arithmetics, from left to right
  kConcatenate,   // operands
  kNegate,        // operands[0]
  kPositive,      // operands[0]
  kAttribute,     // operands[0].constant
  kItem,          // operands[0][operands[1]]
  kSlice,         // operands[0][operands[1]:operands[2]:operands[3]], each may be null
  kCall,          // operands[0](arguments)
  kFilter,        // operands[0] | name(arguments); no operand in front of a block
  kTest,          // operands[0] is [not] name(arguments)
  kNamespaceRef,  // target only: name.constant
};

enum class Comparison {
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn
};

struct Expression {
  ExpressionKind kind = ExpressionKind::kConstant;
  int line = 0;
  int depth = 1;
  std::string name;
  Value constant;
  std::vector<ExpressionPtr> operands;
  std::vector<Comparison> comparisons;
  std::vector<Arithmetic> arithmetics;
  CallArguments arguments;
  Builtin builtin = nullptr;  // filter or test; null: unknown, an error when reached
  bool negated = false;       // is not
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

struct Parameter {
  std::string name;
  ExpressionPtr otherwise;  // null: none
};

/// The callable part of a macro or call block.
struct MacroDefinition {
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
  bool uses_caller = false;
  bool uses_varargs = false;
  bool uses_kwargs = false;
};

enum class StatementKind {
  kText,         // text
  kPrint,        // expression
  kFor,          // target, expression, condition, body, otherwise; flag: recursive
  kIf,           // branches, otherwise
  kSet,          // target, expression
  kSetBlock,     // target, filter (may be null), body
  kMacro,        // macro
  kCallBlock,    // expression (a call), macro
  kFilterBlock,  // filter, body
  kWith,         // assignments, body
  kBlock,        // body, sees the outermost scope only
  kScope,        // body in a scope of its own ({% generation %})
  kBreak,
  kContinue,
  kUnavailable,  // text says what
};

struct Statement {
  StatementKind kind = StatementKind::kText;
  int line = 0;
  Value text;
  ExpressionPtr target;
  ExpressionPtr expression;
  ExpressionPtr condition;
  ExpressionPtr filter;
  Body body;
  Body otherwise;
  std::vector<std::pair<ExpressionPtr, Body>> branches;
  std::vector<std::pair<ExpressionPtr, ExpressionPtr>> assignments;
  MacroDefinition macro;
  bool flag = false;
};

/// Parses a whole template; errors name the line. `nesting_max` bounds statements and expressions
/// alike.
absl::StatusOr<Body> Parse(absl::string_view source, int nesting_max);

}  // namespace neurogrid::jinja
