// The loop variable of for.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja_interpreter.h"

namespace neurogrid::jinja {
namespace {

/// loop.cycle and loop.changed.
class LoopMethod : public Object {
 public:
  LoopMethod(std::weak_ptr<Loop> loop, int64_t index0, bool cycle)
      : loop_(std::move(loop)), index0_(index0), cycle_(cycle) {}
  std::string type_name() const override { return "method"; }
  bool callable() const override { return true; }
  absl::StatusOr<Value> Call(Runtime& runtime, const Arguments& arguments) override {
    if (!arguments.keyword.empty()) return TypeError("loop methods take no keyword arguments");
    if (!cycle_) {
      const std::shared_ptr<Loop> loop = loop_.lock();
      if (loop == nullptr) return TypeError("the loop has ended");
      NG_ASSIGN_OR_RETURN(const bool changed, loop->Changed(runtime, arguments.positional));
      return Value::Bool(changed);
    }
    const auto count = static_cast<int64_t>(arguments.positional.size());
    if (count == 0) return TypeError("no items for cycling given");
    return arguments.positional[static_cast<size_t>(index0_ % count)];
  }

 private:
  std::weak_ptr<Loop> loop_;
  int64_t index0_;
  bool cycle_;
};

}  // namespace

absl::StatusOr<bool> Loop::Has(Runtime& runtime, int64_t index) {
  while (!drained_ && index >= static_cast<int64_t>(items_.size())) {
    NG_ASSIGN_OR_RETURN(std::optional<Value> next, pull_());
    drained_ = !next.has_value();
    if (drained_) break;
    if (next->depth() >= runtime.limits().nesting) {
      return absl::InvalidArgumentError(
          absl::StrCat("values nested deeper than ", runtime.limits().nesting, " levels"));
    }
    set_depth(std::max(depth(), next->depth() + 1));
    items_.push_back(*std::move(next));
    NG_RETURN_IF_ERROR(runtime.Reserve(static_cast<double>(items_.size() * sizeof(Value))));
  }
  return index < static_cast<int64_t>(items_.size());
}

absl::StatusOr<bool> Loop::Advance(Runtime& runtime) {
  ++index0_;
  return Has(runtime, index0_);
}

void Loop::Finish() {
  items_.clear();
  last_changed_.reset();
  drained_ = true;
  pull_ = nullptr;
  recurse_ = nullptr;
}

absl::StatusOr<int64_t> Loop::Count(Runtime& runtime) {
  NG_RETURN_IF_ERROR(Has(runtime, INT64_MAX).status());
  return static_cast<int64_t>(items_.size());
}

absl::StatusOr<std::optional<Value>> Loop::Neighbour(Runtime& runtime, int64_t index) {
  NG_ASSIGN_OR_RETURN(const bool has, Has(runtime, index));
  if (has && index >= 0) return items_[static_cast<size_t>(index)];
  return runtime.NewUndefined(index < 0 ? "there is no previous item" : "there is no next item");
}

absl::StatusOr<Text> Loop::Repr(Runtime& runtime) {
  NG_ASSIGN_OR_RETURN(const int64_t count, Count(runtime));
  return Text(absl::StrCat("<LoopContext ", index0_ + 1, "/", count, ">"), Origin::kTemplate);
}

absl::StatusOr<std::optional<Value>> Loop::Attribute(Runtime& runtime, absl::string_view name) {
  if (name == "index") return Value::Int(index0_ + 1);
  if (name == "index0") return Value::Int(index0_);
  if (name == "first") return Value::Bool(index0_ == 0);
  if (name == "depth") return Value::Int(depth0_ + 1);
  if (name == "depth0") return Value::Int(depth0_);
  if (name == "last") {
    NG_ASSIGN_OR_RETURN(const bool more, Has(runtime, index0_ + 1));
    return Value::Bool(!more);
  }
  if (name == "previtem") return Neighbour(runtime, index0_ - 1);
  if (name == "nextitem") return Neighbour(runtime, index0_ + 1);
  if (name == "cycle" || name == "changed") {
    NG_ASSIGN_OR_RETURN(Value method,
                        runtime.NewObject(std::make_shared<LoopMethod>(
                            weak_from_this(), std::max<int64_t>(index0_, 0), name == "cycle")));
    return method;
  }
  if (name != "length" && name != "revindex" && name != "revindex0") return std::nullopt;
  NG_ASSIGN_OR_RETURN(const int64_t count, Count(runtime));
  if (name == "length") return Value::Int(count);
  return Value::Int(count - index0_ - (name == "revindex0" ? 1 : 0));
}

absl::StatusOr<Value> Loop::Call(Runtime& runtime, const Arguments& arguments) {
  NG_RETURN_IF_ERROR(runtime.Charge());
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("loop", arguments, {"iterable"}, 1));
  if (recurse_ == nullptr) {
    return TypeError("The loop must have the 'recursive' marker to be called recursively.");
  }
  return recurse_(*bound[0]);
}

absl::StatusOr<bool> Loop::Changed(Runtime& runtime, std::vector<Value> values) {
  bool same = last_changed_.has_value() && last_changed_->size() == values.size();
  for (size_t i = 0; same && i < values.size(); ++i) {
    NG_ASSIGN_OR_RETURN(same, Equal(runtime, (*last_changed_)[i], values[i]));
  }
  if (!same) {
    // What is kept here counts towards the depth of the loop, as its items do.
    for (const Value& value : values) {
      if (value.depth() >= runtime.limits().nesting) {
        return absl::InvalidArgumentError("values nested too deep");
      }
      set_depth(std::max(depth(), value.depth() + 1));
    }
    last_changed_ = std::move(values);
  }
  return !same;
}

}  // namespace neurogrid::jinja
