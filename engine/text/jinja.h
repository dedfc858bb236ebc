// A compiled template: jinja2 3.1.6 as transformers sets it up, under limits (models.md 6.2
// to 6.4).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "common/json.h"
#include "common/status.h"
#include "engine/text/jinja_runtime.h"
#include "engine/text/jinja_text.h"

namespace neurogrid::jinja {

/// One variable of a rendering. Every string in it gets `origin`; with by_role, the strings of a
/// list's members whose "role" is "assistant" are the assistant's.
struct Variable {
  std::string name;
  const Json* value = nullptr;
  Origin origin = Origin::kInput;
  bool by_role = false;
};

struct Rendering {
  absl::Status
      status;  // InvalidArgument naming the line and the cause, or raise_exception's own text
  Text text;   // when ok
  bool raised = false;  // status is what the template said through raise_exception
  bool read_clock = false;
};

class Template {
 public:
  static absl::StatusOr<std::unique_ptr<Template>> Compile(absl::string_view source,
                                                           const Limits& limits = {});
  virtual ~Template() = default;
  virtual Rendering Render(const std::vector<Variable>& variables, absl::Time now) const = 0;
};

}  // namespace neurogrid::jinja
