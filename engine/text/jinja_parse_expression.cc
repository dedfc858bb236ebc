#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja_parser.h"

namespace neurogrid::jinja {
namespace {

std::string Describe(const Token& token) {
  switch (token.kind) {
    case TokenKind::kBlockEnd:
      return "end of statement block";
    case TokenKind::kVariableEnd:
      return "end of print statement";
    case TokenKind::kEnd:
      return "end of template";
    case TokenKind::kText:
      return "template data";
    case TokenKind::kBlockBegin:
      return "begin of statement block";
    case TokenKind::kVariableBegin:
      return "begin of print statement";
    case TokenKind::kName:
    case TokenKind::kString:
    case TokenKind::kInteger:
    case TokenKind::kFloat:
    case TokenKind::kOperator:
      break;
  }
  return token.text.substr(0, 100);
}

}  // namespace

absl::Status ExpressionParser::Unexpected(absl::string_view expected) const {
  return Fail(absl::StrCat("expected ", expected, ", got '", Describe(current()), "'"));
}

absl::Status ExpressionParser::ExpectOperator(absl::string_view text) {
  if (!SkipOperator(text)) return Unexpected(absl::StrCat("token '", text, "'"));
  return absl::OkStatus();
}

absl::Status ExpressionParser::ExpectKind(TokenKind kind) {
  if (current().kind != kind) {
    Token wanted;
    wanted.kind = kind;
    return Unexpected(absl::StrCat("token '", Describe(wanted), "'"));
  }
  Next();
  return absl::OkStatus();
}

absl::StatusOr<std::string> ExpressionParser::ExpectName() {
  if (current().kind != TokenKind::kName) return Unexpected("a name");
  return Next().text;
}

ExpressionPtr ExpressionParser::New(ExpressionKind kind,
                                    std::vector<ExpressionPtr> operands) const {
  auto node = std::make_unique<Expression>();
  node->kind = kind;
  node->line = current().line;
  if (!operands.empty() && operands[0] != nullptr) node->line = operands[0]->line;
  node->operands = std::move(operands);
  return node;
}

ExpressionParser::Parsed ExpressionParser::Checked(ExpressionPtr node) const {
  int depth = 0;
  const auto look_at = [&](const ExpressionPtr& child) {
    if (child != nullptr) depth = std::max(depth, child->depth);
  };
  for (const ExpressionPtr& operand : node->operands) look_at(operand);
  for (const ExpressionPtr& argument : node->arguments.positional) look_at(argument);
  for (const CallArguments::Keyword& keyword : node->arguments.keyword) look_at(keyword.value);
  look_at(node->arguments.star);
  look_at(node->arguments.double_star);
  node->depth = depth + 1;
  if (node->depth > nesting_max_) {
    return ErrorAtLine(node->line,
                       absl::StrCat("expressions nested deeper than ", nesting_max_, " levels"));
  }
  return node;
}

absl::Status ExpressionParser::Enter() {
  if (++nesting_ > nesting_max_) {
    return Fail(absl::StrCat("nested deeper than ", nesting_max_, " levels"));
  }
  return absl::OkStatus();
}

bool ExpressionParser::NameSince(size_t begin, absl::string_view name) const {
  for (size_t i = begin; i < place_ && i < tokens_.size(); ++i) {
    const bool attribute =
        i > 0 && tokens_[i - 1].kind == TokenKind::kOperator && tokens_[i - 1].text == ".";
    if (tokens_[i].kind == TokenKind::kName && tokens_[i].text == name && !attribute) return true;
  }
  return false;
}

Value ExpressionParser::Literal(absl::string_view text) {
  auto str = std::make_shared<Str>();
  str->text = Text(text, Origin::kTemplate);
  str->ascii = std::all_of(text.begin(), text.end(),
                           [](char c) { return static_cast<signed char>(c) >= 0; });
  return Value(Value::Kind::kString, std::move(str));
}

ExpressionParser::Parsed ExpressionParser::ParseExpression(bool with_conditional) {
  NG_RETURN_IF_ERROR(Enter());
  NG_ASSIGN_OR_RETURN(ExpressionPtr node, with_conditional ? ParseConditional() : ParseOr());
  Leave();
  return node;
}

ExpressionParser::Parsed ExpressionParser::ParseConditional() {
  NG_ASSIGN_OR_RETURN(ExpressionPtr node, ParseOr());
  while (SkipName("if")) {
    ++conditional_;
    NG_ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
    ExpressionPtr otherwise;
    if (SkipName("else")) {
      NG_ASSIGN_OR_RETURN(otherwise, ParseExpression());
    }
    --conditional_;
    std::vector<ExpressionPtr> operands;
    operands.push_back(std::move(condition));
    operands.push_back(std::move(node));
    operands.push_back(std::move(otherwise));
    NG_ASSIGN_OR_RETURN(node, Checked(New(ExpressionKind::kConditional, std::move(operands))));
  }
  return node;
}

ExpressionParser::Parsed ExpressionParser::ParseOr() {
  NG_ASSIGN_OR_RETURN(ExpressionPtr first, ParseAnd());
  if (!IsName("or")) return first;
  std::vector<ExpressionPtr> operands;
  operands.push_back(std::move(first));
  while (SkipName("or")) {
    NG_ASSIGN_OR_RETURN(ExpressionPtr next, ParseAnd());
    operands.push_back(std::move(next));
  }
  return Checked(New(ExpressionKind::kOr, std::move(operands)));
}

ExpressionParser::Parsed ExpressionParser::ParseAnd() {
  NG_ASSIGN_OR_RETURN(ExpressionPtr first, ParseNot());
  if (!IsName("and")) return first;
  std::vector<ExpressionPtr> operands;
  operands.push_back(std::move(first));
  while (SkipName("and")) {
    NG_ASSIGN_OR_RETURN(ExpressionPtr next, ParseNot());
    operands.push_back(std::move(next));
  }
  return Checked(New(ExpressionKind::kAnd, std::move(operands)));
}

ExpressionParser::Parsed ExpressionParser::ParseNot() {
  if (!SkipName("not")) return ParseComparison();
  NG_RETURN_IF_ERROR(Enter());
  std::vector<ExpressionPtr> operands(1);
  NG_ASSIGN_OR_RETURN(operands[0], ParseNot());
  Leave();
  return Checked(New(ExpressionKind::kNot, std::move(operands)));
}

ExpressionParser::Parsed ExpressionParser::ParseComparison() {
  static constexpr std::pair<absl::string_view, Comparison> kOperators[] = {
      {"==", Comparison::kEqual},  {"!=", Comparison::kNotEqual},
      {"<", Comparison::kLess},    {"<=", Comparison::kLessEqual},
      {">", Comparison::kGreater}, {">=", Comparison::kGreaterEqual}};
  std::vector<ExpressionPtr> operands(1);
  std::vector<Comparison> comparisons;
  NG_ASSIGN_OR_RETURN(operands[0], ParseSum());
  while (true) {
    const auto* op = std::find_if(std::begin(kOperators), std::end(kOperators),
                                  [&](const auto& row) { return IsOperator(row.first); });
    if (op != std::end(kOperators)) {
      Next();
      comparisons.push_back(op->second);
    } else if (SkipName("in")) {
      comparisons.push_back(Comparison::kIn);
    } else if (IsName("not") && look().kind == TokenKind::kName && look().text == "in") {
      Next();
      Next();
      comparisons.push_back(Comparison::kNotIn);
    } else {
      break;
    }
    NG_ASSIGN_OR_RETURN(ExpressionPtr next, ParseSum());
    operands.push_back(std::move(next));
  }
  if (comparisons.empty()) return std::move(operands[0]);
  ExpressionPtr node = New(ExpressionKind::kComparison, std::move(operands));
  node->comparisons = std::move(comparisons);
  return Checked(std::move(node));
}

ExpressionParser::Parsed ExpressionParser::Arithmetics(
    Parsed (ExpressionParser::*operand)(),
    std::initializer_list<std::pair<absl::string_view, Arithmetic>> operators) {
  std::vector<ExpressionPtr> operands(1);
  std::vector<Arithmetic> arithmetics;
  NG_ASSIGN_OR_RETURN(operands[0], (this->*operand)());
  while (true) {
    const auto* op = std::find_if(operators.begin(), operators.end(),
                                  [&](const auto& row) { return IsOperator(row.first); });
    if (op == operators.end()) break;
    Next();
    arithmetics.push_back(op->second);
    NG_ASSIGN_OR_RETURN(ExpressionPtr next, (this->*operand)());
    operands.push_back(std::move(next));
  }
  if (arithmetics.empty()) return std::move(operands[0]);
  ExpressionPtr node = New(ExpressionKind::kArithmetic, std::move(operands));
  node->arithmetics = std::move(arithmetics);
  return Checked(std::move(node));
}

ExpressionParser::Parsed ExpressionParser::ParseSum() {
  return Arithmetics(&ExpressionParser::ParseConcatenation,
                     {{"+", Arithmetic::kAdd}, {"-", Arithmetic::kSubtract}});
}

ExpressionParser::Parsed ExpressionParser::ParseConcatenation() {
  std::vector<ExpressionPtr> operands(1);
  NG_ASSIGN_OR_RETURN(operands[0], ParseProduct());
  if (!IsOperator("~")) return std::move(operands[0]);
  while (SkipOperator("~")) {
    NG_ASSIGN_OR_RETURN(ExpressionPtr next, ParseProduct());
    operands.push_back(std::move(next));
  }
  return Checked(New(ExpressionKind::kConcatenate, std::move(operands)));
}

ExpressionParser::Parsed ExpressionParser::ParseProduct() {
  return Arithmetics(&ExpressionParser::ParsePower, {{"*", Arithmetic::kMultiply},
                                                     {"/", Arithmetic::kDivide},
                                                     {"//", Arithmetic::kFloorDivide},
                                                     {"%", Arithmetic::kModulo}});
}

ExpressionParser::Parsed ExpressionParser::ParsePower() {
  NG_ASSIGN_OR_RETURN(ExpressionPtr first, ParseUnary(true));
  if (!IsOperator("**")) return first;
  std::vector<ExpressionPtr> operands;
  operands.push_back(std::move(first));
  std::vector<Arithmetic> arithmetics;
  while (SkipOperator("**")) {
    NG_ASSIGN_OR_RETURN(ExpressionPtr next, ParseUnary(true));
    operands.push_back(std::move(next));
    arithmetics.push_back(Arithmetic::kPower);
  }
  ExpressionPtr node = New(ExpressionKind::kArithmetic, std::move(operands));
  node->arithmetics = std::move(arithmetics);
  return Checked(std::move(node));
}

ExpressionParser::Parsed ExpressionParser::ParseUnary(bool with_filters) {
  ExpressionPtr node;
  if (IsOperator("-") || IsOperator("+")) {
    const bool minus = Next().text == "-";
    std::vector<ExpressionPtr> operands(1);
    NG_RETURN_IF_ERROR(Enter());
    NG_ASSIGN_OR_RETURN(operands[0], ParseUnary(false));
    Leave();
    NG_ASSIGN_OR_RETURN(node,
                        Checked(New(minus ? ExpressionKind::kNegate : ExpressionKind::kPositive,
                                    std::move(operands))));
  } else {
    NG_ASSIGN_OR_RETURN(node, ParsePrimary());
  }
  NG_ASSIGN_OR_RETURN(node, ParsePostfix(std::move(node)));
  if (!with_filters) return node;
  while (true) {
    if (IsOperator("|")) {
      NG_ASSIGN_OR_RETURN(node, ParseFilters(std::move(node), false));
    } else if (IsName("is")) {
      NG_ASSIGN_OR_RETURN(node, ParseTest(std::move(node)));
    } else if (IsOperator("(")) {
      NG_ASSIGN_OR_RETURN(node, ParseSubscript(std::move(node)));
    } else {
      return node;
    }
  }
}

ExpressionParser::Parsed ExpressionParser::ParsePrimary(bool namespaces) {
  if (current().kind != TokenKind::kName) return ParseLiteral();
  ExpressionPtr node = New(ExpressionKind::kConstant);
  const std::string name = Next().text;
  if (name == "true" || name == "True" || name == "false" || name == "False") {
    node->constant = Value::Bool(name == "true" || name == "True");
    return node;
  }
  if (name == "none" || name == "None") {
    node->constant = Value::None();
    return node;
  }
  node->name = name;
  node->kind = ExpressionKind::kName;
  if (namespaces && SkipOperator(".")) {
    NG_ASSIGN_OR_RETURN(const std::string attribute, ExpectName());
    node->kind = ExpressionKind::kNamespaceRef;
    node->constant = Literal(attribute);
  }
  return node;
}

ExpressionParser::Parsed ExpressionParser::ParseLiteral() {
  ExpressionPtr node = New(ExpressionKind::kConstant);
  switch (current().kind) {
    case TokenKind::kString: {
      std::string text;
      while (current().kind == TokenKind::kString) text += Next().text;
      node->constant = Literal(text);
      return node;
    }
    case TokenKind::kInteger:
      node->constant = Value::Int(Next().integer);
      return node;
    case TokenKind::kFloat:
      node->constant = Value::Float(Next().number);
      return node;
    default:
      break;
  }
  if (SkipOperator("(")) {
    TupleRules rules;
    rules.parentheses = true;
    NG_ASSIGN_OR_RETURN(node, ParseTuple(rules));
    NG_RETURN_IF_ERROR(ExpectOperator(")"));
    return node;
  }
  if (IsOperator("[")) return ParseList();
  if (IsOperator("{")) return ParseDict();
  return Unexpected("an expression");
}

ExpressionParser::Parsed ExpressionParser::ParseList() {
  Next();
  std::vector<ExpressionPtr> items;
  while (!IsOperator("]")) {
    if (!items.empty()) NG_RETURN_IF_ERROR(ExpectOperator(","));
    if (IsOperator("]")) break;
    NG_ASSIGN_OR_RETURN(ExpressionPtr item, ParseExpression());
    items.push_back(std::move(item));
  }
  NG_RETURN_IF_ERROR(ExpectOperator("]"));
  return Checked(New(ExpressionKind::kList, std::move(items)));
}

ExpressionParser::Parsed ExpressionParser::ParseDict() {
  Next();
  std::vector<ExpressionPtr> items;
  while (!IsOperator("}")) {
    if (!items.empty()) NG_RETURN_IF_ERROR(ExpectOperator(","));
    if (IsOperator("}")) break;
    NG_ASSIGN_OR_RETURN(ExpressionPtr key, ParseExpression());
    NG_RETURN_IF_ERROR(ExpectOperator(":"));
    NG_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    items.push_back(std::move(key));
    items.push_back(std::move(value));
  }
  NG_RETURN_IF_ERROR(ExpectOperator("}"));
  return Checked(New(ExpressionKind::kDict, std::move(items)));
}

bool ExpressionParser::AtTupleEnd(absl::string_view end_name) const {
  return current().kind == TokenKind::kVariableEnd || current().kind == TokenKind::kBlockEnd ||
         IsOperator(")") || (!end_name.empty() && IsName(end_name));
}

ExpressionParser::Parsed ExpressionParser::ParseTuple(const TupleRules& rules) {
  std::vector<ExpressionPtr> items;
  bool is_tuple = false;
  while (true) {
    if (!items.empty()) NG_RETURN_IF_ERROR(ExpectOperator(","));
    if (AtTupleEnd(rules.end_name)) break;
    NG_ASSIGN_OR_RETURN(ExpressionPtr item, rules.items == Items::kTargets
                                                ? ParsePrimary(rules.namespaces)
                                                : ParseExpression(rules.items == Items::kAny));
    items.push_back(std::move(item));
    if (!IsOperator(",")) break;
    is_tuple = true;
  }
  if (!is_tuple && !items.empty()) return std::move(items[0]);
  if (!is_tuple && !rules.parentheses) return Unexpected("an expression");
  return Checked(New(ExpressionKind::kTuple, std::move(items)));
}

ExpressionParser::Parsed ExpressionParser::ParsePostfix(ExpressionPtr node) {
  while (IsOperator(".") || IsOperator("[") || IsOperator("(")) {
    NG_ASSIGN_OR_RETURN(node, ParseSubscript(std::move(node)));
  }
  return node;
}

ExpressionParser::Parsed ExpressionParser::ParseSubscript(ExpressionPtr node) {
  std::vector<ExpressionPtr> operands;
  operands.push_back(std::move(node));
  if (IsOperator("(")) {
    node = New(ExpressionKind::kCall, std::move(operands));
    NG_ASSIGN_OR_RETURN(node->arguments, ParseArguments());
    return Checked(std::move(node));
  }
  if (SkipOperator("[")) return ParseSubscripted(std::move(operands[0]));
  Next();
  if (current().kind == TokenKind::kName) {
    node = New(ExpressionKind::kAttribute, std::move(operands));
    node->constant = Literal(Next().text);
    return Checked(std::move(node));
  }
  if (current().kind != TokenKind::kInteger) return Unexpected("name or number");
  ExpressionPtr index = New(ExpressionKind::kConstant);
  index->constant = Value::Int(Next().integer);
  operands.push_back(std::move(index));
  return Checked(New(ExpressionKind::kItem, std::move(operands)));
}

ExpressionParser::Parsed ExpressionParser::ParseSubscripted(ExpressionPtr node) {
  std::vector<ExpressionPtr> operands(1);
  operands[0] = std::move(node);
  ExpressionPtr first;
  if (!IsOperator(":")) {
    NG_ASSIGN_OR_RETURN(first, ParseExpression());
  }
  if (first != nullptr && IsOperator(",")) {
    // a[1, 2]: the key is a tuple.
    std::vector<ExpressionPtr> items;
    items.push_back(std::move(first));
    while (SkipOperator(",")) {
      NG_ASSIGN_OR_RETURN(ExpressionPtr item, ParseExpression());
      items.push_back(std::move(item));
    }
    NG_ASSIGN_OR_RETURN(first, Checked(New(ExpressionKind::kTuple, std::move(items))));
  }
  const bool slice = IsOperator(":");
  operands.push_back(std::move(first));
  for (int part = 0; slice && part < 2; ++part) {
    ExpressionPtr bound;
    if (SkipOperator(":") && !IsOperator("]") && !IsOperator(":")) {
      NG_ASSIGN_OR_RETURN(bound, ParseExpression());
    }
    operands.push_back(std::move(bound));
  }
  NG_RETURN_IF_ERROR(ExpectOperator("]"));
  return Checked(New(slice ? ExpressionKind::kSlice : ExpressionKind::kItem, std::move(operands)));
}

absl::StatusOr<CallArguments> ExpressionParser::ParseArguments() {
  CallArguments arguments;
  NG_RETURN_IF_ERROR(ExpectOperator("("));
  bool first = true;
  while (!IsOperator(")")) {
    if (!first) {
      NG_RETURN_IF_ERROR(ExpectOperator(","));
      if (IsOperator(")")) break;
    }
    first = false;
    NG_RETURN_IF_ERROR(ParseArgument(arguments));
  }
  NG_RETURN_IF_ERROR(ExpectOperator(")"));
  return arguments;
}

absl::Status ExpressionParser::ParseArgument(CallArguments& arguments) {
  const absl::Status wrong = Fail("invalid syntax for function call expression");
  if (SkipOperator("**")) {
    if (arguments.double_star != nullptr) return wrong;
    NG_ASSIGN_OR_RETURN(arguments.double_star, ParseExpression());
    return absl::OkStatus();
  }
  if (SkipOperator("*")) {
    if (arguments.star != nullptr || arguments.double_star != nullptr) return wrong;
    NG_ASSIGN_OR_RETURN(arguments.star, ParseExpression());
    return absl::OkStatus();
  }
  const bool named = current().kind == TokenKind::kName && look().kind == TokenKind::kOperator &&
                     look().text == "=";
  if (named) {
    if (arguments.double_star != nullptr) return wrong;
    const std::string name = Next().text;
    Next();
    for (const CallArguments::Keyword& keyword : arguments.keyword) {
      if (keyword.name.bytes() == name) return Fail("keyword argument repeated");
    }
    NG_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    arguments.keyword.push_back({Literal(name), std::move(value)});
    return absl::OkStatus();
  }
  if (!arguments.keyword.empty() || arguments.star != nullptr || arguments.double_star != nullptr) {
    return wrong;
  }
  NG_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
  arguments.positional.push_back(std::move(value));
  return absl::OkStatus();
}

absl::StatusOr<std::string> ExpressionParser::ParseDottedName() {
  NG_ASSIGN_OR_RETURN(std::string name, ExpectName());
  while (SkipOperator(".")) {
    NG_ASSIGN_OR_RETURN(const std::string part, ExpectName());
    absl::StrAppend(&name, ".", part);
  }
  return name;
}

ExpressionParser::Parsed ExpressionParser::ParseFilters(ExpressionPtr node, bool start_inline) {
  while (start_inline || IsOperator("|")) {
    if (!start_inline) Next();
    start_inline = false;
    std::vector<ExpressionPtr> operands;
    operands.push_back(std::move(node));
    node = New(ExpressionKind::kFilter, std::move(operands));
    NG_ASSIGN_OR_RETURN(node->name, ParseDottedName());
    node->builtin = FindFilter(node->name);
    if (node->builtin == nullptr && conditional_ == 0) {
      return Fail(absl::StrCat("No filter named '", node->name, "'."));
    }
    if (IsOperator("(")) {
      NG_ASSIGN_OR_RETURN(node->arguments, ParseArguments());
    }
    NG_ASSIGN_OR_RETURN(node, Checked(std::move(node)));
  }
  return node;
}

ExpressionParser::Parsed ExpressionParser::ParseTest(ExpressionPtr node) {
  Next();
  std::vector<ExpressionPtr> operands;
  operands.push_back(std::move(node));
  ExpressionPtr test = New(ExpressionKind::kTest, std::move(operands));
  test->negated = SkipName("not");
  NG_ASSIGN_OR_RETURN(test->name, ParseDottedName());
  test->builtin = FindTest(test->name);
  if (test->builtin == nullptr && conditional_ == 0) {
    return Fail(absl::StrCat("No test named '", test->name, "'."));
  }
  const bool argument = current().kind == TokenKind::kName ||
                        current().kind == TokenKind::kString ||
                        current().kind == TokenKind::kInteger ||
                        current().kind == TokenKind::kFloat || IsOperator("[") || IsOperator("{");
  if (IsOperator("(")) {
    NG_ASSIGN_OR_RETURN(test->arguments, ParseArguments());
  } else if (argument && !IsName("else") && !IsName("or") && !IsName("and")) {
    if (IsName("is")) return Fail("You cannot chain multiple tests with is");
    NG_ASSIGN_OR_RETURN(ExpressionPtr value, ParsePrimary());
    NG_ASSIGN_OR_RETURN(value, ParsePostfix(std::move(value)));
    test->arguments.positional.push_back(std::move(value));
  }
  return Checked(std::move(test));
}

}  // namespace neurogrid::jinja
