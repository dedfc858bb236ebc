// Python's str methods as chat templates call them; filters share them.
#pragma once

#include "engine/text/jinja_ops.h"
#include "engine/text/jinja_unicode.h"

namespace neurogrid::jinja {

/// A method of str: self comes as the first argument.
Builtin FindStringMethod(absl::string_view name);

absl::StatusOr<Value> StringToCase(Runtime& runtime, const Value& string, Case to);
absl::StatusOr<Value> StringTitle(Runtime& runtime, const Value& string);
absl::StatusOr<Value> StringSwapCase(Runtime& runtime, const Value& string);
absl::StatusOr<Value> StringCapitalize(Runtime& runtime, const Value& string);
/// characters null or None: white space.
absl::StatusOr<Value> StringStrip(Runtime& runtime, const Value& string, const Value* characters,
                                  bool left, bool right);
/// most < 0: every occurrence.
absl::StatusOr<Value> StringReplace(Runtime& runtime, const Value& string, const Value& from,
                                    const Value& to, int64_t most);
/// Texts of `items` with `separator` between them.
absl::StatusOr<Value> StringJoin(Runtime& runtime, const Text& separator,
                                 const std::vector<Value>& items);
/// str.center, ljust (right padding) and rjust.
enum class Align { kLeft, kRight, kCenter };
absl::StatusOr<Value> StringPad(Runtime& runtime, const Value& string, int64_t width,
                                const Text& fill, Align align);
/// str.isupper and the like need one cased letter.
bool StringIsUpper(absl::string_view text);
bool StringIsLower(absl::string_view text);

}  // namespace neurogrid::jinja
