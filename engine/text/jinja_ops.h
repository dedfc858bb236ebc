// Python's operators and protocols over template values: truth, equality, order, arithmetic,
// iteration, text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/text/jinja_runtime.h"

namespace neurogrid::jinja {

using Builtin = absl::StatusOr<Value> (*)(Runtime& runtime, const Arguments& arguments);

bool Truth(const Value& value);
/// The error that using an undefined value gives.
absl::Status UndefinedError(const Value& value);

absl::StatusOr<bool> Equal(Runtime& runtime, const Value& a, const Value& b);
enum class Order { kLess, kLessEqual, kGreater, kGreaterEqual };
absl::StatusOr<bool> Compare(Runtime& runtime, const Value& a, const Value& b, Order order);
absl::StatusOr<bool> Contains(Runtime& runtime, const Value& container, const Value& item);

enum class Arithmetic { kAdd, kSubtract, kMultiply, kDivide, kFloorDivide, kModulo, kPower };
absl::StatusOr<Value> Compute(Runtime& runtime, Arithmetic op, const Value& a, const Value& b);
absl::StatusOr<Value> Negate(const Value& value);
absl::StatusOr<Value> Positive(const Value& value);

/// len(): code points of a string.
absl::StatusOr<int64_t> Length(Runtime& runtime, const Value& value);

/// iter(value): an Iterator; an Iterator itself is returned as it is.
absl::StatusOr<std::shared_ptr<Iterator>> Iterate(Runtime& runtime, const Value& value);
/// list(value).
absl::StatusOr<std::vector<Value>> Collect(Runtime& runtime, const Value& value);
bool IsIterable(Runtime& runtime, const Value& value);

/// The least trusted origin of the strings in a value: what the brackets and quotes printed around
/// them may be taken for.
Origin LeastTrusted(const Value& value);

/// str(value) and repr(value).
absl::StatusOr<Text> ToText(Runtime& runtime, const Value& value);
absl::StatusOr<Text> ToRepr(Runtime& runtime, const Value& value);
/// str(value) as a value; a string comes back as it is.
absl::StatusOr<Value> ToStringValue(Runtime& runtime, const Value& value);
/// repr() of a float: shortest digits, exponent below 1e-4 and from 1e16 on.
std::string FloatRepr(double value);

/// value.name, as environment.getattr: attribute or method, then key, else undefined.
absl::StatusOr<Value> GetAttribute(Runtime& runtime, const Value& value, const Value& name);
/// value[key], as environment.getitem: key or index, then attribute, else undefined.
absl::StatusOr<Value> GetItem(Runtime& runtime, const Value& value, const Value& key);
/// value[start:stop:step]; none where one is left out.
absl::StatusOr<Value> GetSlice(Runtime& runtime, const Value& value, const Value& start,
                               const Value& stop, const Value& step);

absl::StatusOr<Value> Call(Runtime& runtime, const Value& callee, const Arguments& arguments);

/// Replaces & < > ' " by entities, as markupsafe does.
absl::StatusOr<Text> EscapeHtml(Runtime& runtime, const Text& text);

/// tojson of models.md 6.2. Named arguments: ensure_ascii, indent, separators, sort_keys.
absl::StatusOr<Value> ToJson(Runtime& runtime, const Arguments& arguments);

/// A built-in function or method as a value.
absl::StatusOr<Value> NewFunction(Runtime& runtime, std::string name, Builtin body);

/// A bound method of a str, list, tuple, dict, int or float; nothing when Python has none of that
/// name. A method that changes its object is undefined with the sandbox's reason.
absl::StatusOr<std::optional<Value>> FindMethod(Runtime& runtime, const Value& self,
                                                absl::string_view name);

/// format % values; values a tuple, a dict or one value.
absl::StatusOr<Value> FormatPercent(Runtime& runtime, const Value& format, const Value& values);
/// format.format(...).
absl::StatusOr<Value> FormatBraces(Runtime& runtime, const Value& format,
                                   const Arguments& arguments);

/// A filter or test by name, null when there is none. The value comes as the first argument.
Builtin FindFilter(absl::string_view name);
Builtin FindTest(absl::string_view name);
/// A global function (range, namespace, ...), or nothing.
absl::StatusOr<std::optional<Value>> FindGlobal(Runtime& runtime, absl::string_view name);

/// Assigns namespace.name; an error when `target` is no namespace.
absl::Status SetNamespaceAttribute(Runtime& runtime, const Value& target, const Value& name,
                                   Value value);

}  // namespace neurogrid::jinja
