// Tool calls written as a Python list of calls: [f(a=1, b="x"), g()] (LFM2).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace neurogrid {

struct PythonCall {
  std::string name;
  std::string arguments;  // a JSON object, compact
  bool operator==(const PythonCall&) const = default;
};

/// What a list says up to where it stops being one.
struct PythonCalls {
  std::vector<PythonCall> calls;  // whole ones
  bool whole = false;             // the text is a list of calls and nothing else
  bool cut = false;               // the text ended inside the list
  std::string open_name;          // with cut: of the call that its arguments had begun
};

/// Arguments by keyword; literals are strings, numbers, booleans, None, lists, tuples and dicts
/// with string keys, nested 64 deep at most; JSON's own words for them count too. Linear time.
PythonCalls ReadPythonCalls(absl::string_view text);

}  // namespace neurogrid
