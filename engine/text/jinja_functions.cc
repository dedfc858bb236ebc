// Global functions of chat templates: range, dict, namespace, joiner, cycler, raise_exception,
// strftime_now.
#include <algorithm>
#include <ctime>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/civil_time.h"
#include "engine/text/jinja_ops.h"

namespace neurogrid::jinja {
namespace {

constexpr int64_t kRangeMax = 100'000;  // the sandbox's MAX_RANGE

class Function : public Object {
 public:
  Function(std::string name, Builtin body) : name_(std::move(name)), body_(body) {}
  std::string type_name() const override { return "function"; }
  absl::StatusOr<Text> Repr(Runtime&) override {
    return Text(absl::StrCat("<function ", name_, ">"), Origin::kTemplate);
  }
  bool callable() const override { return true; }
  absl::StatusOr<Value> Call(Runtime& runtime, const Arguments& arguments) override {
    return body_(runtime, arguments);
  }

 private:
  std::string name_;
  Builtin body_;
};

class RangeIterator : public Iterator {
 public:
  RangeIterator(int64_t start, int64_t step, int64_t count)
      : next_(start), step_(step), left_(count) {}
  std::string type_name() const override { return "range_iterator"; }
  absl::StatusOr<std::optional<Value>> Next(Runtime& runtime) override {
    NG_RETURN_IF_ERROR(runtime.Charge());
    if (left_ == 0) return std::nullopt;
    const Value value = Value::Int(next_);
    if (--left_ > 0) next_ += step_;
    return value;
  }

 private:
  int64_t next_;
  int64_t step_;
  int64_t left_;
};

class Range : public Object {
 public:
  Range(int64_t start, int64_t stop, int64_t step, int64_t count)
      : start_(start), stop_(stop), step_(step), count_(count) {}
  std::string type_name() const override { return "range"; }
  absl::StatusOr<Text> Repr(Runtime&) override {
    const std::string step = step_ == 1 ? "" : absl::StrCat(", ", step_);
    return Text(absl::StrCat("range(", start_, ", ", stop_, step, ")"), Origin::kTemplate);
  }
  absl::StatusOr<std::optional<Value>> Attribute(Runtime&, absl::string_view name) override {
    for (const absl::string_view one : {"count", "index", "start", "stop", "step"}) {
      if (name != one) continue;
      return absl::InvalidArgumentError(
          absl::StrCat("the attribute ", name, " of range is not supported in chat templates"));
    }
    return std::nullopt;
  }
  absl::StatusOr<std::optional<Value>> Item(Runtime&, const Value& key) override {
    if (!key.is_integral()) return std::nullopt;
    const int64_t index = key.integer() < 0 ? key.integer() + count_ : key.integer();
    if (index < 0 || index >= count_) return std::nullopt;
    return Value::Int(start_ + index * step_);
  }
  absl::StatusOr<Value> Iterate(Runtime& runtime) override {
    return runtime.NewObject(std::make_shared<RangeIterator>(start_, step_, count_));
  }
  std::optional<int64_t> Length() const override { return count_; }
  bool is_sequence() const override { return true; }

 private:
  int64_t start_;
  int64_t stop_;
  int64_t step_;
  int64_t count_;
};

absl::StatusOr<Value> MakeRange(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("range", arguments, {"/a", "/b", "/c"}, 1));
  NG_ASSIGN_OR_RETURN(const int64_t first, IntegerArgument(bound[0], 0));
  NG_ASSIGN_OR_RETURN(const int64_t second, IntegerArgument(bound[1], 0));
  NG_ASSIGN_OR_RETURN(const int64_t step, IntegerArgument(bound[2], 1));
  const int64_t start = bound[1] == nullptr ? 0 : first;
  const int64_t stop = bound[1] == nullptr ? first : second;
  if (step == 0) return absl::InvalidArgumentError("range() arg 3 must not be zero");
  // In floating point first: the distance of two integers may not fit one.
  const double distance = static_cast<double>(stop) - static_cast<double>(start);
  if (distance / static_cast<double>(step) > 2.0 * kRangeMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Range too big. The sandbox blocks ranges larger than MAX_RANGE (", kRangeMax, ")."));
  }
  int64_t count = 0;
  if ((step > 0 && start < stop) || (step < 0 && start > stop)) {
    const auto wide = static_cast<__int128>(stop) - start;
    count = static_cast<int64_t>((wide + (step > 0 ? step - 1 : step + 1)) / step);
  }
  if (count > kRangeMax) {
    return absl::InvalidArgumentError(absl::StrCat(
        "Range too big. The sandbox blocks ranges larger than MAX_RANGE (", kRangeMax, ")."));
  }
  return runtime.NewObject(std::make_shared<Range>(start, stop, step, count));
}

/// dict(mapping or pairs, name=value ...), shared with namespace.
absl::StatusOr<std::shared_ptr<Dict>> FillDict(Runtime& runtime, const Arguments& arguments,
                                               absl::string_view function) {
  auto dict = std::make_shared<Dict>();
  if (arguments.positional.size() > 1) {
    return TypeError(
        absl::StrCat(function, " expected at most 1 argument, got ", arguments.positional.size()));
  }
  if (!arguments.positional.empty()) {
    const Value& from = arguments.positional[0];
    if (from.is_undefined()) return UndefinedError(from);
    if (from.is_dict()) {
      for (const Dict::Entry& entry : from.dict().entries()) {
        NG_RETURN_IF_ERROR(runtime.Charge());
        NG_RETURN_IF_ERROR(dict->Set(entry.key, entry.value));
      }
    } else {
      NG_ASSIGN_OR_RETURN(const std::vector<Value> pairs, Collect(runtime, from));
      for (const Value& pair : pairs) {
        NG_ASSIGN_OR_RETURN(const std::vector<Value> both, Collect(runtime, pair));
        if (both.size() != 2) return TypeError("dictionary update sequence needs pairs");
        NG_RETURN_IF_ERROR(dict->Set(both[0], both[1]));
      }
    }
  }
  for (const Arguments::Keyword& keyword : arguments.keyword) {
    NG_RETURN_IF_ERROR(dict->Set(keyword.name, keyword.value));
  }
  return dict;
}

absl::StatusOr<Value> MakeDict(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(std::shared_ptr<Dict> dict, FillDict(runtime, arguments, "dict"));
  return runtime.NewDict(std::move(dict));
}

class Namespace : public Object, public Breakable {
 public:
  explicit Namespace(std::shared_ptr<Dict> values) : values_(std::move(values)) {}
  std::string type_name() const override { return "Namespace"; }
  absl::StatusOr<Text> Repr(Runtime& runtime) override {
    Text text("<Namespace ", Origin::kTemplate);
    NG_ASSIGN_OR_RETURN(const Text inside, ToRepr(runtime, Value(Value::Kind::kDict, values_)));
    text.Append(inside);
    text.Append(">", Origin::kTemplate);
    return text;
  }
  absl::StatusOr<std::optional<Value>> Attribute(Runtime&, absl::string_view name) override {
    const Value* const found = values_->Get(name);
    if (found == nullptr) return std::nullopt;
    return *found;
  }
  absl::Status Set(const Value& name, Value value) { return values_->Set(name, std::move(value)); }
  void Break() override { values_ = std::make_shared<Dict>(); }

 private:
  std::shared_ptr<Dict> values_;
};

absl::Status CheckNamespaceName(const Value& name) {
  if (!name.is_string() || !absl::StartsWith(name.bytes(), "_")) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a namespace cannot store '",
                                                 name.bytes().substr(0, 100),
                                                 "': its name starts with an underscore"));
}

absl::StatusOr<Value> MakeNamespace(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(std::shared_ptr<Dict> dict, FillDict(runtime, arguments, "namespace"));
  for (const Dict::Entry& entry : dict->entries()) {
    NG_RETURN_IF_ERROR(CheckNamespaceName(entry.key));
  }
  auto made = std::make_shared<Namespace>(std::move(dict));
  NG_RETURN_IF_ERROR(runtime.BreakAtEnd(made));
  return runtime.NewObject(std::move(made));
}

class Joiner : public Object {
 public:
  explicit Joiner(Value separator) : separator_(std::move(separator)) {}
  std::string type_name() const override { return "Joiner"; }
  bool callable() const override { return true; }
  absl::StatusOr<Value> Call(Runtime& runtime, const Arguments& arguments) override {
    NG_RETURN_IF_ERROR(Bind("joiner", arguments, {}, 0).status());
    if (std::exchange(used_, true)) return separator_;
    return runtime.NewString("");
  }

 private:
  Value separator_;
  bool used_ = false;
};

absl::StatusOr<Value> MakeJoiner(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("joiner", arguments, {"sep"}, 0));
  NG_ASSIGN_OR_RETURN(const Value comma, runtime.NewString(", "));
  const Value separator = bound[0] == nullptr ? comma : *bound[0];
  return runtime.NewObject(std::make_shared<Joiner>(separator), separator.depth());
}

class Cycler;

/// cycler.next and cycler.reset as methods.
class CyclerMethod : public Object {
 public:
  CyclerMethod(std::shared_ptr<Cycler> cycler, bool reset)
      : cycler_(std::move(cycler)), reset_(reset) {}
  std::string type_name() const override { return "method"; }
  bool callable() const override { return true; }
  absl::StatusOr<Value> Call(Runtime& runtime, const Arguments& arguments) override;

 private:
  std::shared_ptr<Cycler> cycler_;
  bool reset_;
};

class Cycler : public Object, public std::enable_shared_from_this<Cycler> {
 public:
  explicit Cycler(std::vector<Value> items) : items_(std::move(items)) {}
  std::string type_name() const override { return "Cycler"; }
  absl::StatusOr<std::optional<Value>> Attribute(Runtime& runtime,
                                                 absl::string_view name) override {
    if (name == "current") return items_[place_];
    if (name != "next" && name != "reset") return std::nullopt;
    return runtime.NewObject(std::make_shared<CyclerMethod>(shared_from_this(), name == "reset"),
                             depth());
  }
  Value Next() {
    const Value value = items_[place_];
    place_ = (place_ + 1) % items_.size();
    return value;
  }
  void Reset() { place_ = 0; }

 private:
  std::vector<Value> items_;
  size_t place_ = 0;
};

absl::StatusOr<Value> CyclerMethod::Call(Runtime&, const Arguments& arguments) {
  NG_RETURN_IF_ERROR(Bind("next", arguments, {}, 0).status());
  if (!reset_) return cycler_->Next();
  cycler_->Reset();
  return Value::None();
}

absl::StatusOr<Value> MakeCycler(Runtime& runtime, const Arguments& arguments) {
  if (!arguments.keyword.empty()) return TypeError("cycler takes no keyword arguments");
  if (arguments.positional.empty()) return TypeError("at least one item has to be provided");
  int depth = 0;
  for (const Value& item : arguments.positional) depth = std::max(depth, item.depth());
  return runtime.NewObject(std::make_shared<Cycler>(arguments.positional), depth);
}

absl::StatusOr<Value> RaiseException(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("raise_exception", arguments, {"message"}, 1));
  NG_ASSIGN_OR_RETURN(const Text message, ToText(runtime, *bound[0]));
  return runtime.Raise(message.bytes());
}

/// datetime.strftime of the C locale for a time without zone: %f are microseconds, %z and %Z empty.
absl::StatusOr<Value> StrftimeNow(Runtime& runtime, const Arguments& arguments) {
  NG_ASSIGN_OR_RETURN(const Bound bound, Bind("strftime_now", arguments, {"format"}, 1));
  if (!bound[0]->is_string()) return TypeError("strftime_now() needs a format string");
  const std::string& given = bound[0]->bytes();
  NG_RETURN_IF_ERROR(runtime.Reserve(static_cast<double>(given.size()) * 64));
  const absl::Time now = runtime.now();
  const int64_t micros = absl::ToUnixMicros(now) - absl::ToUnixSeconds(now) * 1'000'000;
  const std::tm parts = absl::ToTM(now, absl::UTCTimeZone());
  std::string out;
  for (size_t i = 0; i < given.size(); ++i) {
    if (given[i] != '%' || i + 1 == given.size()) {
      out += given[i];
      continue;
    }
    const char directive = given[++i];
    if (directive == 'f') {
      absl::StrAppendFormat(&out, "%06d", micros);
    } else if (directive != 'z' && directive != 'Z') {
      const char one[] = {'%', directive, '\0'};
      char field[128];
      out.append(field, std::strftime(field, sizeof field, one, &parts));
    }
  }
  return runtime.NewString(Text(out, bound[0]->text().LeastTrusted()));
}

absl::StatusOr<Value> Lipsum(Runtime&, const Arguments&) {
  return absl::InvalidArgumentError("lipsum() is not supported in chat templates");
}

struct GlobalRow {
  absl::string_view name;
  Builtin body;
};
constexpr GlobalRow kGlobals[] = {
    {"range", MakeRange},
    {"dict", MakeDict},
    {"joiner", MakeJoiner},
    {"cycler", MakeCycler},
    {"lipsum", Lipsum},
    {"namespace", MakeNamespace},
    {"raise_exception", RaiseException},
    {"strftime_now", StrftimeNow},
};

}  // namespace

absl::StatusOr<Value> NewFunction(Runtime& runtime, std::string name, Builtin body) {
  return runtime.NewObject(std::make_shared<Function>(std::move(name), body));
}

absl::StatusOr<std::optional<Value>> FindGlobal(Runtime& runtime, absl::string_view name) {
  for (const GlobalRow& row : kGlobals) {
    if (row.name == name) return NewFunction(runtime, std::string(name), row.body);
  }
  return std::nullopt;
}

absl::Status SetNamespaceAttribute(Runtime& runtime, const Value& target, const Value& name,
                                   Value value) {
  auto* const space = target.as<Namespace>();
  if (space == nullptr) {
    return absl::InvalidArgumentError("cannot assign attribute on non-namespace object");
  }
  NG_RETURN_IF_ERROR(runtime.Charge());
  NG_RETURN_IF_ERROR(CheckNamespaceName(name));
  return space->Set(name, std::move(value));
}

}  // namespace neurogrid::jinja
