// Truth, equality, order, membership, length and iteration.
#include "engine/text/jinja_ops.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja_unicode.h"

namespace neurogrid::jinja {
namespace {

class StringIterator : public Iterator {
 public:
  explicit StringIterator(Value value) : value_(std::move(value)) {}
  std::string type_name() const override { return "str_iterator"; }
  absl::StatusOr<std::optional<Value>> Next(Runtime& runtime) override {
    const Text& text = value_.text();
    if (next_ == text.size()) return std::nullopt;
    const size_t begin = next_;
    next_ += static_cast<size_t>(DecodeAt(text.bytes(), begin).length);
    return runtime.NewString(text.Slice(begin, next_));
  }

 private:
  Value value_;
  size_t next_ = 0;
};

class ListIterator : public Iterator {
 public:
  explicit ListIterator(Value value) : value_(std::move(value)) {}
  std::string type_name() const override { return "list_iterator"; }
  absl::StatusOr<std::optional<Value>> Next(Runtime& runtime) override {
    NG_RETURN_IF_ERROR(runtime.Charge());
    if (next_ == value_.items().size()) return std::nullopt;
    return value_.items()[next_++];
  }

 private:
  Value value_;
  size_t next_ = 0;
};

class KeyIterator : public Iterator {
 public:
  explicit KeyIterator(Value value) : value_(std::move(value)) {}
  std::string type_name() const override { return "dict_keyiterator"; }
  absl::StatusOr<std::optional<Value>> Next(Runtime& runtime) override {
    NG_RETURN_IF_ERROR(runtime.Charge());
    if (next_ == value_.dict().size()) return std::nullopt;
    return value_.dict().entries()[next_++].key;
  }

 private:
  Value value_;
  size_t next_ = 0;
};

absl::StatusOr<bool> EqualItems(Runtime& runtime, const std::vector<Value>& a,
                                const std::vector<Value>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    NG_ASSIGN_OR_RETURN(const bool equal, Equal(runtime, a[i], b[i]));
    if (!equal) return false;
  }
  return true;
}

absl::StatusOr<bool> EqualDicts(Runtime& runtime, const Dict& a, const Dict& b) {
  if (a.size() != b.size()) return false;
  for (const Dict::Entry& entry : a.entries()) {
    NG_ASSIGN_OR_RETURN(const Value* const twin, b.Get(entry.key));
    if (twin == nullptr) return false;
    NG_ASSIGN_OR_RETURN(const bool equal, Equal(runtime, entry.value, *twin));
    if (!equal) return false;
  }
  return true;
}

/// -1, 0, 1; 2 when one is not a number. long double holds every int64 on the platforms we build
/// for.
int CompareNumbers(const Value& a, const Value& b) {
  const auto widen = [](const Value& v) {
    return v.is_float() ? static_cast<long double>(v.number())
                        : static_cast<long double>(v.integer());
  };
  const long double x = widen(a);
  const long double y = widen(b);
  if (std::isnan(x) || std::isnan(y)) return 2;
  return x < y ? -1 : x > y ? 1 : 0;
}

bool Holds(int order, Order wanted) {
  switch (wanted) {
    case Order::kLess:
      return order == -1;
    case Order::kLessEqual:
      return order == -1 || order == 0;
    case Order::kGreater:
      return order == 1;
    case Order::kGreaterEqual:
      return order == 1 || order == 0;
  }
  return false;
}

absl::string_view Sign(Order order) {
  switch (order) {
    case Order::kLess:
      return "<";
    case Order::kLessEqual:
      return "<=";
    case Order::kGreater:
      return ">";
    case Order::kGreaterEqual:
      return ">=";
  }
  return "";
}

}  // namespace

absl::Status UndefinedError(const Value& value) {
  const auto* reason = value.as<UndefinedReason>();
  return absl::InvalidArgumentError(reason == nullptr ? "undefined value used" : reason->message);
}

bool Truth(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
    case Value::Kind::kNone:
      return false;
    case Value::Kind::kBool:
    case Value::Kind::kInt:
      return value.integer() != 0;
    case Value::Kind::kFloat:
      return value.number() != 0;
    case Value::Kind::kString:
      return !value.bytes().empty();
    case Value::Kind::kList:
    case Value::Kind::kTuple:
      return !value.items().empty();
    case Value::Kind::kDict:
      return value.dict().size() != 0;
    case Value::Kind::kObject:
      return value.object().Length().value_or(1) != 0;
  }
  return false;
}

absl::StatusOr<bool> Equal(Runtime& runtime, const Value& a, const Value& b) {
  NG_RETURN_IF_ERROR(runtime.Charge());
  if (a.is_number() && b.is_number()) return CompareNumbers(a, b) == 0;
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Value::Kind::kUndefined:
    case Value::Kind::kNone:
      return true;
    case Value::Kind::kBool:
    case Value::Kind::kInt:
    case Value::Kind::kFloat:
      return false;  // Numbers are done above.
    case Value::Kind::kString:
      NG_RETURN_IF_ERROR(runtime.ChargeBytes(std::min(a.bytes().size(), b.bytes().size())));
      return a.bytes() == b.bytes();
    case Value::Kind::kList:
    case Value::Kind::kTuple:
      return EqualItems(runtime, a.items(), b.items());
    case Value::Kind::kDict:
      return EqualDicts(runtime, a.dict(), b.dict());
    case Value::Kind::kObject:
      return a.heap() == b.heap();
  }
  return false;
}

absl::StatusOr<bool> Compare(Runtime& runtime, const Value& a, const Value& b, Order order) {
  NG_RETURN_IF_ERROR(runtime.Charge());
  if (a.is_undefined()) return UndefinedError(a);
  if (b.is_undefined()) return UndefinedError(b);
  if (a.is_number() && b.is_number()) return Holds(CompareNumbers(a, b), order);
  if (a.is_string() && b.is_string()) {
    NG_RETURN_IF_ERROR(runtime.ChargeBytes(std::min(a.bytes().size(), b.bytes().size())));
    const int sign = a.bytes().compare(b.bytes());  // UTF-8 sorts as code points do
    return Holds(sign < 0 ? -1 : sign > 0 ? 1 : 0, order);
  }
  if ((a.is_list() && b.is_list()) || (a.is_tuple() && b.is_tuple())) {
    const std::vector<Value>& x = a.items();
    const std::vector<Value>& y = b.items();
    for (size_t i = 0; i < std::min(x.size(), y.size()); ++i) {
      NG_ASSIGN_OR_RETURN(const bool equal, Equal(runtime, x[i], y[i]));
      if (!equal) return Compare(runtime, x[i], y[i], order);
    }
    return Holds(x.size() < y.size() ? -1 : x.size() > y.size() ? 1 : 0, order);
  }
  return TypeError(absl::StrCat("'", Sign(order), "' not supported between instances of '",
                                a.type_name(), "' and '", b.type_name(), "'"));
}

absl::StatusOr<bool> Contains(Runtime& runtime, const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) {
      return TypeError(
          absl::StrCat("'in <string>' requires string as left operand, not ", item.type_name()));
    }
    NG_RETURN_IF_ERROR(runtime.ChargeBytes(container.bytes().size()));
    return Find(container.bytes(), item.bytes()) != absl::string_view::npos;
  }
  if (container.is_dict()) {
    NG_ASSIGN_OR_RETURN(const Value* const found, container.dict().Get(item));
    return found != nullptr;
  }
  absl::StatusOr<std::shared_ptr<Iterator>> iterator = Iterate(runtime, container);
  if (!iterator.ok()) {
    return TypeError(
        absl::StrCat("argument of type '", container.type_name(), "' is not iterable"));
  }
  while (true) {
    NG_ASSIGN_OR_RETURN(const std::optional<Value> next, (*iterator)->Next(runtime));
    if (!next.has_value()) return false;
    NG_ASSIGN_OR_RETURN(const bool equal, Equal(runtime, *next, item));
    if (equal) return true;
  }
}

absl::StatusOr<int64_t> Length(Runtime& runtime, const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return 0;
    case Value::Kind::kString:
      if (value.str().ascii) return static_cast<int64_t>(value.bytes().size());
      NG_RETURN_IF_ERROR(runtime.ChargeBytes(value.bytes().size()));
      return CountCodePoints(value.bytes());
    case Value::Kind::kList:
    case Value::Kind::kTuple:
      return static_cast<int64_t>(value.items().size());
    case Value::Kind::kDict:
      return static_cast<int64_t>(value.dict().size());
    case Value::Kind::kObject:
      if (const std::optional<int64_t> length = value.object().Length()) return *length;
      break;
    case Value::Kind::kNone:
    case Value::Kind::kBool:
    case Value::Kind::kInt:
    case Value::Kind::kFloat:
      break;
  }
  return TypeError(absl::StrCat("object of type '", value.type_name(), "' has no len()"));
}

absl::StatusOr<std::shared_ptr<Iterator>> Iterate(Runtime& runtime, const Value& value) {
  switch (value.kind()) {
    case Value::Kind::kUndefined:
      return std::make_shared<ItemIterator>(std::vector<Value>(), "iterator");
    case Value::Kind::kString:
      return std::make_shared<StringIterator>(value);
    case Value::Kind::kList:
    case Value::Kind::kTuple:
      return std::make_shared<ListIterator>(value);
    case Value::Kind::kDict:
      return std::make_shared<KeyIterator>(value);
    case Value::Kind::kObject: {
      if (auto self = std::dynamic_pointer_cast<Iterator>(value.heap())) return self;
      NG_ASSIGN_OR_RETURN(const Value made, value.object().Iterate(runtime));
      if (auto iterator = std::dynamic_pointer_cast<Iterator>(made.heap())) return iterator;
      break;
    }
    case Value::Kind::kNone:
    case Value::Kind::kBool:
    case Value::Kind::kInt:
    case Value::Kind::kFloat:
      break;
  }
  return TypeError(absl::StrCat("'", value.type_name(), "' object is not iterable"));
}

absl::StatusOr<std::vector<Value>> Collect(Runtime& runtime, const Value& value) {
  if (value.is_list() || value.is_tuple()) {
    NG_RETURN_IF_ERROR(runtime.Charge(static_cast<int64_t>(value.items().size())));
    return value.items();
  }
  NG_ASSIGN_OR_RETURN(const std::shared_ptr<Iterator> iterator, Iterate(runtime, value));
  std::vector<Value> items;
  while (true) {
    NG_ASSIGN_OR_RETURN(std::optional<Value> next, iterator->Next(runtime));
    if (!next.has_value()) return items;
    items.push_back(*std::move(next));
  }
}

bool IsIterable(Runtime& runtime, const Value& value) { return Iterate(runtime, value).ok(); }

}  // namespace neurogrid::jinja
