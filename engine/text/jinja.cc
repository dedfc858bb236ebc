#include "engine/text/jinja.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja_interpreter.h"
#include "engine/text/jinja_lexer.h"
#include "engine/text/jinja_unicode.h"

namespace neurogrid::jinja {
namespace {

class Converter {
 public:
  explicit Converter(Runtime& runtime) : runtime_(runtime) {}

  absl::StatusOr<Value> Convert(const Json& json, Origin origin, int depth = 1) {
    if (json.is_null()) return Value::None();
    if (json.is_bool()) return Value::Bool(json.as_bool());
    if (json.is_integer()) return Value::Int(json.as_integer());
    if (json.is_double()) return Value::Float(json.as_number());
    if (json.is_string()) return String(json.as_string(), origin);
    if (depth > runtime_.limits().nesting) {
      return absl::InvalidArgumentError(
          absl::StrCat("input nested deeper than ", runtime_.limits().nesting, " levels"));
    }
    if (json.is_object()) return Object(json, origin, depth);
    std::vector<Value> items;
    for (const Json& item : json.as_array()) {
      NG_ASSIGN_OR_RETURN(Value value, Convert(item, origin, depth + 1));
      items.push_back(std::move(value));
    }
    return runtime_.NewList(std::move(items));
  }

  /// Messages: what the assistant said is the assistant's.
  absl::StatusOr<Value> ConvertByRole(const Json& list, Origin origin) {
    if (!list.is_array()) return Convert(list, origin);
    std::vector<Value> items;
    for (const Json& message : list.as_array()) {
      const Json* const role = message.Find("role");
      const bool assistant =
          role != nullptr && role->is_string() && role->as_string() == "assistant";
      NG_ASSIGN_OR_RETURN(Value value,
                          Convert(message, assistant ? Origin::kAssistant : origin, 2));
      items.push_back(std::move(value));
    }
    return runtime_.NewList(std::move(items));
  }

 private:
  absl::StatusOr<Value> String(const std::string& bytes, Origin origin) {
    if (!IsUtf8(bytes)) return absl::InvalidArgumentError("a string of the input is not UTF-8");
    return runtime_.NewString(Text(bytes, origin));
  }
  absl::StatusOr<Value> Object(const Json& json, Origin origin, int depth) {
    auto dict = std::make_shared<Dict>();
    for (const JsonMember& member : json.as_object()) {
      NG_ASSIGN_OR_RETURN(Value key, String(member.key, origin));
      NG_ASSIGN_OR_RETURN(Value value, Convert(member.value, origin, depth + 1));
      NG_RETURN_IF_ERROR(dict->Set(std::move(key), std::move(value)));
    }
    return runtime_.NewDict(std::move(dict));
  }

  Runtime& runtime_;
};

class CompiledTemplate : public Template {
 public:
  CompiledTemplate(Body body, const Limits& limits) : body_(std::move(body)), limits_(limits) {}

  Rendering Render(const std::vector<Variable>& variables, absl::Time now) const override {
    Runtime runtime(limits_, now);
    Rendering rendering;
    absl::flat_hash_map<std::string, Value> context;
    Converter converter(runtime);
    for (const Variable& variable : variables) {
      absl::StatusOr<Value> value = variable.by_role
                                        ? converter.ConvertByRole(*variable.value, variable.origin)
                                        : converter.Convert(*variable.value, variable.origin);
      if (!value.ok()) {
        rendering.status =
            absl::InvalidArgumentError(absl::StrCat(variable.name, ": ", value.status().message()));
        return rendering;
      }
      context.insert_or_assign(variable.name, *std::move(value));
    }
    Interpreter interpreter(runtime, std::move(context));
    absl::StatusOr<Text> text = interpreter.Run(body_);
    rendering.read_clock = runtime.read_clock();
    if (text.ok()) {
      rendering.text = *std::move(text);
    } else {
      rendering.raised = runtime.raised();
      rendering.status = rendering.raised
                             ? text.status()
                             : ErrorAtLine(interpreter.error_line(), text.status().message());
    }
    return rendering;
  }

 private:
  Body body_;
  const Limits limits_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Template>> Template::Compile(absl::string_view source,
                                                            const Limits& limits) {
  if (static_cast<int64_t>(source.size()) > limits.source_bytes) {
    return absl::InvalidArgumentError(absl::StrCat("the template has ", source.size(),
                                                   " bytes, more than ", limits.source_bytes));
  }
  if (!IsUtf8(source)) return absl::InvalidArgumentError("the template is not UTF-8");
  NG_ASSIGN_OR_RETURN(Body body, Parse(source, limits.nesting));
  return std::make_unique<CompiledTemplate>(std::move(body), limits);
}

}  // namespace neurogrid::jinja
