// The tests of chat templates: what may stand behind `is`.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja_ops.h"
#include "engine/text/jinja_string_methods.h"

namespace neurogrid::jinja {
namespace {

/// A test of the value alone.
template <bool (*kTest)(const Value&)>
absl::StatusOr<Value> Alone(Runtime&, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("test", arguments, {"value"}, 1));
  return Value::Bool(kTest(*bound[0]));
}

bool IsDefined(const Value& value) { return !value.is_undefined(); }
bool IsUndefined(const Value& value) { return value.is_undefined(); }
bool IsNone(const Value& value) { return value.is_none(); }
bool IsBoolean(const Value& value) { return value.is_bool(); }
bool IsTrue(const Value& value) { return value.is_bool() && value.integer() != 0; }
bool IsFalse(const Value& value) { return value.is_bool() && value.integer() == 0; }
bool IsInteger(const Value& value) { return value.is_int(); }
bool IsFloat(const Value& value) { return value.is_float(); }
bool IsNumber(const Value& value) { return value.is_number(); }
bool IsString(const Value& value) { return value.is_string(); }
bool IsMapping(const Value& value) { return value.is_dict(); }
bool IsEscaped(const Value& value) { return value.is_string() && value.str().markup; }
// Undefined has __call__, __len__ and __getitem__, so these tests are true of it.
bool IsCallable(const Value& value) {
  return value.is_undefined() || (value.is_object() && value.object().callable());
}
bool IsSequence(const Value& value) {
  return value.is_undefined() || value.is_string() || value.is_list() || value.is_tuple() ||
         value.is_dict() || (value.is_object() && value.object().is_sequence());
}

absl::StatusOr<Value> IsIterableTest(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("iterable", arguments, {"value"}, 1));
  return Value::Bool(IsIterable(runtime, *bound[0]));
}

template <bool (*kTest)(absl::string_view)>
absl::StatusOr<Value> OfText(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("test", arguments, {"value"}, 1));
  NG_ASSIGN_OR_RETURN(const Text text, ToText(runtime, *bound[0]));
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(text.size() * 8));
  return Value::Bool(kTest(text.bytes()));
}

template <bool kWantEqual>
absl::StatusOr<Value> IsEqual(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("eq", arguments, {"/a", "/b"}, 2));
  NG_ASSIGN_OR_RETURN(const bool equal, Equal(runtime, *bound[0], *bound[1]));
  return Value::Bool(equal == kWantEqual);
}

template <Order kOrder>
absl::StatusOr<Value> IsOrdered(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("compare", arguments, {"/a", "/b"}, 2));
  NG_ASSIGN_OR_RETURN(const bool holds, Compare(runtime, *bound[0], *bound[1], kOrder));
  return Value::Bool(holds);
}

absl::StatusOr<Value> IsIn(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("in", arguments, {"value", "seq"}, 2));
  NG_ASSIGN_OR_RETURN(const bool in, Contains(runtime, *bound[1], *bound[0]));
  return Value::Bool(in);
}

absl::StatusOr<Value> Remainder(Runtime& runtime, const Value& value, int64_t divisor,
                                int64_t wanted) {
  NG_ASSIGN_OR_RETURN(const Value rest,
                      Compute(runtime, Arithmetic::kModulo, value, Value::Int(divisor)));
  NG_ASSIGN_OR_RETURN(const bool equal, Equal(runtime, rest, Value::Int(wanted)));
  return Value::Bool(equal);
}

template <int64_t kRest>
absl::StatusOr<Value> Parity(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("even", arguments, {"value"}, 1));
  return Remainder(runtime, *bound[0], 2, kRest);
}

absl::StatusOr<Value> IsDivisibleBy(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("divisibleby", arguments, {"value", "num"}, 2));
  NG_ASSIGN_OR_RETURN(const Value rest,
                      Compute(runtime, Arithmetic::kModulo, *bound[0], *bound[1]));
  NG_ASSIGN_OR_RETURN(const bool zero, Equal(runtime, rest, Value::Int(0)));
  return Value::Bool(zero);
}

absl::StatusOr<Value> IsSameAs(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("sameas", arguments, {"value", "other"}, 2));
  const Value& a = *bound[0];
  const Value& b = *bound[1];
  if (a.kind() != b.kind()) return Value::Bool(false);
  // Python shares small integers, short strings and the empty tuple; large ones are one object when
  // equal here.
  if (a.is_none() || a.is_number() || a.is_string()) return IsEqual<true>(runtime, {{a, b}, {}});
  return Value::Bool(a.heap() == b.heap());
}

absl::StatusOr<Value> IsFilter(Runtime&, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("filter", arguments, {"value"}, 1));
  NG_RETURN_IF_ERROR(CanonicalKey(*bound[0]).status());  // It is looked up in a dict.
  return Value::Bool(bound[0]->is_string() && FindFilter(bound[0]->bytes()) != nullptr);
}

absl::StatusOr<Value> IsTest(Runtime&, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("test", arguments, {"value"}, 1));
  NG_RETURN_IF_ERROR(CanonicalKey(*bound[0]).status());  // It is looked up in a dict.
  return Value::Bool(bound[0]->is_string() && FindTest(bound[0]->bytes()) != nullptr);
}

struct TestRow {
  absl::string_view name;
  Builtin body;
};
constexpr TestRow kTests[] = {
    {"boolean", Alone<IsBoolean>},
    {"callable", Alone<IsCallable>},
    {"defined", Alone<IsDefined>},
    {"divisibleby", IsDivisibleBy},
    {"eq", IsEqual<true>},
    {"equalto", IsEqual<true>},
    {"==", IsEqual<true>},
    {"escaped", Alone<IsEscaped>},
    {"even", Parity<0>},
    {"false", Alone<IsFalse>},
    {"filter", IsFilter},
    {"float", Alone<IsFloat>},
    {"ge", IsOrdered<Order::kGreaterEqual>},
    {">=", IsOrdered<Order::kGreaterEqual>},
    {"greaterthan", IsOrdered<Order::kGreater>},
    {"gt", IsOrdered<Order::kGreater>},
    {">", IsOrdered<Order::kGreater>},
    {"in", IsIn},
    {"integer", Alone<IsInteger>},
    {"iterable", IsIterableTest},
    {"le", IsOrdered<Order::kLessEqual>},
    {"<=", IsOrdered<Order::kLessEqual>},
    {"lessthan", IsOrdered<Order::kLess>},
    {"lower", OfText<StringIsLower>},
    {"lt", IsOrdered<Order::kLess>},
    {"<", IsOrdered<Order::kLess>},
    {"mapping", Alone<IsMapping>},
    {"ne", IsEqual<false>},
    {"!=", IsEqual<false>},
    {"none", Alone<IsNone>},
    {"number", Alone<IsNumber>},
    {"odd", Parity<1>},
    {"sameas", IsSameAs},
    {"sequence", Alone<IsSequence>},
    {"string", Alone<IsString>},
    {"test", IsTest},
    {"true", Alone<IsTrue>},
    {"undefined", Alone<IsUndefined>},
    {"upper", OfText<StringIsUpper>},
};

}  // namespace

Builtin FindTest(absl::string_view name) {
  for (const TestRow& row : kTests) {
    if (row.name == name) return row.body;
  }
  return nullptr;
}

}  // namespace neurogrid::jinja
