// Statements of templates.
#include "engine/text/jinja_parser.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace neurogrid::jinja {
namespace {

class StatementParser : public ExpressionParser {
 public:
  using ExpressionParser::ExpressionParser;

  absl::StatusOr<Body> Run() { return ParseBody({}); }

 private:
  using End = std::vector<absl::string_view>;
  using Made = absl::StatusOr<std::unique_ptr<Statement>>;

  std::unique_ptr<Statement> Make(StatementKind kind) const {
    auto statement = std::make_unique<Statement>();
    statement->kind = kind;
    statement->line = current().line;
    return statement;
  }

  bool AtEnd(const End& ends) const {
    return current().kind == TokenKind::kName &&
           std::find(ends.begin(), ends.end(), current().text) != ends.end();
  }

  /// Statements up to {% and one of `ends`, which is left as the current token; to the end when
  /// empty.
  absl::StatusOr<Body> ParseBody(const End& ends) {
    NG_RETURN_IF_ERROR(Enter());
    Body body;
    while (current().kind != TokenKind::kEnd) {
      if (current().kind == TokenKind::kText) {
        std::unique_ptr<Statement> text = Make(StatementKind::kText);
        text->text = Literal(Next().text);
        body.push_back(std::move(text));
      } else if (current().kind == TokenKind::kVariableBegin) {
        Next();
        std::unique_ptr<Statement> print = Make(StatementKind::kPrint);
        NG_ASSIGN_OR_RETURN(print->expression, ParseTuple({}));
        NG_RETURN_IF_ERROR(ExpectKind(TokenKind::kVariableEnd));
        body.push_back(std::move(print));
      } else {
        NG_RETURN_IF_ERROR(ExpectKind(TokenKind::kBlockBegin));
        if (AtEnd(ends)) {
          Leave();
          return body;
        }
        NG_ASSIGN_OR_RETURN(std::unique_ptr<Statement> statement, ParseStatement());
        NG_RETURN_IF_ERROR(ExpectKind(TokenKind::kBlockEnd));
        if (statement != nullptr) body.push_back(std::move(statement));
      }
    }
    Leave();
    if (ends.empty()) return body;
    return Fail(
        absl::StrCat("Unexpected end of template. Looking for: ", absl::StrJoin(ends, " or ")));
  }

  /// The rest of an opening tag, then a body. An end tag's name is consumed unless `keep_end`.
  absl::StatusOr<Body> ParseBlock(const End& ends, bool keep_end = false) {
    SkipOperator(":");
    NG_RETURN_IF_ERROR(ExpectKind(TokenKind::kBlockEnd));
    NG_ASSIGN_OR_RETURN(Body body, ParseBody(ends));
    if (!keep_end) Next();
    return body;
  }

  Made ParseStatement() {
    if (current().kind != TokenKind::kName) return Fail("tag name expected");
    const std::string tag = Next().text;
    if (tag == "if") return ParseIf();
    if (tag == "for") return ParseFor();
    if (tag == "set") return ParseSet();
    if (tag == "macro") return ParseMacro();
    if (tag == "call") return ParseCall();
    if (tag == "filter") return ParseFilterBlock();
    if (tag == "with") return ParseWith();
    if (tag == "block") return ParseNamedBlock();
    if (tag == "print") return ParsePrint();
    if (tag == "generation") return ParseGeneration();
    if (tag == "break" || tag == "continue") return ParseJump(tag);
    if (tag == "include" || tag == "import" || tag == "from" || tag == "extends") {
      return ParseUnavailable(tag);
    }
    if (tag == "autoescape") {
      return Fail("the tag 'autoescape' is not supported in chat templates");
    }
    return Fail(absl::StrCat("Encountered unknown tag '", tag.substr(0, 100), "'."));
  }

  Made ParseIf() {
    std::unique_ptr<Statement> statement = Make(StatementKind::kIf);
    TupleRules rules;
    rules.items = Items::kNoConditional;
    ++conditional_;
    while (true) {
      NG_ASSIGN_OR_RETURN(ExpressionPtr condition, ParseTuple(rules));
      NG_ASSIGN_OR_RETURN(Body body, ParseBlock({"elif", "else", "endif"}, true));
      statement->branches.emplace_back(std::move(condition), std::move(body));
      const std::string end = Next().text;
      if (end == "elif") continue;
      if (end == "else") {
        NG_ASSIGN_OR_RETURN(statement->otherwise, ParseBlock({"endif"}));
      }
      --conditional_;
      return statement;
    }
  }

  Made ParseFor() {
    std::unique_ptr<Statement> statement = Make(StatementKind::kFor);
    NG_ASSIGN_OR_RETURN(statement->target, ParseTarget("in", false));
    NG_RETURN_IF_ERROR(CheckNoLoopTarget(*statement->target));
    if (!SkipName("in")) return Unexpected("'in'");
    TupleRules rules;
    rules.items = Items::kNoConditional;
    rules.end_name = "recursive";
    NG_ASSIGN_OR_RETURN(statement->expression, ParseTuple(rules));
    if (SkipName("if")) {
      NG_ASSIGN_OR_RETURN(statement->condition, ParseExpression());
    }
    statement->flag = SkipName("recursive");
    ++loops_;
    NG_ASSIGN_OR_RETURN(statement->body, ParseBlock({"endfor", "else"}, true));
    --loops_;
    if (Next().text == "else") {
      NG_ASSIGN_OR_RETURN(statement->otherwise, ParseBlock({"endfor"}));
    }
    return statement;
  }

  absl::Status CheckNoLoopTarget(const Expression& target) {
    if (target.kind == ExpressionKind::kName && target.name == "loop") {
      return Fail("Can't assign to special loop variable in for-loop target");
    }
    for (const ExpressionPtr& part : target.operands) {
      NG_RETURN_IF_ERROR(CheckNoLoopTarget(*part));
    }
    return absl::OkStatus();
  }

  Parsed ParseTarget(absl::string_view end_name, bool namespaces) {
    TupleRules rules;
    rules.items = Items::kTargets;
    rules.end_name = end_name;
    rules.namespaces = namespaces;
    NG_ASSIGN_OR_RETURN(ExpressionPtr target, ParseTuple(rules));
    NG_RETURN_IF_ERROR(CheckTarget(*target));
    return target;
  }

  absl::Status CheckTarget(const Expression& target) {
    if (target.kind == ExpressionKind::kName || target.kind == ExpressionKind::kNamespaceRef) {
      return absl::OkStatus();
    }
    if (target.kind != ExpressionKind::kTuple) return Fail("can't assign to this expression");
    for (const ExpressionPtr& part : target.operands) NG_RETURN_IF_ERROR(CheckTarget(*part));
    return absl::OkStatus();
  }

  Made ParseSet() {
    std::unique_ptr<Statement> statement = Make(StatementKind::kSet);
    NG_ASSIGN_OR_RETURN(statement->target, ParseTarget("", true));
    if (SkipOperator("=")) {
      NG_ASSIGN_OR_RETURN(statement->expression, ParseTuple({}));
      return statement;
    }
    statement->kind = StatementKind::kSetBlock;
    NG_ASSIGN_OR_RETURN(statement->filter, ParseFilters(nullptr, false));
    NG_ASSIGN_OR_RETURN(statement->body, ParseBlock({"endset"}));
    return statement;
  }

  absl::StatusOr<std::vector<Parameter>> ParseParameters() {
    std::vector<Parameter> parameters;
    NG_RETURN_IF_ERROR(ExpectOperator("("));
    while (!IsOperator(")")) {
      if (!parameters.empty()) NG_RETURN_IF_ERROR(ExpectOperator(","));
      Parameter parameter;
      NG_ASSIGN_OR_RETURN(parameter.name, ExpectName());
      if (SkipOperator("=")) {
        NG_ASSIGN_OR_RETURN(parameter.otherwise, ParseExpression());
      } else if (!parameters.empty() && parameters.back().otherwise != nullptr) {
        return Fail("non-default argument follows default argument");
      }
      parameters.push_back(std::move(parameter));
    }
    NG_RETURN_IF_ERROR(ExpectOperator(")"));
    return parameters;
  }

  /// A body that runs as a function of its own: loops outside are not its loops.
  absl::Status ParseFunctionBody(absl::string_view end, MacroDefinition& macro) {
    const int loops = std::exchange(loops_, 0);
    const int conditional = std::exchange(conditional_, 0);
    const size_t begin = place();
    NG_ASSIGN_OR_RETURN(macro.body, ParseBlock({end}));
    macro.uses_caller = NameSince(begin, "caller");
    macro.uses_varargs = NameSince(begin, "varargs");
    macro.uses_kwargs = NameSince(begin, "kwargs");
    loops_ = loops;
    conditional_ = conditional;
    return absl::OkStatus();
  }

  Made ParseMacro() {
    std::unique_ptr<Statement> statement = Make(StatementKind::kMacro);
    NG_ASSIGN_OR_RETURN(statement->macro.name, ExpectName());
    NG_ASSIGN_OR_RETURN(statement->macro.parameters, ParseParameters());
    NG_RETURN_IF_ERROR(ParseFunctionBody("endmacro", statement->macro));
    return statement;
  }

  Made ParseCall() {
    std::unique_ptr<Statement> statement = Make(StatementKind::kCallBlock);
    statement->macro.name = "caller";
    if (IsOperator("(")) {
      NG_ASSIGN_OR_RETURN(statement->macro.parameters, ParseParameters());
    }
    NG_ASSIGN_OR_RETURN(statement->expression, ParseExpression());
    if (statement->expression->kind != ExpressionKind::kCall) return Fail("expected call");
    NG_RETURN_IF_ERROR(ParseFunctionBody("endcall", statement->macro));
    return statement;
  }

  Made ParseFilterBlock() {
    std::unique_ptr<Statement> statement = Make(StatementKind::kFilterBlock);
    NG_ASSIGN_OR_RETURN(statement->filter, ParseFilters(nullptr, true));
    NG_ASSIGN_OR_RETURN(statement->body, ParseBlock({"endfilter"}));
    return statement;
  }

  Made ParseWith() {
    std::unique_ptr<Statement> statement = Make(StatementKind::kWith);
    while (current().kind != TokenKind::kBlockEnd) {
      if (!statement->assignments.empty()) NG_RETURN_IF_ERROR(ExpectOperator(","));
      NG_ASSIGN_OR_RETURN(ExpressionPtr target, ParsePrimary());
      NG_RETURN_IF_ERROR(CheckTarget(*target));
      NG_RETURN_IF_ERROR(ExpectOperator("="));
      NG_ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
      statement->assignments.emplace_back(std::move(target), std::move(value));
    }
    NG_ASSIGN_OR_RETURN(statement->body, ParseBlock({"endwith"}));
    return statement;
  }

  Made ParseNamedBlock() {
    std::unique_ptr<Statement> statement = Make(StatementKind::kBlock);
    NG_ASSIGN_OR_RETURN(const std::string name, ExpectName());
    if (std::find(blocks_.begin(), blocks_.end(), name) != blocks_.end()) {
      return Fail(absl::StrCat("block '", name.substr(0, 100), "' defined twice"));
    }
    blocks_.push_back(name);
    statement->flag = SkipName("scoped");
    SkipName("required");
    const int loops = std::exchange(loops_, 0);
    NG_ASSIGN_OR_RETURN(statement->body, ParseBlock({"endblock"}));
    SkipName(name);
    loops_ = loops;
    return statement;
  }

  Made ParsePrint() {
    std::unique_ptr<Statement> statement = Make(StatementKind::kPrint);
    NG_ASSIGN_OR_RETURN(statement->expression, ParseTuple({}));
    return statement;
  }

  Made ParseGeneration() {
    std::unique_ptr<Statement> statement = Make(StatementKind::kScope);
    const int loops = std::exchange(loops_, 0);
    NG_ASSIGN_OR_RETURN(statement->body, ParseBlock({"endgeneration"}));
    loops_ = loops;
    return statement;
  }

  Made ParseJump(const std::string& tag) {
    if (loops_ == 0) return Fail(absl::StrCat("'", tag, "' outside loop"));
    return Make(tag == "break" ? StatementKind::kBreak : StatementKind::kContinue);
  }

  Made ParseUnavailable(const std::string& tag) {
    std::unique_ptr<Statement> statement = Make(StatementKind::kUnavailable);
    statement->text = Literal(
        absl::StrCat("{% ", tag, " %} needs another template, and a chat template stands alone"));
    while (current().kind != TokenKind::kBlockEnd && current().kind != TokenKind::kEnd) Next();
    return statement;
  }

  std::vector<std::string> blocks_;
  int loops_ = 0;
};

}  // namespace

absl::StatusOr<Body> Parse(absl::string_view source, int nesting_max) {
  NG_ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return StatementParser(std::move(tokens), nesting_max).Run();
}

}  // namespace neurogrid::jinja
