// Methods of str, list, tuple, dict and numbers as the immutable sandbox lets templates see them.
#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja_ops.h"
#include "engine/text/jinja_string_methods.h"

namespace neurogrid::jinja {
namespace {

class Method : public Object {
 public:
  Method(Value self, std::string name, Builtin body)
      : self_(std::move(self)), name_(std::move(name)), body_(body) {}
  std::string type_name() const override { return "builtin_function_or_method"; }
  absl::StatusOr<Text> Repr(Runtime&) override {
    return Text(absl::StrCat("<built-in method ", name_, " of ", self_.type_name(), " object>"),
                Origin::kTemplate);
  }
  bool callable() const override { return true; }
  absl::StatusOr<Value> Call(Runtime& runtime, const Arguments& arguments) override {
    Arguments all;
    all.positional.push_back(self_);
    all.positional.insert(all.positional.end(), arguments.positional.begin(),
                          arguments.positional.end());
    all.keyword = arguments.keyword;
    if (!self_.is_string() || !self_.str().markup) return body_(runtime, all);
    return CallMarkup(runtime, std::move(all));
  }

 private:
  /// Methods of markupsafe.Markup: what they take in is escaped, what they give out is Markup.
  absl::StatusOr<Value> CallMarkup(Runtime& runtime, Arguments all) {
    if (name_ == "format") {
      return absl::InvalidArgumentError(
          "formatting of escaped text is not supported in chat templates");
    }
    if (name_ == "join" && all.positional.size() == 2) {
      NG_ASSIGN_OR_RETURN(std::vector<Value> items, Collect(runtime, all.positional[1]));
      for (Value& item : items) {
        NG_ASSIGN_OR_RETURN(item, ToMarkup(runtime, item));
      }
      NG_ASSIGN_OR_RETURN(all.positional[1], runtime.NewList(std::move(items)));
    }
    if (name_ == "replace" && all.positional.size() > 2 && all.positional[2].is_string()) {
      NG_ASSIGN_OR_RETURN(all.positional[2], ToMarkup(runtime, all.positional[2]));
    }
    NG_ASSIGN_OR_RETURN(const Value result, body_(runtime, all));
    return Marked(runtime, result);
  }

  static absl::StatusOr<Value> ToMarkup(Runtime& runtime, const Value& value) {
    if (value.is_string() && value.str().markup) return value;
    NG_ASSIGN_OR_RETURN(const Text text, ToText(runtime, value));
    NG_ASSIGN_OR_RETURN(Text escaped, EscapeHtml(runtime, text));
    return runtime.NewString(std::move(escaped), /*markup=*/true);
  }

  static absl::StatusOr<Value> Marked(Runtime& runtime, const Value& value) {
    if (value.is_string()) return runtime.NewString(value.text(), /*markup=*/true);
    if (!value.is_list() && !value.is_tuple()) return value;
    std::vector<Value> items;
    for (const Value& item : value.items()) {
      NG_ASSIGN_OR_RETURN(Value marked, runtime.NewString(item.text(), /*markup=*/true));
      items.push_back(std::move(marked));
    }
    return value.is_list() ? runtime.NewList(std::move(items)) : runtime.NewTuple(std::move(items));
  }

  Value self_;
  std::string name_;
  Builtin body_;
};

enum class View { kKeys, kValues, kItems };

absl::StatusOr<Value> ViewElement(Runtime& runtime, const Dict::Entry& entry, View view) {
  switch (view) {
    case View::kKeys:
      return entry.key;
    case View::kValues:
      return entry.value;
    case View::kItems:
      break;
  }
  return runtime.NewTuple({entry.key, entry.value});
}

class ViewIterator : public Iterator {
 public:
  ViewIterator(Value dict, View view) : dict_(std::move(dict)), view_(view) {}
  std::string type_name() const override { return "dict_itemiterator"; }
  absl::StatusOr<std::optional<Value>> Next(Runtime& runtime) override {
    NG_RETURN_IF_ERROR(runtime.Charge());
    if (next_ == dict_.dict().size()) return std::nullopt;
    return ViewElement(runtime, dict_.dict().entries()[next_++], view_);
  }

 private:
  Value dict_;
  View view_;
  size_t next_ = 0;
};

class DictView : public Object {
 public:
  DictView(Value dict, View view) : dict_(std::move(dict)), view_(view) {}
  std::string type_name() const override {
    switch (view_) {
      case View::kKeys:
        return "dict_keys";
      case View::kValues:
        return "dict_values";
      case View::kItems:
        break;
    }
    return "dict_items";
  }
  absl::StatusOr<Text> Repr(Runtime& runtime) override {
    std::vector<Value> items;
    for (const Dict::Entry& entry : dict_.dict().entries()) {
      NG_ASSIGN_OR_RETURN(Value item, ViewElement(runtime, entry, view_));
      items.push_back(std::move(item));
    }
    NG_ASSIGN_OR_RETURN(const Value list, runtime.NewList(std::move(items)));
    Text text(absl::StrCat(type_name(), "("), Origin::kTemplate);
    NG_ASSIGN_OR_RETURN(const Text inside, ToRepr(runtime, list));
    text.Append(inside);
    text.Append(")", Origin::kTemplate);
    return text;
  }
  absl::StatusOr<Value> Iterate(Runtime& runtime) override {
    return runtime.NewObject(std::make_shared<ViewIterator>(dict_, view_), dict_.depth());
  }
  std::optional<int64_t> Length() const override {
    return static_cast<int64_t>(dict_.dict().size());
  }

 private:
  Value dict_;
  View view_;
};

template <View kView>
absl::StatusOr<Value> MakeView(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("dict view", arguments, {"/self"}, 1));
  return runtime.NewObject(std::make_shared<DictView>(*bound[0], kView), bound[0]->depth());
}

absl::StatusOr<Value> DictGet(Runtime& runtime, const Arguments& arguments) {
  NG_RETURN_IF_ERROR(runtime.Charge());
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("get", arguments, {"/self", "/key", "/default"}, 2));
  NG_ASSIGN_OR_RETURN(const Value* const found, bound[0]->dict().Get(*bound[1]));
  if (found != nullptr) return *found;
  return bound[2] == nullptr ? Value::None() : *bound[2];
}

absl::StatusOr<Value> Copy(Runtime&, const Arguments& arguments) {
  // Nothing changes a list or a dict here, so the copy may be the thing itself.
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("copy", arguments, {"/self"}, 1));
  return *bound[0];
}

absl::StatusOr<Value> ListCount(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("count", arguments, {"/self", "/value"}, 2));
  int64_t count = 0;
  for (const Value& item : bound[0]->items()) {
    NG_ASSIGN_OR_RETURN(const bool equal, Equal(runtime, item, *bound[1]));
    if (equal) ++count;
  }
  return Value::Int(count);
}

absl::StatusOr<Value> ListIndex(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("index", arguments, {"/self", "/value", "/start", "/stop"}, 2));
  const std::vector<Value>& items = bound[0]->items();
  const auto length = static_cast<int64_t>(items.size());
  NG_ASSIGN_OR_RETURN(int64_t start, IntegerArgument(bound[2], 0));
  NG_ASSIGN_OR_RETURN(int64_t stop, IntegerArgument(bound[3], length));
  if (start < 0) start = std::max<int64_t>(start + length, 0);
  if (stop < 0) stop += length;
  for (int64_t i = start; i < std::min(stop, length); ++i) {
    NG_ASSIGN_OR_RETURN(const bool equal, Equal(runtime, items[static_cast<size_t>(i)], *bound[1]));
    if (equal) return Value::Int(i);
  }
  return absl::InvalidArgumentError("value is not in the list");
}

template <size_t kCount>
bool IsOneOf(absl::string_view name, const absl::string_view (&names)[kCount]) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

/// Methods that change their object: the sandbox hands out an undefined that fails when used.
bool IsMutating(const Value& self, absl::string_view name) {
  static constexpr absl::string_view kList[] = {"append", "clear", "pop",    "reverse",
                                                "insert", "sort",  "extend", "remove"};
  static constexpr absl::string_view kDict[] = {"clear", "pop", "popitem", "setdefault", "update"};
  return (self.is_list() && IsOneOf(name, kList)) || (self.is_dict() && IsOneOf(name, kDict));
}

/// What Python has and this interpreter does not: an error instead of a wrong "undefined".
bool IsUnsupported(const Value& self, absl::string_view name) {
  static constexpr absl::string_view kString[] = {
      "casefold", "encode", "format_map", "isidentifier", "isprintable", "maketrans", "translate"};
  static constexpr absl::string_view kNumber[] = {
      "as_integer_ratio", "bit_count", "bit_length", "conjugate", "denominator",
      "from_bytes",       "fromhex",   "hex",        "imag",      "is_integer",
      "numerator",        "real",      "to_bytes"};
  return (self.is_string() && IsOneOf(name, kString)) ||
         (self.is_number() && IsOneOf(name, kNumber)) || (self.is_dict() && name == "fromkeys");
}

Builtin FindContainerMethod(const Value& self, absl::string_view name) {
  if (self.is_dict()) {
    if (name == "items") return MakeView<View::kItems>;
    if (name == "keys") return MakeView<View::kKeys>;
    if (name == "values") return MakeView<View::kValues>;
    if (name == "get") return DictGet;
    return name == "copy" ? Copy : nullptr;
  }
  if (!self.is_list() && !self.is_tuple()) return nullptr;
  if (name == "count") return ListCount;
  if (name == "index") return ListIndex;
  return self.is_list() && name == "copy" ? Copy : nullptr;
}

}  // namespace

absl::StatusOr<std::optional<Value>> FindMethod(Runtime& runtime, const Value& self,
                                                absl::string_view name) {
  if (self.is_tuple() && self.as<List>()->group) {
    if (name == "grouper") return self.items()[0];
    if (name == "list") return self.items()[1];
  }
  if (IsMutating(self, name)) {
    return runtime.NewUndefined(absl::StrCat("access to attribute '", name, "' of '",
                                             self.type_name(), "' object is unsafe."));
  }
  if (IsUnsupported(self, name)) {
    return absl::InvalidArgumentError(absl::StrCat("the attribute ", name, " of ", self.type_name(),
                                                   " is not supported in chat templates"));
  }
  const Builtin body = self.is_string() ? FindStringMethod(name) : FindContainerMethod(self, name);
  if (body == nullptr) return std::nullopt;
  NG_ASSIGN_OR_RETURN(
      Value method,
      runtime.NewObject(std::make_shared<Method>(self, std::string(name), body), self.depth()));
  return method;
}

}  // namespace neurogrid::jinja
