// One rendering of a chat template: its limits, its clock, and the making of values under both.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "common/status.h"
#include "engine/text/jinja_value.h"

namespace neurogrid::jinja {

/// models.md 6.4. A breach is an InvalidArgument naming the limit.
struct Limits {
  int64_t source_bytes = 256 << 10;
  int nesting = 100;  // of statements and expressions in the source, and of values in values
  int64_t steps = 2'000'000;
  int64_t output_bytes = 16 << 20;
  int64_t loop_rounds = 1'000'000;
  int macro_depth = 64;
  int run_depth =
      1500;  // all nesting while running, macros in expressions in loops ...; guards the stack
  int64_t memory_bytes = 64 << 20;
  absl::Duration time = absl::Seconds(1);  // of the processor: a busy machine refuses nobody
};

class Runtime {
 public:
  Runtime(const Limits& limits, absl::Time now);

  const Limits& limits() const { return limits_; }
  absl::Time now() {
    read_clock_ = true;
    return now_;
  }
  bool read_clock() const { return read_clock_; }

  /// Counts work; an error once the steps or the time are used up.
  absl::Status Charge(int64_t steps = 1);
  /// Work on so many bytes.
  absl::Status ChargeBytes(size_t bytes) { return Charge(static_cast<int64_t>(bytes / 256) + 1); }
  /// Counts a round of a loop, whose item was charged for already.
  absl::Status ChargeRound();
  /// An error when so many more bytes would pass the memory limit. Call before building what may be
  /// huge.
  absl::Status Reserve(double bytes);

  absl::StatusOr<Value> NewString(Text text, bool markup = false);
  /// A string that the template itself, not the request, brings about.
  absl::StatusOr<Value> NewString(absl::string_view bytes) {
    return NewString(Text(bytes, Origin::kTemplate));
  }
  absl::StatusOr<Value> NewList(std::vector<Value> items) {
    return NewSequence(Value::Kind::kList, std::move(items));
  }
  absl::StatusOr<Value> NewTuple(std::vector<Value> items) {
    return NewSequence(Value::Kind::kTuple, std::move(items));
  }
  /// Takes a dict that was filled outside.
  absl::StatusOr<Value> NewDict(std::shared_ptr<Dict> dict);
  /// `depth`: of the deepest value the object holds on to.
  absl::StatusOr<Value> NewObject(std::shared_ptr<Object> object, int depth = 0);
  Value NewUndefined(std::string reason);

  /// raise_exception: kept apart from every other error.
  absl::Status Raise(const std::string& message);
  bool raised() const { return raised_; }

  /// Keeps what can hold references to itself (namespaces, scopes of macros), so that it dies at
  /// the end of the rendering and not by a long chain of destructors.
  absl::Status BreakAtEnd(std::shared_ptr<class Breakable> thing);
  ~Runtime();

  int macro_depth = 0;
  int run_depth = 0;

 private:
  absl::StatusOr<Value> NewSequence(Value::Kind kind, std::vector<Value> items);
  absl::Status Account(HeapObject& object, int64_t bytes, int depth);

  const Limits limits_;
  const absl::Time now_;
  const absl::Duration deadline_;  // of the thread that renders
  Meter meter_;  // Before everything that holds values.
  bool read_clock_ = false;
  bool raised_ = false;
  int64_t steps_ = 0;
  int64_t next_look_ = 0;
  int64_t rounds_ = 0;
  std::vector<std::shared_ptr<Breakable>> breakables_;
};

/// Scopes and namespaces: Break lets go of every value.
class Breakable {
 public:
  virtual ~Breakable() = default;
  virtual void Break() = 0;
};

absl::Status TypeError(std::string message);

/// Arguments in the order of a signature; null where none was given.
using Bound = std::vector<const Value*>;
/// Matches as Python does. A name that starts with '/' takes no keyword. Errors: too many, missing,
/// unknown, twice.
absl::StatusOr<Bound> Bind(absl::string_view function, const Arguments& arguments,
                           std::initializer_list<absl::string_view> names, size_t required);

/// An argument that must be an integer (bool counts), or `otherwise` when it is absent.
absl::StatusOr<int64_t> IntegerArgument(const Value* value, int64_t otherwise);

/// An iterator over items that are at hand.
class ItemIterator : public Iterator {
 public:
  ItemIterator(std::vector<Value> items, std::string type)
      : items_(std::move(items)), type_(std::move(type)) {}
  std::string type_name() const override { return type_; }
  absl::StatusOr<std::optional<Value>> Next(Runtime& runtime) override;

 private:
  std::vector<Value> items_;
  std::string type_;
  size_t next_ = 0;
};

}  // namespace neurogrid::jinja
