// Attributes, items, slices and calls of template values.
#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/text/jinja_ops.h"
#include "engine/text/jinja_unicode.h"

namespace neurogrid::jinja {
namespace {

std::string ObjectTypeRepr(const Value& value) {
  if (value.is_none()) return "None";
  return absl::StrCat(value.type_name(), " object");
}

absl::StatusOr<Value> Missing(Runtime& runtime, const Value& value, const Value& key) {
  NG_ASSIGN_OR_RETURN(const Text name, ToRepr(runtime, key));
  const std::string shown = name.bytes().substr(0, 200);
  if (key.is_string()) {
    return runtime.NewUndefined(
        absl::StrCat("'", ObjectTypeRepr(value), "' has no attribute ", shown));
  }
  return runtime.NewUndefined(absl::StrCat(ObjectTypeRepr(value), " has no element ", shown));
}

/// value[index] by position; nothing when out of range.
absl::StatusOr<std::optional<Value>> ElementAt(Runtime& runtime, const Value& value,
                                               int64_t index) {
  NG_ASSIGN_OR_RETURN(const int64_t length, Length(runtime, value));
  if (index < 0) index += length;
  if (index < 0 || index >= length) return std::nullopt;
  if (!value.is_string()) return value.items()[static_cast<size_t>(index)];
  const Text& text = value.text();
  const size_t begin =
      value.str().ascii ? static_cast<size_t>(index) : OffsetOf(text.bytes(), index);
  const size_t length_bytes = static_cast<size_t>(DecodeAt(text.bytes(), begin).length);
  return runtime.NewString(text.Slice(begin, begin + length_bytes), value.str().markup);
}

/// value[key] as Python's subscript; nothing where Python raises TypeError or LookupError.
absl::StatusOr<std::optional<Value>> Subscript(Runtime& runtime, const Value& value,
                                               const Value& key) {
  if (value.is_undefined()) return UndefinedError(value);
  if (value.is_dict()) {
    const absl::StatusOr<const Value*> found = value.dict().Get(key);
    if (found.ok() && *found != nullptr) return **found;
    return std::nullopt;
  }
  if (value.is_string() || value.is_list() || value.is_tuple()) {
    if (!key.is_integral()) return std::nullopt;
    return ElementAt(runtime, value, key.integer());
  }
  if (value.is_object()) return value.object().Item(runtime, key);
  return std::nullopt;
}

/// getattr(value, name) in the sandbox.
absl::StatusOr<std::optional<Value>> PlainAttribute(Runtime& runtime, const Value& value,
                                                    const Value& name) {
  if (value.is_undefined()) return UndefinedError(value);
  const std::string& bytes = name.bytes();
  if (absl::StartsWith(bytes, "__") && absl::EndsWith(bytes, "__")) {
    return runtime.NewUndefined(absl::StrCat("access to attribute '", bytes.substr(0, 100),
                                             "' of '", value.type_name(), "' object is unsafe."));
  }
  if (value.is_object()) return value.object().Attribute(runtime, bytes);
  return FindMethod(runtime, value, bytes);
}

absl::StatusOr<std::optional<int64_t>> SliceIndex(const Value& value) {
  if (value.is_none()) return std::nullopt;
  if (value.is_undefined()) return UndefinedError(value);
  if (!value.is_integral()) {
    return TypeError("slice indices must be integers or None or have an __index__ method");
  }
  return value.integer();
}

struct Indices {
  int64_t start;
  int64_t stop;
  int64_t step;
};

/// slice.indices(length) of Python.
absl::StatusOr<Indices> SliceIndices(int64_t length, const Value& start, const Value& stop,
                                     const Value& step) {
  NG_ASSIGN_OR_RETURN(const std::optional<int64_t> first, SliceIndex(start));
  NG_ASSIGN_OR_RETURN(const std::optional<int64_t> last, SliceIndex(stop));
  NG_ASSIGN_OR_RETURN(const std::optional<int64_t> stride, SliceIndex(step));
  // Beyond the length in either direction every stride is alike.
  const int64_t by = std::clamp<int64_t>(stride.value_or(1), -length - 1, length + 1);
  if (stride.has_value() && *stride == 0) {
    return absl::InvalidArgumentError("slice step cannot be zero");
  }
  const int64_t low = by < 0 ? -1 : 0;
  const int64_t high = by < 0 ? length - 1 : length;
  const auto place = [&](int64_t index) {
    if (index < 0) return std::max(index < -length ? low : index + length, low);
    return std::min(index, high);
  };
  Indices indices{by < 0 ? high : low, by < 0 ? low : high, by};
  if (first.has_value()) indices.start = place(*first);
  if (last.has_value()) indices.stop = place(*last);
  return indices;
}

absl::StatusOr<Value> SliceString(Runtime& runtime, const Value& value, const Indices& by) {
  const Text& text = value.text();
  const bool ascii = value.str().ascii;
  const bool markup = value.str().markup;
  const auto offset = [&](int64_t index) {
    return ascii ? static_cast<size_t>(index) : OffsetOf(text.bytes(), index);
  };
  if (by.step == 1) {
    if (by.start >= by.stop) return runtime.NewString(Text(), markup);
    return runtime.NewString(text.Slice(offset(by.start), offset(by.stop)), markup);
  }
  std::vector<size_t> starts;  // Byte offsets of the code points.
  for (size_t i = 0; i < text.size();) {
    starts.push_back(i);
    i += static_cast<size_t>(DecodeAt(text.bytes(), i).length);
  }
  starts.push_back(text.size());
  NG_RETURN_IF_ERROR(runtime.Charge(static_cast<int64_t>(starts.size() / 16)));
  Text out;
  for (int64_t i = by.start; by.step > 0 ? i < by.stop : i > by.stop; i += by.step) {
    const auto at = static_cast<size_t>(i);
    out.Append(text, starts[at], starts[at + 1]);
  }
  return runtime.NewString(std::move(out), markup);
}

}  // namespace

absl::StatusOr<Value> GetAttribute(Runtime& runtime, const Value& value, const Value& name) {
  NG_ASSIGN_OR_RETURN(std::optional<Value> attribute, PlainAttribute(runtime, value, name));
  if (attribute.has_value()) return *attribute;
  NG_ASSIGN_OR_RETURN(std::optional<Value> item, Subscript(runtime, value, name));
  if (item.has_value()) return *item;
  return Missing(runtime, value, name);
}

absl::StatusOr<Value> GetItem(Runtime& runtime, const Value& value, const Value& key) {
  NG_RETURN_IF_ERROR(runtime.Charge());
  NG_ASSIGN_OR_RETURN(std::optional<Value> item, Subscript(runtime, value, key));
  if (item.has_value()) return *item;
  if (key.is_string()) {
    NG_ASSIGN_OR_RETURN(std::optional<Value> attribute, PlainAttribute(runtime, value, key));
    if (attribute.has_value()) return *attribute;
  }
  return Missing(runtime, value, key);
}

absl::StatusOr<Value> GetSlice(Runtime& runtime, const Value& value, const Value& start,
                               const Value& stop, const Value& step) {
  if (value.is_undefined()) return UndefinedError(value);
  if (!value.is_string() && !value.is_list() && !value.is_tuple()) {
    return TypeError(absl::StrCat("'", value.type_name(), "' object cannot be sliced"));
  }
  NG_ASSIGN_OR_RETURN(const int64_t length, Length(runtime, value));
  NG_ASSIGN_OR_RETURN(const Indices by, SliceIndices(length, start, stop, step));
  if (value.is_string()) return SliceString(runtime, value, by);
  std::vector<Value> items;
  for (int64_t i = by.start; by.step > 0 ? i < by.stop : i > by.stop; i += by.step) {
    items.push_back(value.items()[static_cast<size_t>(i)]);
  }
  return value.is_list() ? runtime.NewList(std::move(items)) : runtime.NewTuple(std::move(items));
}

absl::StatusOr<Value> Call(Runtime& runtime, const Value& callee, const Arguments& arguments) {
  NG_RETURN_IF_ERROR(runtime.Charge());
  if (callee.is_undefined()) return UndefinedError(callee);
  if (!callee.is_object()) {
    return TypeError(absl::StrCat("'", callee.type_name(), "' object is not callable"));
  }
  // The callee may drop the last reference to itself while it runs.
  const std::shared_ptr<HeapObject> keep = callee.heap();
  return callee.object().Call(runtime, arguments);
}

}  // namespace neurogrid::jinja
