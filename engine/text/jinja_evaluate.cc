// Expressions.
#include "absl/strings/str_cat.h"
#include "engine/text/jinja_interpreter.h"

namespace neurogrid::jinja {

absl::StatusOr<Value> Interpreter::Evaluate(const Expression& expression) {
  NG_RETURN_IF_ERROR(WithLine(runtime_.Charge(), expression.line));
  if (expression.kind == ExpressionKind::kConstant) return expression.constant;
  NG_RETURN_IF_ERROR(WithLine(Enter(), expression.line));
  absl::StatusOr<Value> value = WithLine(EvaluateInside(expression), expression.line);
  Leave();
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateInside(const Expression& expression) {
  switch (expression.kind) {
    case ExpressionKind::kConstant:
    case ExpressionKind::kNamespaceRef:
      return expression.constant;
    case ExpressionKind::kName:
      return EvaluateName(expression);
    case ExpressionKind::kTuple:
    case ExpressionKind::kList: {
      NG_ASSIGN_OR_RETURN(std::vector<Value> items, EvaluateAll(expression.operands));
      return expression.kind == ExpressionKind::kList ? runtime_.NewList(std::move(items))
                                                      : runtime_.NewTuple(std::move(items));
    }
    case ExpressionKind::kDict:
      return EvaluateDict(expression);
    case ExpressionKind::kConditional:
    case ExpressionKind::kOr:
    case ExpressionKind::kAnd:
    case ExpressionKind::kNot:
      return EvaluateLogic(expression);
    case ExpressionKind::kComparison:
      return EvaluateComparison(expression);
    case ExpressionKind::kArithmetic:
      return EvaluateArithmetic(expression);
    case ExpressionKind::kConcatenate:
      return EvaluateConcatenation(expression);
    case ExpressionKind::kNegate:
    case ExpressionKind::kPositive: {
      NG_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.operands[0]));
      return expression.kind == ExpressionKind::kNegate ? Negate(value) : Positive(value);
    }
    case ExpressionKind::kAttribute: {
      NG_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.operands[0]));
      return GetAttribute(runtime_, value, expression.constant);
    }
    case ExpressionKind::kItem: {
      NG_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.operands[0]));
      NG_ASSIGN_OR_RETURN(const Value key, Evaluate(*expression.operands[1]));
      return GetItem(runtime_, value, key);
    }
    case ExpressionKind::kSlice:
      return EvaluateSlice(expression);
    case ExpressionKind::kCall: {
      NG_ASSIGN_OR_RETURN(const Value callee, Evaluate(*expression.operands[0]));
      Arguments arguments;
      NG_RETURN_IF_ERROR(EvaluateArguments(expression.arguments, arguments));
      return Call(runtime_, callee, arguments);
    }
    case ExpressionKind::kFilter:
    case ExpressionKind::kTest:
      return EvaluateBuiltin(expression);
  }
  return Value();
}

absl::StatusOr<Value> Interpreter::EvaluateName(const Expression& expression) {
  if (const Value* const found = scope_->Find(expression.name)) return *found;
  const auto given = context_.find(expression.name);
  if (given != context_.end()) return given->second;
  NG_ASSIGN_OR_RETURN(const std::optional<Value> global, FindGlobal(runtime_, expression.name));
  if (global.has_value()) return *global;
  return runtime_.NewUndefined(absl::StrCat("'", expression.name.substr(0, 100), "' is undefined"));
}

absl::StatusOr<Value> Interpreter::EvaluateLogic(const Expression& expression) {
  const std::vector<ExpressionPtr>& operands = expression.operands;
  NG_ASSIGN_OR_RETURN(Value value, Evaluate(*operands[0]));
  if (expression.kind == ExpressionKind::kNot) return Value::Bool(!Truth(value));
  if (expression.kind == ExpressionKind::kConditional) {
    if (Truth(value)) return Evaluate(*operands[1]);
    if (operands[2] != nullptr) return Evaluate(*operands[2]);
    return runtime_.NewUndefined(
        "the inline if-expression evaluated to false and no else section was defined.");
  }
  const bool stops_at = expression.kind == ExpressionKind::kOr;
  for (size_t i = 1; i < operands.size() && Truth(value) != stops_at; ++i) {
    NG_ASSIGN_OR_RETURN(value, Evaluate(*operands[i]));
  }
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateDict(const Expression& expression) {
  auto dict = std::make_shared<Dict>();
  for (size_t i = 0; i < expression.operands.size(); i += 2) {
    NG_ASSIGN_OR_RETURN(Value key, Evaluate(*expression.operands[i]));
    NG_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.operands[i + 1]));
    NG_RETURN_IF_ERROR(dict->Set(std::move(key), std::move(value)));
  }
  return runtime_.NewDict(std::move(dict));
}

absl::StatusOr<bool> Interpreter::CompareTwo(Comparison comparison, const Value& a,
                                             const Value& b) {
  switch (comparison) {
    case Comparison::kEqual:
      return Equal(runtime_, a, b);
    case Comparison::kNotEqual: {
      NG_ASSIGN_OR_RETURN(const bool equal, Equal(runtime_, a, b));
      return !equal;
    }
    case Comparison::kLess:
      return Compare(runtime_, a, b, Order::kLess);
    case Comparison::kLessEqual:
      return Compare(runtime_, a, b, Order::kLessEqual);
    case Comparison::kGreater:
      return Compare(runtime_, a, b, Order::kGreater);
    case Comparison::kGreaterEqual:
      return Compare(runtime_, a, b, Order::kGreaterEqual);
    case Comparison::kIn:
      return Contains(runtime_, b, a);
    case Comparison::kNotIn: {
      NG_ASSIGN_OR_RETURN(const bool in, Contains(runtime_, b, a));
      return !in;
    }
  }
  return false;
}

absl::StatusOr<Value> Interpreter::EvaluateComparison(const Expression& expression) {
  NG_ASSIGN_OR_RETURN(Value left, Evaluate(*expression.operands[0]));
  for (size_t i = 0; i < expression.comparisons.size(); ++i) {
    NG_ASSIGN_OR_RETURN(Value right, Evaluate(*expression.operands[i + 1]));
    NG_ASSIGN_OR_RETURN(const bool holds, CompareTwo(expression.comparisons[i], left, right));
    if (!holds) return Value::Bool(false);
    left = std::move(right);
  }
  return Value::Bool(true);
}

absl::StatusOr<Value> Interpreter::EvaluateArithmetic(const Expression& expression) {
  NG_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.operands[0]));
  for (size_t i = 0; i < expression.arithmetics.size(); ++i) {
    NG_ASSIGN_OR_RETURN(const Value right, Evaluate(*expression.operands[i + 1]));
    NG_ASSIGN_OR_RETURN(value, Compute(runtime_, expression.arithmetics[i], value, right));
  }
  return value;
}

absl::StatusOr<Value> Interpreter::EvaluateConcatenation(const Expression& expression) {
  Text joined;
  for (const ExpressionPtr& operand : expression.operands) {
    NG_ASSIGN_OR_RETURN(const Value value, Evaluate(*operand));
    NG_ASSIGN_OR_RETURN(const Value text, ToStringValue(runtime_, value));
    NG_RETURN_IF_ERROR(runtime_.Reserve(static_cast<double>(joined.size() + text.bytes().size())));
    joined.Append(text.text());
  }
  return runtime_.NewString(std::move(joined));
}

absl::StatusOr<Value> Interpreter::EvaluateSlice(const Expression& expression) {
  NG_ASSIGN_OR_RETURN(const Value value, Evaluate(*expression.operands[0]));
  Value bounds[3] = {Value::None(), Value::None(), Value::None()};
  for (size_t i = 0; i < 3; ++i) {
    if (expression.operands[i + 1] == nullptr) continue;
    NG_ASSIGN_OR_RETURN(bounds[i], Evaluate(*expression.operands[i + 1]));
  }
  return GetSlice(runtime_, value, bounds[0], bounds[1], bounds[2]);
}

absl::StatusOr<std::vector<Value>> Interpreter::EvaluateAll(
    const std::vector<ExpressionPtr>& expressions) {
  std::vector<Value> values;
  for (const ExpressionPtr& expression : expressions) {
    NG_ASSIGN_OR_RETURN(Value value, Evaluate(*expression));
    values.push_back(std::move(value));
  }
  return values;
}

absl::Status Interpreter::EvaluateArguments(const CallArguments& given, Arguments& arguments) {
  for (const ExpressionPtr& expression : given.positional) {
    NG_ASSIGN_OR_RETURN(Value value, Evaluate(*expression));
    arguments.positional.push_back(std::move(value));
  }
  for (const CallArguments::Keyword& keyword : given.keyword) {
    NG_ASSIGN_OR_RETURN(Value value, Evaluate(*keyword.value));
    arguments.keyword.push_back({keyword.name, std::move(value)});
  }
  if (given.star != nullptr) {
    NG_ASSIGN_OR_RETURN(const Value star, Evaluate(*given.star));
    NG_ASSIGN_OR_RETURN(const std::vector<Value> values, Collect(runtime_, star));
    arguments.positional.insert(arguments.positional.end(), values.begin(), values.end());
  }
  if (given.double_star == nullptr) return absl::OkStatus();
  NG_ASSIGN_OR_RETURN(const Value mapping, Evaluate(*given.double_star));
  if (!mapping.is_dict()) return TypeError("argument after ** must be a mapping");
  for (const Dict::Entry& entry : mapping.dict().entries()) {
    if (!entry.key.is_string()) return TypeError("keywords must be strings");
    NG_RETURN_IF_ERROR(runtime_.Charge());
    for (const CallArguments::Keyword& keyword : given.keyword) {
      if (keyword.name.bytes() == entry.key.bytes()) {
        return TypeError("got multiple values for a keyword argument");
      }
    }
    arguments.keyword.push_back({entry.key, entry.value});
  }
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::EvaluateBuiltin(const Expression& expression) {
  const bool test = expression.kind == ExpressionKind::kTest;
  Arguments arguments;
  if (expression.operands[0] == nullptr) {
    arguments.positional.push_back(*block_text_);
  } else {
    NG_ASSIGN_OR_RETURN(Value value, Evaluate(*expression.operands[0]));
    arguments.positional.push_back(std::move(value));
  }
  if (expression.builtin == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(test ? "No test named '" : "No filter named '",
                                                   expression.name.substr(0, 100), "' found."));
  }
  NG_RETURN_IF_ERROR(EvaluateArguments(expression.arguments, arguments));
  NG_ASSIGN_OR_RETURN(Value result, expression.builtin(runtime_, arguments));
  if (!test) return result;
  return Value::Bool(Truth(result) != expression.negated);
}

absl::StatusOr<Value> Interpreter::ApplyFilter(const Expression& filter, const Value& value) {
  const Value* const before = std::exchange(block_text_, &value);
  absl::StatusOr<Value> result = Evaluate(filter);
  block_text_ = before;
  return result;
}

}  // namespace neurogrid::jinja
