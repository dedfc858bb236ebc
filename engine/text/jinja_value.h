// Values of chat templates: Python's None, bool, int (64 bits), float, str, list, tuple, dict and
// objects.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "common/status.h"
#include "engine/text/jinja_text.h"

namespace neurogrid::jinja {

class Runtime;
class Value;

/// Memory that the values of one rendering hold.
struct Meter {
  int64_t used_bytes = 0;
  int64_t limit_bytes = 0;
};

/// Base of everything a value points to. Gives its bytes back to the meter when it goes.
class HeapObject {
 public:
  HeapObject() = default;
  HeapObject(const HeapObject&) = delete;
  HeapObject& operator=(const HeapObject&) = delete;
  virtual ~HeapObject() {
    if (meter_ != nullptr) meter_->used_bytes -= bytes_;
  }
  /// The meter must outlive the object.
  void Account(Meter* meter, int64_t bytes) {
    meter_ = meter;
    bytes_ = bytes;
    meter->used_bytes += bytes;
  }
  /// Containers inside containers; bounded, so that no recursion over values is deep.
  int depth() const { return depth_; }
  void set_depth(int depth) { depth_ = depth; }

 private:
  Meter* meter_ = nullptr;
  int64_t bytes_ = 0;
  int depth_ = 0;
};

struct Str;
struct List;
class Dict;
class Object;

class Value {
 public:
  enum class Kind {
    kUndefined,
    kNone,
    kBool,
    kInt,
    kFloat,
    kString,
    kList,
    kTuple,
    kDict,
    kObject
  };

  Value() : kind_(Kind::kUndefined), integer_(0) {}
  static Value None() { return Value(Kind::kNone, nullptr); }
  static Value Bool(bool value) {
    Value v(Kind::kBool, nullptr);
    v.integer_ = value ? 1 : 0;
    return v;
  }
  static Value Int(int64_t value) {
    Value v(Kind::kInt, nullptr);
    v.integer_ = value;
    return v;
  }
  static Value Float(double value) {
    Value v(Kind::kFloat, nullptr);
    v.number_ = value;
    return v;
  }
  Value(Kind kind, std::shared_ptr<HeapObject> heap)
      : kind_(kind), integer_(0), heap_(std::move(heap)) {}

  Kind kind() const { return kind_; }
  bool is_undefined() const { return kind_ == Kind::kUndefined; }
  bool is_none() const { return kind_ == Kind::kNone; }
  bool is_bool() const { return kind_ == Kind::kBool; }
  bool is_int() const { return kind_ == Kind::kInt; }
  bool is_integral() const { return is_int() || is_bool(); }  // Python: bool is an int
  bool is_float() const { return kind_ == Kind::kFloat; }
  bool is_number() const { return is_integral() || is_float(); }
  bool is_string() const { return kind_ == Kind::kString; }
  bool is_list() const { return kind_ == Kind::kList; }
  bool is_tuple() const { return kind_ == Kind::kTuple; }
  bool is_dict() const { return kind_ == Kind::kDict; }
  bool is_object() const { return kind_ == Kind::kObject; }

  /// Each of these only on its kind.
  int64_t integer() const { return integer_; }  // bool too
  double number() const { return is_float() ? number_ : static_cast<double>(integer_); }
  const Str& str() const;
  const Text& text() const;
  const std::string& bytes() const { return text().bytes(); }
  const std::vector<Value>& items() const;  // list, tuple
  const Dict& dict() const;
  Object& object() const;
  template <typename T>
  T* as() const {
    return dynamic_cast<T*>(heap_.get());
  }

  const std::shared_ptr<HeapObject>& heap() const { return heap_; }
  int depth() const { return heap_ == nullptr ? 0 : heap_->depth(); }

  /// "str", "int", "dict", "NoneType", "Undefined", ... as Python's messages name types.
  std::string type_name() const;

 private:
  Kind kind_;
  union {
    int64_t integer_;
    double number_;
  };
  std::shared_ptr<HeapObject> heap_;
};

/// markup: made by escape or safe; adding to it escapes what is added.
struct Str : HeapObject {
  Text text;
  bool markup = false;
  bool ascii = true;
};

struct List : HeapObject {
  std::vector<Value> items;
  bool group = false;  // a pair of groupby: item 0 is its .grouper, item 1 its .list
};

/// Why something is undefined, said when it is used.
struct UndefinedReason : HeapObject {
  std::string message;
};

/// Insertion-ordered; keys are hashable values, 1 == 1.0 == true.
class Dict : public HeapObject {
 public:
  struct Entry {
    Value key;
    Value value;
  };
  const std::vector<Entry>& entries() const { return entries_; }
  size_t size() const { return entries_.size(); }
  /// InvalidArgument for an unhashable key.
  absl::StatusOr<const Value*> Get(const Value& key) const;
  const Value* Get(absl::string_view key) const;
  /// Replaces the value and keeps the old key when the key is there.
  absl::Status Set(Value key, Value value);

 private:
  const Value* Lookup(const std::string& canonical) const;
  std::vector<Entry> entries_;
  absl::flat_hash_map<std::string, size_t> places_;  // canonical key -> entry
};

/// One text per class of equal keys; InvalidArgument for what Python cannot hash.
absl::StatusOr<std::string> CanonicalKey(const Value& key);

/// What a call was given.
struct Arguments {
  struct Keyword {
    Value name;  // a string
    Value value;
  };
  std::vector<Value> positional;
  std::vector<Keyword> keyword;
};

/// Namespaces, macros, functions, iterators and whatever else has behaviour of its own.
class Object : public HeapObject {
 public:
  virtual std::string type_name() const = 0;
  /// repr(); the default is "<type_name>".
  virtual absl::StatusOr<Text> Repr(Runtime& runtime);
  /// An attribute or method; nothing when it has none of that name.
  virtual absl::StatusOr<std::optional<Value>> Attribute(Runtime& runtime, absl::string_view name);
  /// object[key]; nothing when it cannot or has none.
  virtual absl::StatusOr<std::optional<Value>> Item(Runtime& runtime, const Value& key);
  virtual bool callable() const { return false; }
  virtual absl::StatusOr<Value> Call(Runtime& runtime, const Arguments& arguments);
  /// An iterator, or null when this cannot be iterated.
  virtual absl::StatusOr<Value> Iterate(Runtime& runtime);
  virtual std::optional<int64_t> Length() const { return std::nullopt; }
  /// Python sequences: range, but no iterator and no dict view.
  virtual bool is_sequence() const { return false; }
};

/// Python's iterators: good for one pass.
class Iterator : public Object {
 public:
  std::string type_name() const override { return "generator"; }
  /// Nothing at the end, and ever after.
  virtual absl::StatusOr<std::optional<Value>> Next(Runtime& runtime) = 0;
};

}  // namespace neurogrid::jinja
