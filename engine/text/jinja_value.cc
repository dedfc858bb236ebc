#include "engine/text/jinja_value.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace neurogrid::jinja {

const Str& Value::str() const {
  NG_CHECK(is_string());
  return static_cast<const Str&>(*heap_);
}

const Text& Value::text() const { return str().text; }

const std::vector<Value>& Value::items() const {
  NG_CHECK(is_list() || is_tuple());
  return static_cast<const List&>(*heap_).items;
}

const Dict& Value::dict() const {
  NG_CHECK(is_dict());
  return static_cast<const Dict&>(*heap_);
}

Object& Value::object() const {
  NG_CHECK(is_object());
  return static_cast<Object&>(*heap_);
}

std::string Value::type_name() const {
  switch (kind_) {
    case Kind::kUndefined:
      return "Undefined";
    case Kind::kNone:
      return "NoneType";
    case Kind::kBool:
      return "bool";
    case Kind::kInt:
      return "int";
    case Kind::kFloat:
      return "float";
    case Kind::kString:
      return "str";
    case Kind::kList:
      return "list";
    case Kind::kTuple:
      return "tuple";
    case Kind::kDict:
      return "dict";
    case Kind::kObject:
      return object().type_name();
  }
  return "";
}

absl::StatusOr<std::string> CanonicalKey(const Value& key) {
  switch (key.kind()) {
    case Value::Kind::kUndefined:
      return "u";
    case Value::Kind::kNone:
      return "n";
    case Value::Kind::kBool:
    case Value::Kind::kInt:
      return absl::StrCat("i", key.integer());
    case Value::Kind::kFloat: {
      const double number = key.number();
      if (number == std::floor(number) && std::abs(number) < 9e18) {
        return absl::StrCat("i", static_cast<int64_t>(number));
      }
      return absl::StrCat("f", absl::Hex(std::bit_cast<uint64_t>(number)));
    }
    case Value::Kind::kString:
      return absl::StrCat("s", key.bytes());
    case Value::Kind::kTuple: {
      std::string all = "t";
      for (const Value& item : key.items()) {
        NG_ASSIGN_OR_RETURN(const std::string part, CanonicalKey(item));
        absl::StrAppend(&all, part.size(), ":", part);
      }
      return all;
    }
    case Value::Kind::kList:
    case Value::Kind::kDict:
      break;
    case Value::Kind::kObject:
      return absl::StrCat("o", absl::Hex(reinterpret_cast<uintptr_t>(key.heap().get())));
  }
  return absl::InvalidArgumentError(absl::StrCat("unhashable type: '", key.type_name(), "'"));
}

const Value* Dict::Lookup(const std::string& canonical) const {
  const auto found = places_.find(canonical);
  return found == places_.end() ? nullptr : &entries_[found->second].value;
}

absl::StatusOr<const Value*> Dict::Get(const Value& key) const {
  NG_ASSIGN_OR_RETURN(const std::string canonical, CanonicalKey(key));
  return Lookup(canonical);
}

const Value* Dict::Get(absl::string_view key) const { return Lookup(absl::StrCat("s", key)); }

absl::Status Dict::Set(Value key, Value value) {
  NG_ASSIGN_OR_RETURN(const std::string canonical, CanonicalKey(key));
  const auto [place, added] = places_.try_emplace(canonical, entries_.size());
  if (added) {
    entries_.push_back({std::move(key), std::move(value)});
  } else {
    entries_[place->second].value = std::move(value);
  }
  return absl::OkStatus();
}

absl::StatusOr<Text> Object::Repr(Runtime&) {
  return Text(absl::StrCat("<", type_name(), ">"), Origin::kTemplate);
}

absl::StatusOr<std::optional<Value>> Object::Attribute(Runtime&, absl::string_view) {
  return std::nullopt;
}

absl::StatusOr<std::optional<Value>> Object::Item(Runtime&, const Value&) { return std::nullopt; }

absl::StatusOr<Value> Object::Call(Runtime&, const Arguments&) {
  return absl::InvalidArgumentError(absl::StrCat("'", type_name(), "' object is not callable"));
}

absl::StatusOr<Value> Object::Iterate(Runtime&) { return Value(); }

}  // namespace neurogrid::jinja
