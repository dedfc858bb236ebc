#include "engine/text/jinja_runtime.h"

#include <algorithm>
#include <ctime>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace neurogrid::jinja {
namespace {

constexpr int64_t kStepsBetweenLooks = 512;  // at the clock
constexpr int64_t kBreakableBytes = 256;

/// Processor time of this thread so far.
absl::Duration ThreadTime() {
  timespec now;
  NG_CHECK(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now) == 0);
  return absl::DurationFromTimespec(now);
}

}  // namespace

Runtime::Runtime(const Limits& limits, absl::Time now)
    : limits_(limits),
      now_(now),
      deadline_(ThreadTime() + limits.time),
      meter_{0, limits.memory_bytes} {}

Runtime::~Runtime() {
  for (const std::shared_ptr<Breakable>& thing : breakables_) thing->Break();
}

absl::Status Runtime::BreakAtEnd(std::shared_ptr<Breakable> thing) {
  breakables_.push_back(std::move(thing));
  meter_.used_bytes += kBreakableBytes;
  return Reserve(0);
}

absl::Status Runtime::Charge(int64_t steps) {
  steps_ += steps;
  if (steps_ > limits_.steps) {
    return absl::InvalidArgumentError(absl::StrCat("more than ", limits_.steps, " steps"));
  }
  if (steps_ >= next_look_) {
    next_look_ = steps_ + kStepsBetweenLooks;
    if (ThreadTime() > deadline_) {
      return absl::InvalidArgumentError(
          absl::StrCat("rendering took longer than ", absl::FormatDuration(limits_.time)));
    }
  }
  return absl::OkStatus();
}

absl::Status Runtime::ChargeRound() {
  if (++rounds_ > limits_.loop_rounds) {
    return absl::InvalidArgumentError(
        absl::StrCat("more than ", limits_.loop_rounds, " rounds of loops"));
  }
  return absl::OkStatus();
}

absl::Status Runtime::Reserve(double bytes) {
  if (static_cast<double>(meter_.used_bytes) + bytes > static_cast<double>(meter_.limit_bytes)) {
    return absl::InvalidArgumentError(
        absl::StrCat("more than ", meter_.limit_bytes, " bytes of memory"));
  }
  return absl::OkStatus();
}

absl::Status Runtime::Account(HeapObject& object, int64_t bytes, int depth) {
  if (depth > limits_.nesting) {
    return absl::InvalidArgumentError(
        absl::StrCat("values nested deeper than ", limits_.nesting, " levels"));
  }
  object.set_depth(depth);
  object.Account(&meter_, bytes);
  return Reserve(0);
}

absl::StatusOr<Value> Runtime::NewString(Text text, bool markup) {
  auto str = std::make_shared<Str>();
  const size_t bytes = text.size();
  str->text = std::move(text);
  str->markup = markup;
  str->ascii = std::all_of(str->text.bytes().begin(), str->text.bytes().end(),
                           [](char c) { return static_cast<signed char>(c) >= 0; });
  NG_RETURN_IF_ERROR(ChargeBytes(bytes));
  NG_RETURN_IF_ERROR(Account(*str, static_cast<int64_t>(sizeof(Str) + bytes), 0));
  return Value(Value::Kind::kString, std::move(str));
}

absl::StatusOr<Value> Runtime::NewSequence(Value::Kind kind, std::vector<Value> items) {
  auto list = std::make_shared<List>();
  int depth = 0;
  for (const Value& item : items) depth = std::max(depth, item.depth());
  const size_t bytes = sizeof(List) + items.size() * sizeof(Value);
  list->items = std::move(items);
  NG_RETURN_IF_ERROR(Charge(static_cast<int64_t>(list->items.size() / 8) + 1));
  NG_RETURN_IF_ERROR(Account(*list, static_cast<int64_t>(bytes), depth + 1));
  return Value(kind, std::move(list));
}

absl::StatusOr<Value> Runtime::NewDict(std::shared_ptr<Dict> dict) {
  int depth = 0;
  size_t bytes = sizeof(Dict);
  for (const Dict::Entry& entry : dict->entries()) {
    depth = std::max({depth, entry.key.depth(), entry.value.depth()});
    // The index holds each key once more.
    bytes += sizeof(Dict::Entry) + 64 + (entry.key.is_string() ? entry.key.bytes().size() : 0);
  }
  NG_RETURN_IF_ERROR(Charge(static_cast<int64_t>(dict->size()) + 1));
  NG_RETURN_IF_ERROR(Account(*dict, static_cast<int64_t>(bytes), depth + 1));
  return Value(Value::Kind::kDict, std::move(dict));
}

absl::StatusOr<Value> Runtime::NewObject(std::shared_ptr<Object> object, int depth) {
  NG_RETURN_IF_ERROR(Charge());
  NG_RETURN_IF_ERROR(Account(*object, 128, depth + 1));
  return Value(Value::Kind::kObject, std::move(object));
}

Value Runtime::NewUndefined(std::string reason) {
  auto undefined = std::make_shared<UndefinedReason>();
  undefined->message = std::move(reason);
  undefined->Account(&meter_, static_cast<int64_t>(64 + undefined->message.size()));
  return Value(Value::Kind::kUndefined, std::move(undefined));
}

absl::Status Runtime::Raise(const std::string& message) {
  raised_ = true;
  return absl::InvalidArgumentError(message);
}

absl::Status TypeError(std::string message) { return absl::InvalidArgumentError(message); }

absl::StatusOr<Bound> Bind(absl::string_view function, const Arguments& arguments,
                           std::initializer_list<absl::string_view> names, size_t required) {
  if (arguments.positional.size() > names.size()) {
    return TypeError(absl::StrCat(function, "() takes at most ", names.size(), " arguments but ",
                                  arguments.positional.size(), " were given"));
  }
  Bound bound(names.size(), nullptr);
  for (size_t i = 0; i < arguments.positional.size(); ++i) bound[i] = &arguments.positional[i];
  for (const Arguments::Keyword& keyword : arguments.keyword) {
    const auto name = std::find(names.begin(), names.end(), keyword.name.bytes());
    if (name == names.end()) {
      return TypeError(absl::StrCat(function, "() got an unexpected keyword argument '",
                                    keyword.name.bytes(), "'"));
    }
    const Value*& place = bound[static_cast<size_t>(name - names.begin())];
    if (place != nullptr) {
      return TypeError(absl::StrCat(function, "() got multiple values for argument '",
                                    keyword.name.bytes(), "'"));
    }
    place = &keyword.value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (bound[i] != nullptr) continue;
    absl::string_view name = names.begin()[i];
    if (absl::StartsWith(name, "/")) name.remove_prefix(1);
    return TypeError(absl::StrCat(function, "() missing required argument: '", name, "'"));
  }
  return bound;
}

absl::StatusOr<int64_t> IntegerArgument(const Value* value, int64_t otherwise) {
  if (value == nullptr) return otherwise;
  if (!value->is_integral()) {
    return TypeError(
        absl::StrCat("'", value->type_name(), "' object cannot be interpreted as an integer"));
  }
  return value->integer();
}

absl::StatusOr<std::optional<Value>> ItemIterator::Next(Runtime& runtime) {
  NG_RETURN_IF_ERROR(runtime.Charge());
  if (next_ == items_.size()) return std::nullopt;
  return items_[next_++];
}

}  // namespace neurogrid::jinja
