// Walks the tree of a template.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "engine/text/jinja_ast.h"

namespace neurogrid::jinja {

/// Names that a statement brought about. A name not found here is looked for in the parent.
class Scope : public Breakable {
 public:
  explicit Scope(std::shared_ptr<Scope> parent) : parent_(std::move(parent)) {}
  const Value* Find(absl::string_view name) const;
  void Set(absl::string_view name, Value value);
  void Clear() { values_.clear(); }
  void Break() override { values_.clear(); }

 private:
  std::shared_ptr<Scope> parent_;
  std::vector<std::pair<absl::string_view, Value>> values_;  // names live in the tree
};

class Interpreter {
 public:
  Interpreter(Runtime& runtime, absl::flat_hash_map<std::string, Value> context)
      : runtime_(runtime), context_(std::move(context)) {}

  absl::StatusOr<Text> Run(const Body& body);
  /// Where the first error happened; 0 before any.
  int error_line() const { return error_line_; }

  /// Runs a macro's body as a call with these arguments; the closure is the scope of its
  /// definition.
  absl::StatusOr<Value> CallMacro(const MacroDefinition& macro,
                                  const std::shared_ptr<Scope>& closure,
                                  const Arguments& arguments);
  /// loop(items) of a recursive for.
  absl::StatusOr<Value> CallLoop(const Statement& loop, const std::shared_ptr<Scope>& scope,
                                 const Value& items, int depth);

 private:
  enum class Flow { kNext, kBreak, kContinue };
  using Done = absl::StatusOr<Flow>;

  Done Execute(const Body& body);
  Done ExecuteStatement(const Statement& statement);
  Done ExecuteInside(const Statement& statement);
  Done If(const Statement& statement);
  absl::Status For(const Statement& statement, const Value& items, int depth);
  absl::Status ForRounds(const Statement& statement, class Loop& loop, const Value& self);
  absl::Status With(const Statement& statement);
  absl::Status DefineMacro(const Statement& statement);
  absl::Status CallBlock(const Statement& statement);
  absl::StatusOr<Value> NewMacro(const MacroDefinition& macro);
  absl::Status BindParameters(const MacroDefinition& macro, const Arguments& arguments,
                              Scope& scope);
  /// What the body prints, run in a scope of its own.
  absl::StatusOr<Value> Capture(const Body& body, std::shared_ptr<Scope> scope);
  absl::Status RunIn(std::shared_ptr<Scope> scope, const Body& body);
  absl::Status Assign(const Expression& target, const Value& value);
  absl::Status Print(const Text& text);

  absl::StatusOr<Value> Evaluate(const Expression& expression);
  absl::StatusOr<Value> EvaluateInside(const Expression& expression);
  absl::StatusOr<Value> EvaluateName(const Expression& expression);
  absl::StatusOr<Value> EvaluateLogic(const Expression& expression);
  absl::StatusOr<Value> EvaluateDict(const Expression& expression);
  absl::StatusOr<Value> EvaluateComparison(const Expression& expression);
  absl::StatusOr<Value> EvaluateArithmetic(const Expression& expression);
  absl::StatusOr<Value> EvaluateConcatenation(const Expression& expression);
  absl::StatusOr<Value> EvaluateSlice(const Expression& expression);
  absl::StatusOr<Value> EvaluateBuiltin(const Expression& expression);
  absl::StatusOr<bool> CompareTwo(Comparison comparison, const Value& a, const Value& b);
  absl::StatusOr<std::vector<Value>> EvaluateAll(const std::vector<ExpressionPtr>& expressions);
  absl::Status EvaluateArguments(const CallArguments& given, Arguments& arguments);
  /// Applies the filters in front of a block to what the block printed.
  absl::StatusOr<Value> ApplyFilter(const Expression& filter, const Value& value);

  /// Bounds recursion of the walk; Enter before, Leave after.
  absl::Status Enter();
  void Leave() { --runtime_.run_depth; }
  /// Passes a result on and remembers the line of the first error.
  template <typename T>
  T WithLine(T result, int line) {
    if (!result.ok() && error_line_ == 0) error_line_ = line;
    return result;
  }

  Runtime& runtime_;
  absl::flat_hash_map<std::string, Value> context_;
  std::shared_ptr<Scope> root_ = std::make_shared<Scope>(nullptr);
  std::shared_ptr<Scope> scope_ = root_;
  Text* output_ = nullptr;
  const Value* block_text_ = nullptr;  // what a filter without operand applies to
  int error_line_ = 0;
};

/// The `loop` of a for: items as they are needed, and where the loop stands.
class Loop : public Object, public std::enable_shared_from_this<Loop> {
 public:
  using Pull = std::function<absl::StatusOr<std::optional<Value>>()>;
  using Recurse = std::function<absl::StatusOr<Value>(const Value& items)>;
  Loop(Pull pull, Recurse recurse, int depth0)
      : pull_(std::move(pull)), recurse_(std::move(recurse)), depth0_(depth0) {}

  /// Steps to the next item; false at the end.
  absl::StatusOr<bool> Advance(Runtime& runtime);
  const Value& current() const { return items_[static_cast<size_t>(index0_)]; }
  /// Lets go of the items: a loop may outlive its for in a namespace, and items may hold the loop.
  void Finish();

  std::string type_name() const override { return "LoopContext"; }
  absl::StatusOr<Text> Repr(Runtime& runtime) override;
  absl::StatusOr<std::optional<Value>> Attribute(Runtime& runtime, absl::string_view name) override;
  bool callable() const override { return true; }
  absl::StatusOr<Value> Call(Runtime& runtime, const Arguments& arguments) override;
  absl::StatusOr<bool> Changed(Runtime& runtime, std::vector<Value> values);

 private:
  /// Makes items_[index] be there if there are so many.
  absl::StatusOr<bool> Has(Runtime& runtime, int64_t index);
  absl::StatusOr<int64_t> Count(Runtime& runtime);
  absl::StatusOr<std::optional<Value>> Neighbour(Runtime& runtime, int64_t index);

  Pull pull_;
  Recurse recurse_;
  std::vector<Value> items_;
  std::optional<std::vector<Value>> last_changed_;
  int64_t index0_ = -1;
  int depth0_;
  bool drained_ = false;
};

}  // namespace neurogrid::jinja
