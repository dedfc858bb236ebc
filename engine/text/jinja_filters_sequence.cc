// Filters over sequences; map, select and their kin are lazy, as generators are.
#include <algorithm>
#include <functional>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "engine/text/jinja_filters.h"
#include "engine/text/jinja_string_methods.h"

namespace neurogrid::jinja {
namespace {

/// An attribute argument: "a.b", 0, or none at all for the item itself.
class Getter {
 public:
  Getter(const Value* attribute, bool fold_case, const Value* otherwise) : fold_case_(fold_case) {
    if (attribute != nullptr && !attribute->is_none()) attribute_ = *attribute;
    if (otherwise != nullptr && !otherwise->is_none()) otherwise_ = *otherwise;
  }

  absl::StatusOr<Value> Get(Runtime& runtime, const Value& item) const {
    Value value = item;
    if (attribute_.has_value() && attribute_->is_string()) {
      for (const absl::string_view part : absl::StrSplit(attribute_->bytes(), '.')) {
        NG_ASSIGN_OR_RETURN(const Value key, Part(runtime, part));
        NG_RETURN_IF_ERROR(Step(runtime, key, value));
      }
    } else if (attribute_.has_value()) {
      NG_RETURN_IF_ERROR(Step(runtime, *attribute_, value));
    }
    if (!fold_case_ || !value.is_string()) return value;
    return StringToCase(runtime, value, Case::kLower);
  }

 private:
  static absl::StatusOr<Value> Part(Runtime& runtime, absl::string_view part) {
    int64_t index = 0;
    const bool digits = std::all_of(part.begin(), part.end(), [](char c) {
      return absl::ascii_isdigit(static_cast<unsigned char>(c));
    });
    if (digits && absl::SimpleAtoi(part, &index)) return Value::Int(index);
    return runtime.NewString(part);
  }
  absl::Status Step(Runtime& runtime, const Value& key, Value& value) const {
    NG_ASSIGN_OR_RETURN(value, GetItem(runtime, value, key));
    if (value.is_undefined() && otherwise_.has_value()) value = *otherwise_;
    return absl::OkStatus();
  }

  std::optional<Value> attribute_;
  std::optional<Value> otherwise_;
  bool fold_case_;
};

/// Passes each item of a source through a function; nothing from it means the item is left out.
class LazyIterator : public Iterator {
 public:
  explicit LazyIterator(Value source) : source_(std::move(source)) {}
  absl::StatusOr<std::optional<Value>> Next(Runtime& runtime) final {
    if (!Truth(source_)) return std::nullopt;
    if (iterator_ == nullptr) {
      NG_ASSIGN_OR_RETURN(iterator_, jinja::Iterate(runtime, source_));
    }
    while (true) {
      NG_ASSIGN_OR_RETURN(const std::optional<Value> item, iterator_->Next(runtime));
      if (!item.has_value()) return std::nullopt;
      NG_ASSIGN_OR_RETURN(std::optional<Value> made, Pass(runtime, *item));
      if (made.has_value()) return made;
    }
  }

 protected:
  virtual absl::StatusOr<std::optional<Value>> Pass(Runtime& runtime, const Value& item) = 0;

 private:
  Value source_;
  std::shared_ptr<Iterator> iterator_;
};

/// `rest` with `item` before it.
Arguments WithItem(const Arguments& rest, const Value& item) {
  Arguments arguments;
  arguments.positional.push_back(item);
  arguments.positional.insert(arguments.positional.end(), rest.positional.begin(),
                              rest.positional.end());
  arguments.keyword = rest.keyword;
  return arguments;
}

class SelectIterator : public LazyIterator {
 public:
  SelectIterator(Value source, std::optional<Getter> getter, Arguments rest, bool wanted)
      : LazyIterator(std::move(source)),
        getter_(std::move(getter)),
        rest_(std::move(rest)),
        wanted_(wanted) {
    if (rest_.positional.empty()) return;
    name_ = rest_.positional[0];
    rest_.positional.erase(rest_.positional.begin());
  }

 protected:
  absl::StatusOr<std::optional<Value>> Pass(Runtime& runtime, const Value& item) override {
    Value tested = item;
    if (getter_.has_value()) {
      NG_ASSIGN_OR_RETURN(tested, getter_->Get(runtime, item));
    }
    Value result = tested;
    if (name_.has_value()) {
      const Builtin test = name_->is_string() ? FindTest(name_->bytes()) : nullptr;
      if (test == nullptr) {
        NG_ASSIGN_OR_RETURN(const Text name, ToText(runtime, *name_));
        return absl::InvalidArgumentError(
            absl::StrCat("No test named '", name.bytes().substr(0, 100), "'."));
      }
      NG_ASSIGN_OR_RETURN(result, test(runtime, WithItem(rest_, tested)));
    }
    if (Truth(result) != wanted_) return std::nullopt;
    return item;
  }

 private:
  std::optional<Getter> getter_;
  std::optional<Value> name_;
  Arguments rest_;
  bool wanted_;
};

class MapIterator : public LazyIterator {
 public:
  MapIterator(Value source, std::optional<Getter> getter, Arguments rest)
      : LazyIterator(std::move(source)), getter_(std::move(getter)), rest_(std::move(rest)) {
    if (rest_.positional.empty()) return;
    name_ = rest_.positional[0];
    rest_.positional.erase(rest_.positional.begin());
  }

 protected:
  absl::StatusOr<std::optional<Value>> Pass(Runtime& runtime, const Value& item) override {
    if (getter_.has_value()) {
      NG_ASSIGN_OR_RETURN(Value value, getter_->Get(runtime, item));
      return value;
    }
    const Builtin filter = name_.is_string() ? FindFilter(name_.bytes()) : nullptr;
    if (filter == nullptr) {
      NG_ASSIGN_OR_RETURN(const Text name, ToText(runtime, name_));
      return absl::InvalidArgumentError(
          absl::StrCat("No filter named '", name.bytes().substr(0, 100), "'."));
    }
    NG_ASSIGN_OR_RETURN(Value value, filter(runtime, WithItem(rest_, item)));
    return value;
  }

 private:
  std::optional<Getter> getter_;
  Value name_;
  Arguments rest_;
};

int DepthOf(const Arguments& arguments) {
  int depth = 0;
  for (const Value& value : arguments.positional) depth = std::max(depth, value.depth());
  for (const Arguments::Keyword& keyword : arguments.keyword) {
    depth = std::max(depth, keyword.value.depth());
  }
  return depth;
}

absl::StatusOr<Value> SelectOrReject(Runtime& runtime, const Arguments& arguments,
                                     bool by_attribute, bool wanted) {
  if (arguments.positional.empty()) return TypeError("select needs a value");
  Arguments rest = arguments;
  const Value source = rest.positional[0];
  rest.positional.erase(rest.positional.begin());
  std::optional<Getter> getter;
  if (by_attribute) {
    if (rest.positional.empty()) {
      return absl::InvalidArgumentError("Missing parameter for attribute name");
    }
    getter.emplace(&rest.positional[0], false, nullptr);
    rest.positional.erase(rest.positional.begin());
  }
  return runtime.NewObject(
      std::make_shared<SelectIterator>(source, std::move(getter), std::move(rest), wanted),
      DepthOf(arguments));
}

bool IsGiven(const Value* value) { return value != nullptr && Truth(*value); }

struct Keyed {
  Value key;
  Value item;
};

/// sorted(items, key=..., reverse=...)
absl::Status SortKeyed(Runtime& runtime, std::vector<Keyed>& keyed, bool reverse) {
  absl::Status failure;
  std::stable_sort(keyed.begin(), keyed.end(), [&](const Keyed& a, const Keyed& b) {
    if (!failure.ok()) return false;
    const absl::StatusOr<bool> less = reverse ? Compare(runtime, b.key, a.key, Order::kLess)
                                              : Compare(runtime, a.key, b.key, Order::kLess);
    if (!less.ok()) failure = less.status();
    return less.ok() && *less;
  });
  return failure;
}

absl::StatusOr<std::vector<Keyed>> WithKeys(Runtime& runtime, const Value& value,
                                            const Getter& getter) {
  NG_ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(runtime, value));
  std::vector<Keyed> keyed;
  for (const Value& item : items) {
    NG_ASSIGN_OR_RETURN(Value key, getter.Get(runtime, item));
    keyed.push_back({std::move(key), item});
  }
  return keyed;
}

absl::StatusOr<Value> ItemsOf(Runtime& runtime, const std::vector<Keyed>& keyed) {
  std::vector<Value> items;
  for (const Keyed& one : keyed) items.push_back(one.item);
  return runtime.NewList(std::move(items));
}

/// A generator whose items are made all at once, but not before the first is asked for.
class DeferredIterator : public Iterator {
 public:
  using Make = std::function<absl::StatusOr<std::vector<Value>>(Runtime&)>;
  explicit DeferredIterator(Make make) : make_(std::move(make)) {}
  absl::StatusOr<std::optional<Value>> Next(Runtime& runtime) override {
    NG_RETURN_IF_ERROR(runtime.Charge());
    if (make_ != nullptr) {
      const Make make = std::exchange(make_, nullptr);
      NG_ASSIGN_OR_RETURN(items_, make(runtime));
      NG_RETURN_IF_ERROR(runtime.Reserve(static_cast<double>(items_.size() * sizeof(Value))));
    }
    if (next_ == items_.size()) return std::nullopt;
    return items_[next_++];
  }

 private:
  Make make_;
  std::vector<Value> items_;
  size_t next_ = 0;
};

/// A generator over what `make` makes of the arguments.
absl::StatusOr<Value> Deferred(Runtime& runtime, const Arguments& arguments,
                               absl::StatusOr<std::vector<Value>> (*make)(Runtime&,
                                                                          const Arguments&)) {
  // The lists it makes hold the items one level deeper than the source does.
  return runtime.NewObject(std::make_shared<DeferredIterator>([arguments, make](Runtime& inner) {
                             return make(inner, arguments);
                           }),
                           DepthOf(arguments) + 1);
}

absl::StatusOr<Value> MinOrMax(Runtime& runtime, const Arguments& arguments, Order better) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("min", arguments, {"value", "case_sensitive", "attribute"}, 1));
  const Getter getter(bound[2], !IsGiven(bound[1]), nullptr);
  NG_ASSIGN_OR_RETURN(const std::vector<Keyed> keyed, WithKeys(runtime, *bound[0], getter));
  if (keyed.empty()) return runtime.NewUndefined("No aggregated item, sequence was empty.");
  const Keyed* best = &keyed[0];
  for (size_t i = 1; i < keyed.size(); ++i) {
    NG_ASSIGN_OR_RETURN(const bool wins, Compare(runtime, keyed[i].key, best->key, better));
    if (wins) best = &keyed[i];
  }
  return best->item;
}

/// reversed(value), or nothing where Python has no such thing.
absl::StatusOr<std::optional<std::vector<Value>>> Reversed(Runtime& runtime, const Value& value) {
  const bool ordered = value.is_undefined() || value.is_string() || value.is_list() ||
                       value.is_tuple() || value.is_dict() ||
                       (value.is_object() && value.object().Length().has_value());
  if (!ordered) return std::nullopt;
  NG_ASSIGN_OR_RETURN(std::vector<Value> items, Collect(runtime, value));
  std::reverse(items.begin(), items.end());
  return items;
}

absl::StatusOr<std::vector<Value>> MakeItems(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("items", arguments, {"value"}, 1));
  std::vector<Value> items;
  if (bound[0]->is_undefined()) return items;
  if (!bound[0]->is_dict()) return TypeError("Can only get item pairs from a mapping.");
  for (const Dict::Entry& entry : bound[0]->dict().entries()) {
    NG_ASSIGN_OR_RETURN(Value pair, runtime.NewTuple({entry.key, entry.value}));
    items.push_back(std::move(pair));
  }
  return items;
}

absl::StatusOr<std::vector<Value>> MakeUnique(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("unique", arguments, {"value", "case_sensitive", "attribute"}, 1));
  const Getter getter(bound[2], !IsGiven(bound[1]), nullptr);
  NG_ASSIGN_OR_RETURN(const std::vector<Keyed> keyed, WithKeys(runtime, *bound[0], getter));
  absl::flat_hash_set<std::string> seen;
  std::vector<Value> items;
  for (const Keyed& one : keyed) {
    NG_ASSIGN_OR_RETURN(std::string key, CanonicalKey(one.key));
    if (seen.insert(std::move(key)).second) items.push_back(one.item);
  }
  return items;
}

absl::StatusOr<std::vector<Value>> MakeBatches(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("batch", arguments, {"value", "linecount", "fill_with"}, 2));
  NG_ASSIGN_OR_RETURN(const int64_t count, IntegerArgument(bound[1], 0));
  NG_ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(runtime, *bound[0]));
  const bool fill = bound[2] != nullptr && !bound[2]->is_none();
  if (fill) NG_RETURN_IF_ERROR(runtime.Reserve(static_cast<double>(count) * sizeof(Value)));
  std::vector<Value> batches;
  std::vector<Value> batch;
  for (size_t i = 0; i < items.size(); ++i) {
    batch.push_back(items[i]);
    const bool last = i + 1 == items.size();
    if (!last && static_cast<int64_t>(batch.size()) != count) continue;
    while (last && fill && static_cast<int64_t>(batch.size()) < count) batch.push_back(*bound[2]);
    NG_ASSIGN_OR_RETURN(Value list, runtime.NewList(std::exchange(batch, {})));
    batches.push_back(std::move(list));
  }
  return batches;
}

absl::StatusOr<std::vector<Value>> MakeSlices(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("slice", arguments, {"value", "slices", "fill_with"}, 2));
  NG_ASSIGN_OR_RETURN(const int64_t slices, IntegerArgument(bound[1], 0));
  NG_ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(runtime, *bound[0]));
  if (slices == 0) return absl::InvalidArgumentError("integer division or modulo by zero");
  const auto length = static_cast<int64_t>(items.size());
  std::vector<Value> lists;
  for (int64_t i = 0, begin = 0; i < slices; ++i) {
    NG_RETURN_IF_ERROR(runtime.Charge());
    const int64_t end = begin + length / slices + (i < length % slices ? 1 : 0);
    std::vector<Value> part(items.begin() + begin, items.begin() + end);
    if (bound[2] != nullptr && !bound[2]->is_none() && i >= length % slices) {
      part.push_back(*bound[2]);
    }
    NG_ASSIGN_OR_RETURN(Value list, runtime.NewList(std::move(part)));
    lists.push_back(std::move(list));
    begin = end;
  }
  return lists;
}

}  // namespace

absl::StatusOr<Value> FilterSelect(Runtime& runtime, const Arguments& arguments) {
  return SelectOrReject(runtime, arguments, false, true);
}
absl::StatusOr<Value> FilterReject(Runtime& runtime, const Arguments& arguments) {
  return SelectOrReject(runtime, arguments, false, false);
}
absl::StatusOr<Value> FilterSelectAttr(Runtime& runtime, const Arguments& arguments) {
  return SelectOrReject(runtime, arguments, true, true);
}
absl::StatusOr<Value> FilterRejectAttr(Runtime& runtime, const Arguments& arguments) {
  return SelectOrReject(runtime, arguments, true, false);
}

absl::StatusOr<Value> FilterMap(Runtime& runtime, const Arguments& arguments) {
  if (arguments.positional.empty()) return TypeError("map needs a value");
  Arguments rest = arguments;
  const Value source = rest.positional[0];
  rest.positional.erase(rest.positional.begin());
  std::optional<Getter> getter;
  if (rest.positional.empty() && Truth(source)) {
    const Arguments keywords{{}, rest.keyword};
    const absl::StatusOr<Bound> bound = Bind("map", keywords, {"attribute", "default"}, 1);
    if (!bound.ok()) return absl::InvalidArgumentError("map requires a filter argument");
    getter.emplace((*bound)[0], false, (*bound)[1]);
  }
  return runtime.NewObject(
      std::make_shared<MapIterator>(source, std::move(getter), std::move(rest)),
      DepthOf(arguments));
}

absl::StatusOr<Value> FilterMin(Runtime& runtime, const Arguments& arguments) {
  return MinOrMax(runtime, arguments, Order::kLess);
}
absl::StatusOr<Value> FilterMax(Runtime& runtime, const Arguments& arguments) {
  return MinOrMax(runtime, arguments, Order::kGreater);
}

absl::StatusOr<Value> FilterList(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("list", arguments, {"value"}, 1));
  NG_ASSIGN_OR_RETURN(std::vector<Value> items, Collect(runtime, *bound[0]));
  return runtime.NewList(std::move(items));
}

absl::StatusOr<Value> FilterLength(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("length", arguments, {"/obj"}, 1));
  NG_ASSIGN_OR_RETURN(const int64_t length, Length(runtime, *bound[0]));
  return Value::Int(length);
}

absl::StatusOr<Value> FilterFirst(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("first", arguments, {"seq"}, 1));
  NG_ASSIGN_OR_RETURN(const std::shared_ptr<Iterator> iterator, Iterate(runtime, *bound[0]));
  NG_ASSIGN_OR_RETURN(const std::optional<Value> first, iterator->Next(runtime));
  if (first.has_value()) return *first;
  return runtime.NewUndefined("No first item, sequence was empty.");
}

absl::StatusOr<Value> FilterLast(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("last", arguments, {"seq"}, 1));
  const Value& value = *bound[0];
  if (value.is_string() || value.is_list() || value.is_tuple()) {
    NG_ASSIGN_OR_RETURN(const int64_t length, Length(runtime, value));
    if (length > 0) return GetItem(runtime, value, Value::Int(-1));
  }
  NG_ASSIGN_OR_RETURN(const auto reversed, Reversed(runtime, value));
  if (!reversed.has_value()) {
    return TypeError(absl::StrCat("'", value.type_name(), "' object is not reversible"));
  }
  if (!reversed->empty()) return (*reversed)[0];
  return runtime.NewUndefined("No last item, sequence was empty.");
}

absl::StatusOr<Value> FilterReverse(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("reverse", arguments, {"value"}, 1));
  const Value& value = *bound[0];
  const Value none = Value::None();
  if (value.is_string()) return GetSlice(runtime, value, none, none, Value::Int(-1));
  NG_ASSIGN_OR_RETURN(auto reversed, Reversed(runtime, value));
  if (reversed.has_value()) {
    return runtime.NewObject(
        std::make_shared<ItemIterator>(*std::move(reversed), "list_reverseiterator"),
        value.depth());
  }
  NG_ASSIGN_OR_RETURN(std::vector<Value> items, Collect(runtime, value));
  std::reverse(items.begin(), items.end());
  return runtime.NewList(std::move(items));
}

absl::StatusOr<Value> FilterItems(Runtime& runtime, const Arguments& arguments) {
  NG_RETURN_IF_ERROR(Bind("items", arguments, {"value"}, 1).status());
  return Deferred(runtime, arguments, MakeItems);
}

absl::StatusOr<Value> FilterJoin(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("join", arguments, {"value", "d", "attribute"}, 1));
  const Getter getter(bound[2], false, nullptr);
  NG_ASSIGN_OR_RETURN(const std::vector<Keyed> keyed, WithKeys(runtime, *bound[0], getter));
  std::vector<Value> texts;
  for (const Keyed& one : keyed) {
    NG_ASSIGN_OR_RETURN(Value text, ToStringValue(runtime, one.key));
    texts.push_back(std::move(text));
  }
  Text separator;
  if (bound[1] != nullptr) {
    NG_ASSIGN_OR_RETURN(separator, ToText(runtime, *bound[1]));
  }
  return StringJoin(runtime, separator, texts);
}

absl::StatusOr<Value> FilterSort(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(
      const Bound bound,
      Bind("sort", arguments, {"value", "reverse", "case_sensitive", "attribute"}, 1));
  const bool fold_case = !IsGiven(bound[2]);
  std::vector<Value> attributes;  // "a,b" sorts by both
  if (bound[3] != nullptr && bound[3]->is_string()) {
    for (const absl::string_view name : absl::StrSplit(bound[3]->bytes(), ',')) {
      NG_ASSIGN_OR_RETURN(Value attribute, runtime.NewString(name));
      attributes.push_back(std::move(attribute));
    }
  } else {
    attributes.push_back(bound[3] == nullptr ? Value::None() : *bound[3]);
  }
  NG_ASSIGN_OR_RETURN(const std::vector<Value> items, Collect(runtime, *bound[0]));
  std::vector<Keyed> keyed;
  for (const Value& item : items) {
    std::vector<Value> keys;
    for (const Value& attribute : attributes) {
      NG_ASSIGN_OR_RETURN(Value key, Getter(&attribute, fold_case, nullptr).Get(runtime, item));
      keys.push_back(std::move(key));
    }
    NG_ASSIGN_OR_RETURN(Value key, runtime.NewList(std::move(keys)));
    keyed.push_back({std::move(key), item});
  }
  NG_RETURN_IF_ERROR(SortKeyed(runtime, keyed, IsGiven(bound[1])));
  return ItemsOf(runtime, keyed);
}

absl::StatusOr<Value> FilterDictSort(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("dictsort", arguments, {"value", "case_sensitive", "by", "reverse"}, 1));
  if (bound[0]->is_undefined()) return UndefinedError(*bound[0]);
  if (!bound[0]->is_dict()) {
    return TypeError(absl::StrCat("'", bound[0]->type_name(), "' object has no attribute 'items'"));
  }
  const std::string by = bound[2] == nullptr     ? "key"
                         : bound[2]->is_string() ? bound[2]->bytes()
                                                 : "";
  if (by != "key" && by != "value") {
    return absl::InvalidArgumentError("You can only sort by either \"key\" or \"value\"");
  }
  const Getter fold(nullptr, !IsGiven(bound[1]), nullptr);
  std::vector<Keyed> keyed;
  for (const Dict::Entry& entry : bound[0]->dict().entries()) {
    NG_ASSIGN_OR_RETURN(Value pair, runtime.NewTuple({entry.key, entry.value}));
    NG_ASSIGN_OR_RETURN(Value key, fold.Get(runtime, by == "key" ? entry.key : entry.value));
    keyed.push_back({std::move(key), std::move(pair)});
  }
  NG_RETURN_IF_ERROR(SortKeyed(runtime, keyed, IsGiven(bound[3])));
  return ItemsOf(runtime, keyed);
}

absl::StatusOr<Value> FilterGroupBy(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(
      const Bound bound,
      Bind("groupby", arguments, {"value", "attribute", "default", "case_sensitive"}, 2));
  const Getter folded(bound[1], !IsGiven(bound[3]), bound[2]);
  const Getter plain(bound[1], false, bound[2]);
  NG_ASSIGN_OR_RETURN(std::vector<Keyed> keyed, WithKeys(runtime, *bound[0], folded));
  NG_RETURN_IF_ERROR(SortKeyed(runtime, keyed, false));
  std::vector<Value> groups;
  for (size_t begin = 0; begin < keyed.size();) {
    std::vector<Value> members;
    size_t end = begin;
    for (; end < keyed.size(); ++end) {
      NG_ASSIGN_OR_RETURN(const bool same, Equal(runtime, keyed[end].key, keyed[begin].key));
      if (!same) break;
      members.push_back(keyed[end].item);
    }
    NG_ASSIGN_OR_RETURN(Value grouper, plain.Get(runtime, keyed[begin].item));
    NG_ASSIGN_OR_RETURN(Value list, runtime.NewList(std::move(members)));
    NG_ASSIGN_OR_RETURN(Value group, runtime.NewTuple({std::move(grouper), std::move(list)}));
    group.as<List>()->group = true;
    groups.push_back(std::move(group));
    begin = end;
  }
  return runtime.NewList(std::move(groups));
}

absl::StatusOr<Value> FilterUnique(Runtime& runtime, const Arguments& arguments) {
  NG_RETURN_IF_ERROR(
      Bind("unique", arguments, {"value", "case_sensitive", "attribute"}, 1).status());
  return Deferred(runtime, arguments, MakeUnique);
}

absl::StatusOr<Value> FilterSum(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound,
                      Bind("sum", arguments, {"iterable", "attribute", "start"}, 1));
  const Getter getter(bound[1], false, nullptr);
  NG_ASSIGN_OR_RETURN(const std::vector<Keyed> keyed, WithKeys(runtime, *bound[0], getter));
  Value sum = bound[2] == nullptr ? Value::Int(0) : *bound[2];
  if (sum.is_string()) return TypeError("sum() can't sum strings [use ''.join(seq) instead]");
  for (const Keyed& one : keyed) {
    NG_ASSIGN_OR_RETURN(sum, Compute(runtime, Arithmetic::kAdd, sum, one.key));
  }
  return sum;
}

absl::StatusOr<Value> FilterBatch(Runtime& runtime, const Arguments& arguments) {
  NG_RETURN_IF_ERROR(Bind("batch", arguments, {"value", "linecount", "fill_with"}, 2).status());
  return Deferred(runtime, arguments, MakeBatches);
}

absl::StatusOr<Value> FilterSlice(Runtime& runtime, const Arguments& arguments) {
  NG_RETURN_IF_ERROR(Bind("slice", arguments, {"value", "slices", "fill_with"}, 2).status());
  return Deferred(runtime, arguments, MakeSlices);
}

}  // namespace neurogrid::jinja
