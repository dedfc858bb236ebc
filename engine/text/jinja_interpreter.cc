// Statements.
#include "engine/text/jinja_interpreter.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja.h"
#include "engine/text/jinja_lexer.h"
#include "engine/text/jinja_unicode.h"

namespace neurogrid::jinja {
namespace {

class Macro : public Object {
 public:
  Macro(Interpreter& interpreter, const MacroDefinition& definition, std::shared_ptr<Scope> closure)
      : interpreter_(interpreter), definition_(definition), closure_(std::move(closure)) {}
  std::string type_name() const override { return "Macro"; }
  absl::StatusOr<Text> Repr(Runtime&) override {
    return Text(absl::StrCat("<Macro '", definition_.name, "'>"), Origin::kTemplate);
  }
  absl::StatusOr<std::optional<Value>> Attribute(Runtime& runtime,
                                                 absl::string_view name) override {
    if (name != "name") return std::nullopt;
    NG_ASSIGN_OR_RETURN(Value value, runtime.NewString(definition_.name));
    return value;
  }
  bool callable() const override { return true; }
  absl::StatusOr<Value> Call(Runtime&, const Arguments& arguments) override {
    return interpreter_.CallMacro(definition_, closure_, arguments);
  }

 private:
  Interpreter& interpreter_;
  const MacroDefinition& definition_;
  std::shared_ptr<Scope> closure_;
};

}  // namespace

const Value* Scope::Find(absl::string_view name) const {
  for (const Scope* scope = this; scope != nullptr; scope = scope->parent_.get()) {
    for (const auto& [key, value] : scope->values_) {
      if (key == name) return &value;
    }
  }
  return nullptr;
}

void Scope::Set(absl::string_view name, Value value) {
  for (auto& [key, old] : values_) {
    if (key == name) {
      old = std::move(value);
      return;
    }
  }
  values_.emplace_back(name, std::move(value));
}

absl::Status Interpreter::Enter() {
  if (++runtime_.run_depth > runtime_.limits().run_depth) {
    return absl::InvalidArgumentError(
        absl::StrCat("more than ", runtime_.limits().run_depth, " levels of nested calls"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Text> Interpreter::Run(const Body& body) {
  Text output;
  output_ = &output;
  NG_RETURN_IF_ERROR(Execute(body).status());
  return output;
}

absl::Status Interpreter::Print(const Text& text) {
  NG_RETURN_IF_ERROR(runtime_.ChargeBytes(text.size()));
  if (static_cast<int64_t>(output_->size() + text.size()) > runtime_.limits().output_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("more than ", runtime_.limits().output_bytes, " bytes of output"));
  }
  output_->Append(text);
  return absl::OkStatus();
}

Interpreter::Done Interpreter::Execute(const Body& body) {
  for (const std::unique_ptr<Statement>& statement : body) {
    NG_ASSIGN_OR_RETURN(const Flow flow, ExecuteStatement(*statement));
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Done Interpreter::ExecuteStatement(const Statement& statement) {
  NG_RETURN_IF_ERROR(WithLine(runtime_.Charge(), statement.line));
  NG_RETURN_IF_ERROR(WithLine(Enter(), statement.line));
  Done flow = WithLine(ExecuteInside(statement), statement.line);
  Leave();
  return flow;
}

Interpreter::Done Interpreter::ExecuteInside(const Statement& statement) {
  switch (statement.kind) {
    case StatementKind::kText:
      NG_RETURN_IF_ERROR(Print(statement.text.text()));
      break;
    case StatementKind::kPrint: {
      NG_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expression));
      NG_ASSIGN_OR_RETURN(const Value text, ToStringValue(runtime_, value));
      NG_RETURN_IF_ERROR(Print(text.text()));
      break;
    }
    case StatementKind::kFor: {
      NG_ASSIGN_OR_RETURN(const Value items, Evaluate(*statement.expression));
      NG_RETURN_IF_ERROR(For(statement, items, 0));
      break;
    }
    case StatementKind::kIf:
      return If(statement);
    case StatementKind::kSet: {
      NG_ASSIGN_OR_RETURN(const Value value, Evaluate(*statement.expression));
      NG_RETURN_IF_ERROR(Assign(*statement.target, value));
      break;
    }
    case StatementKind::kSetBlock:
    case StatementKind::kFilterBlock: {
      NG_ASSIGN_OR_RETURN(Value value, Capture(statement.body, std::make_shared<Scope>(scope_)));
      if (statement.filter != nullptr) {
        NG_ASSIGN_OR_RETURN(value, ApplyFilter(*statement.filter, value));
      }
      if (statement.target != nullptr) {
        NG_RETURN_IF_ERROR(Assign(*statement.target, value));
        break;
      }
      NG_ASSIGN_OR_RETURN(const Text text, ToText(runtime_, value));
      NG_RETURN_IF_ERROR(Print(text));
      break;
    }
    case StatementKind::kMacro:
      NG_RETURN_IF_ERROR(DefineMacro(statement));
      break;
    case StatementKind::kCallBlock:
      NG_RETURN_IF_ERROR(CallBlock(statement));
      break;
    case StatementKind::kWith:
      NG_RETURN_IF_ERROR(With(statement));
      break;
    case StatementKind::kBlock:
      NG_RETURN_IF_ERROR(
          RunIn(std::make_shared<Scope>(statement.flag ? scope_ : root_), statement.body));
      break;
    case StatementKind::kScope:
      NG_RETURN_IF_ERROR(RunIn(std::make_shared<Scope>(scope_), statement.body));
      break;
    case StatementKind::kBreak:
      return Flow::kBreak;
    case StatementKind::kContinue:
      return Flow::kContinue;
    case StatementKind::kUnavailable:
      return absl::InvalidArgumentError(statement.text.bytes());
  }
  return Flow::kNext;
}

Interpreter::Done Interpreter::If(const Statement& statement) {
  for (const auto& [condition, body] : statement.branches) {
    NG_ASSIGN_OR_RETURN(const Value value, Evaluate(*condition));
    if (Truth(value)) return Execute(body);
  }
  return Execute(statement.otherwise);
}

absl::Status Interpreter::RunIn(std::shared_ptr<Scope> scope, const Body& body) {
  const std::shared_ptr<Scope> before = std::exchange(scope_, std::move(scope));
  const Done flow = Execute(body);
  scope_ = before;
  return flow.status();
}

absl::StatusOr<Value> Interpreter::Capture(const Body& body, std::shared_ptr<Scope> scope) {
  Text text;
  Text* const before = std::exchange(output_, &text);
  const absl::Status status = RunIn(std::move(scope), body);
  output_ = before;
  NG_RETURN_IF_ERROR(status);
  return runtime_.NewString(std::move(text));
}

absl::Status Interpreter::For(const Statement& statement, const Value& items, int depth) {
  NG_ASSIGN_OR_RETURN(const std::shared_ptr<Iterator> source, Iterate(runtime_, items));
  const std::shared_ptr<Scope> outer = scope_;
  Loop::Pull pull = [this, &statement, source, outer]() -> absl::StatusOr<std::optional<Value>> {
    while (true) {
      NG_ASSIGN_OR_RETURN(std::optional<Value> item, source->Next(runtime_));
      if (!item.has_value() || statement.condition == nullptr) return item;
      const std::shared_ptr<Scope> before = std::exchange(scope_, std::make_shared<Scope>(outer));
      const absl::Status assigned = Assign(*statement.target, *item);
      absl::StatusOr<Value> wanted =
          assigned.ok() ? Evaluate(*statement.condition) : absl::StatusOr<Value>(assigned);
      scope_ = before;
      NG_RETURN_IF_ERROR(wanted.status());
      if (Truth(*wanted)) return item;
    }
  };
  Loop::Recurse recurse;
  if (statement.flag) {
    recurse = [this, &statement, outer, depth](const Value& inner) {
      return CallLoop(statement, outer, inner, depth + 1);
    };
  }
  auto loop = std::make_shared<Loop>(std::move(pull), std::move(recurse), depth);
  NG_ASSIGN_OR_RETURN(const Value self, runtime_.NewObject(loop));
  const absl::Status status = ForRounds(statement, *loop, self);
  scope_ = outer;
  loop->Finish();
  return status;
}

absl::Status Interpreter::ForRounds(const Statement& statement, Loop& loop, const Value& self) {
  const std::shared_ptr<Scope> outer = scope_;
  bool any = false;
  while (true) {
    scope_ = outer;
    NG_ASSIGN_OR_RETURN(const bool more, loop.Advance(runtime_));
    if (!more) break;
    any = true;
    NG_RETURN_IF_ERROR(runtime_.ChargeRound());
    scope_ = std::make_shared<Scope>(outer);
    NG_RETURN_IF_ERROR(Assign(*statement.target, loop.current()));
    scope_->Set("loop", self);
    NG_ASSIGN_OR_RETURN(const Flow flow, Execute(statement.body));
    if (flow == Flow::kBreak) break;
  }
  if (any || statement.otherwise.empty()) return absl::OkStatus();
  return RunIn(std::make_shared<Scope>(outer), statement.otherwise);
}

absl::StatusOr<Value> Interpreter::CallLoop(const Statement& loop,
                                            const std::shared_ptr<Scope>& scope, const Value& items,
                                            int depth) {
  if (depth > runtime_.limits().macro_depth) {
    return absl::InvalidArgumentError(
        absl::StrCat("loops recursing deeper than ", runtime_.limits().macro_depth));
  }
  NG_RETURN_IF_ERROR(Enter());
  const std::shared_ptr<Scope> before = std::exchange(scope_, scope);
  Text text;
  Text* const output = std::exchange(output_, &text);
  const absl::Status status = For(loop, items, depth);
  output_ = output;
  scope_ = before;
  Leave();
  NG_RETURN_IF_ERROR(status);
  return runtime_.NewString(std::move(text));
}

absl::Status Interpreter::Assign(const Expression& target, const Value& value) {
  if (target.kind == ExpressionKind::kName) {
    scope_->Set(target.name, value);
    return absl::OkStatus();
  }
  if (target.kind == ExpressionKind::kNamespaceRef) {
    const Value* const found = scope_->Find(target.name);
    const auto given = context_.find(target.name);
    const Value space = found != nullptr          ? *found
                        : given != context_.end() ? given->second
                                                  : Value();
    return SetNamespaceAttribute(runtime_, space, target.constant, value);
  }
  NG_ASSIGN_OR_RETURN(const std::vector<Value> parts, Collect(runtime_, value));
  if (parts.size() != target.operands.size()) {
    return absl::InvalidArgumentError(absl::StrCat("cannot unpack ", parts.size(), " values into ",
                                                   target.operands.size(), " names"));
  }
  for (size_t i = 0; i < parts.size(); ++i) {
    NG_RETURN_IF_ERROR(Assign(*target.operands[i], parts[i]));
  }
  return absl::OkStatus();
}

absl::Status Interpreter::With(const Statement& statement) {
  std::vector<Value> values;
  for (const auto& [target, expression] : statement.assignments) {
    NG_ASSIGN_OR_RETURN(Value value, Evaluate(*expression));
    values.push_back(std::move(value));
  }
  const std::shared_ptr<Scope> before = std::exchange(scope_, std::make_shared<Scope>(scope_));
  absl::Status status;
  for (size_t i = 0; i < values.size() && status.ok(); ++i) {
    status = Assign(*statement.assignments[i].first, values[i]);
  }
  if (status.ok()) status = Execute(statement.body).status();
  scope_ = before;
  return status;
}

absl::StatusOr<Value> Interpreter::NewMacro(const MacroDefinition& macro) {
  NG_RETURN_IF_ERROR(runtime_.BreakAtEnd(scope_));
  return runtime_.NewObject(std::make_shared<Macro>(*this, macro, scope_));
}

absl::Status Interpreter::DefineMacro(const Statement& statement) {
  NG_ASSIGN_OR_RETURN(Value macro, NewMacro(statement.macro));
  scope_->Set(statement.macro.name, std::move(macro));
  return absl::OkStatus();
}

absl::Status Interpreter::CallBlock(const Statement& statement) {
  NG_ASSIGN_OR_RETURN(const Value callee, Evaluate(*statement.expression->operands[0]));
  Arguments arguments;
  NG_RETURN_IF_ERROR(EvaluateArguments(statement.expression->arguments, arguments));
  NG_ASSIGN_OR_RETURN(const Value name, runtime_.NewString("caller"));
  NG_ASSIGN_OR_RETURN(Value caller, NewMacro(statement.macro));
  arguments.keyword.push_back({name, std::move(caller)});
  NG_ASSIGN_OR_RETURN(const Value result, Call(runtime_, callee, arguments));
  NG_ASSIGN_OR_RETURN(const Text text, ToText(runtime_, result));
  return Print(text);
}

absl::Status Interpreter::BindParameters(const MacroDefinition& macro, const Arguments& arguments,
                                         Scope& scope) {
  std::vector<bool> used(arguments.keyword.size(), false);
  const auto take = [&](absl::string_view name) -> const Value* {
    for (size_t i = 0; i < arguments.keyword.size(); ++i) {
      if (arguments.keyword[i].name.bytes() != name || used[i]) continue;
      used[i] = true;
      return &arguments.keyword[i].value;
    }
    return nullptr;
  };
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    const Parameter& parameter = macro.parameters[i];
    if (i < arguments.positional.size()) {
      scope.Set(parameter.name, arguments.positional[i]);
    } else if (const Value* const given = take(parameter.name)) {
      scope.Set(parameter.name, *given);
    } else if (parameter.otherwise != nullptr) {
      NG_ASSIGN_OR_RETURN(Value value, Evaluate(*parameter.otherwise));
      scope.Set(parameter.name, std::move(value));
    } else {
      scope.Set(parameter.name, runtime_.NewUndefined(absl::StrCat("parameter '", parameter.name,
                                                                   "' was not provided")));
    }
  }
  if (macro.uses_caller) {
    const Value* const caller = take("caller");
    if (caller != nullptr || scope.Find("caller") == nullptr) {
      scope.Set("caller", caller != nullptr ? *caller : runtime_.NewUndefined("No caller defined"));
    }
  }
  auto rest = std::make_shared<Dict>();
  for (size_t i = 0; i < arguments.keyword.size(); ++i) {
    if (used[i]) continue;
    if (!macro.uses_kwargs) {
      return TypeError(absl::StrCat("macro '", macro.name, "' takes no keyword argument '",
                                    arguments.keyword[i].name.bytes(), "'"));
    }
    NG_RETURN_IF_ERROR(rest->Set(arguments.keyword[i].name, arguments.keyword[i].value));
  }
  if (macro.uses_kwargs) {
    NG_ASSIGN_OR_RETURN(Value kwargs, runtime_.NewDict(std::move(rest)));
    scope.Set("kwargs", std::move(kwargs));
  }
  const size_t taken = std::min(macro.parameters.size(), arguments.positional.size());
  std::vector<Value> extra(arguments.positional.begin() + static_cast<std::ptrdiff_t>(taken),
                           arguments.positional.end());
  if (!macro.uses_varargs && !extra.empty()) {
    return TypeError(absl::StrCat("macro '", macro.name, "' takes not more than ",
                                  macro.parameters.size(), " argument(s)"));
  }
  if (macro.uses_varargs) {
    NG_ASSIGN_OR_RETURN(Value varargs, runtime_.NewTuple(std::move(extra)));
    scope.Set("varargs", std::move(varargs));
  }
  return absl::OkStatus();
}

absl::StatusOr<Value> Interpreter::CallMacro(const MacroDefinition& macro,
                                             const std::shared_ptr<Scope>& closure,
                                             const Arguments& arguments) {
  if (runtime_.macro_depth >= runtime_.limits().macro_depth) {
    return absl::InvalidArgumentError(
        absl::StrCat("macros calling deeper than ", runtime_.limits().macro_depth));
  }
  ++runtime_.macro_depth;
  auto scope = std::make_shared<Scope>(closure);
  const std::shared_ptr<Scope> before = std::exchange(scope_, scope);
  const absl::Status bound = BindParameters(macro, arguments, *scope);
  absl::StatusOr<Value> result =
      bound.ok() ? Capture(macro.body, scope) : absl::StatusOr<Value>(bound);
  scope_ = before;
  --runtime_.macro_depth;
  return result;
}

}  // namespace neurogrid::jinja
