#include "coordinator/chat_options.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/civil_time.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"

namespace neurogrid {
namespace {

constexpr size_t kToolsMax = 128;
constexpr size_t kNameMax = 128;

bool IsFunctionName(absl::string_view name) {
  return !name.empty() && name.size() <= kNameMax &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                  absl::StrContains("_.:-", c);
         });
}

/// A field that this model's template cannot honour: named as ignored, or refused when strict.
MaybeError Ignore(CheckedBody& body, const std::string& name, absl::string_view why) {
  if (body.mode == ParamsMode::kStrict) {
    return UnsupportedParameter(name, absl::StrCat("'", name, "' has no effect: ", why, "."));
  }
  body.ignored.push_back(name);
  return std::nullopt;
}

MaybeError CheckTool(const std::string& param, const Json& tool,
                     absl::flat_hash_set<std::string>& names) {
  if (!tool.is_object()) {
    return InvalidType(param, absl::StrCat("'", param, "' must be an object."));
  }
  const Json* const type = tool.Find("type");
  const std::string type_param = absl::StrCat(param, ".type");
  if (type == nullptr) return MissingParameter(type_param);
  if (!(*type == Json("function"))) {
    return UnsupportedParameter(type_param, "Only tools of type 'function' are supported.");
  }
  const std::string function_param = absl::StrCat(param, ".function");
  const Json* const function = tool.Find("function");
  if (function == nullptr) return MissingParameter(function_param);
  if (!function->is_object()) {
    return InvalidType(function_param, absl::StrCat("'", function_param, "' must be an object."));
  }
  const std::string name_param = absl::StrCat(function_param, ".name");
  const Json* const name = function->Find("name");
  if (name == nullptr) return MissingParameter(name_param);
  if (!name->is_string() || !IsFunctionName(name->as_string())) {
    return InvalidValue(name_param, absl::StrCat("'", name_param, "' must be 1 to ", kNameMax,
                                                 " characters of A-Z a-z 0-9 _ . : -."));
  }
  if (!names.insert(name->as_string()).second) {
    return InvalidValue(name_param, absl::StrCat("Two tools are named '", name->as_string(), "'."));
  }
  const std::pair<const char*, bool> members[] = {{"description", false}, {"parameters", true}};
  for (const auto& [key, object] : members) {
    const Json* const value = function->Find(key);
    if (value == nullptr || value->is_null()) continue;
    if (object ? value->is_object() : value->is_string()) continue;
    const std::string member_param = absl::StrCat(function_param, ".", key);
    return InvalidType(member_param, absl::StrCat("'", member_param, "' must be ",
                                                  object ? "an object." : "a string."));
  }
  return std::nullopt;
}

enum class Choice { kNone, kAuto };

/// What of tool_choice needs grammars is refused.
MaybeError ReadChoice(CheckedBody& body, bool tools, Choice* choice) {
  *choice = Choice::kAuto;
  const Json* const asked = body.Find("tool_choice");
  if (asked == nullptr || *asked == Json("auto")) return std::nullopt;
  if (*asked == Json("none")) {
    *choice = Choice::kNone;
    return std::nullopt;
  }
  if (!tools) {
    return InvalidValue("tool_choice",
                        "'tool_choice' without 'tools' can only be \"none\" or \"auto\".");
  }
  const Json* const type = asked->Find("type");
  const bool known =
      *asked == Json("required") ||
      (type != nullptr && (*type == Json("function") || *type == Json("allowed_tools")));
  if (!known) {
    return InvalidValue("tool_choice",
                        "'tool_choice' must be \"none\", \"auto\", \"required\", a function or "
                        "allowed tools.");
  }
  if (body.mode == ParamsMode::kLenient) {
    body.ignored.push_back("tool_choice");
    return std::nullopt;
  }
  return UnsupportedParameter(
      "tool_choice",
      "'tool_choice' can be \"none\" or \"auto\": this version cannot force "
      "a call.");
}

bool IsEffort(const std::string& word) {
  for (const char* known : {"none", "minimal", "low", "medium", "high", "xhigh", "max"}) {
    if (word == known) return true;
  }
  return false;
}

ApiError Contradicts(const std::string& param, absl::string_view other) {
  return InvalidValue(param, absl::StrCat("'", param, "' contradicts '", other, "'."));
}

/// Sets a variable of the template unless the request sets it to something else already.
MaybeError SetVariable(const std::string& param, const char* variable, Json value,
                       ChatTemplate::Input* input) {
  const Json* const given = input->kwargs.Find(variable);
  if (given != nullptr && !(*given == value)) {
    return Contradicts(param, absl::StrCat("chat_template_kwargs.", variable));
  }
  input->kwargs.Set(variable, std::move(value));
  return std::nullopt;
}

}  // namespace

MaybeError ReadTools(const ApiContext& context, CheckedBody& body, ChatTemplate::Input* input,
                     ChatAnswer* answer) {
  const ChatFormat& format = context.chat_format;
  Json* const tools = body.fields.Find("tools");
  const bool any = tools != nullptr && !tools->as_array().empty();
  Choice choice;
  NG_RETURN_IF_REFUSED(ReadChoice(body, any, &choice));
  if (!any) return std::nullopt;
  const Json::Array& items = tools->as_array();
  if (items.size() > kToolsMax) {
    return LimitExceeded("tools", absl::StrCat("'tools' holds ", items.size(), " entries; at most ",
                                               kToolsMax, " are allowed."));
  }
  absl::flat_hash_set<std::string> names;
  for (size_t i = 0; i < items.size(); ++i) {
    NG_RETURN_IF_REFUSED(CheckTool(absl::StrCat("tools[", i, "]"), items[i], names));
    answer->format.tool_names.push_back(items[i].Find("function")->Find("name")->as_string());
  }
  if (!format.takes_tools || format.tools == ToolSyntax::kNone) {
    return ApiError{.code = "unsupported_model_operation",
                    .message = "This model's chat template knows no tools.",
                    .param = "tools"};
  }
  answer->format.call_open = format.call_open;
  answer->format.call_close = format.call_close;
  if (choice == Choice::kAuto) {
    answer->format.tools = format.tools;
    answer->one_call = !body.Bool("parallel_tool_calls", true);
  } else {
    answer->banned_token = format.call_open.id;
  }
  input->tools = std::move(*tools);
  return std::nullopt;
}

MaybeError ReadReasoning(const ApiContext& context, CheckedBody& body, ChatTemplate::Input* input,
                         ChatAnswer* answer) {
  const ChatFormat& format = context.chat_format;
  answer->format.think_open = format.think_open;
  answer->format.think_close = format.think_close;
  answer->include_reasoning = body.Bool("include_reasoning", true);
  answer->reasoning_budget = body.Integer("reasoning_budget", -1);
  const std::string effort = body.String("reasoning_effort", "");
  const Json* const thinking = body.Find("enable_thinking");
  if (body.Find("reasoning_effort") != nullptr) {
    if (!IsEffort(effort)) {
      return InvalidValue(
          "reasoning_effort",
          "'reasoning_effort' must be none, minimal, low, medium, high, xhigh or max.");
    }
    const Json thinks(effort != "none");
    if (thinking != nullptr && !(*thinking == thinks)) {
      return Contradicts("reasoning_effort", "enable_thinking");
    }
    NG_RETURN_IF_REFUSED(SetVariable("reasoning_effort", "enable_thinking", thinks, input));
    NG_RETURN_IF_REFUSED(SetVariable("reasoning_effort", "reasoning_effort", effort, input));
    if (!format.reads_enable_thinking && !format.reads_reasoning_effort) {
      NG_RETURN_IF_REFUSED(Ignore(body, "reasoning_effort", "the chat template does not read it"));
    }
  }
  if (thinking != nullptr) {
    NG_RETURN_IF_REFUSED(SetVariable("enable_thinking", "enable_thinking", *thinking, input));
    if (!format.reads_enable_thinking) {
      NG_RETURN_IF_REFUSED(Ignore(body, "enable_thinking", "the chat template does not read it"));
    }
  }
  if (answer->reasoning_budget < 0) return std::nullopt;
  const Json* const thinks = input->kwargs.Find("enable_thinking");
  if (answer->reasoning_budget > 0 && thinks != nullptr && *thinks == Json(false)) {
    return Contradicts("reasoning_budget", effort.empty() ? "enable_thinking" : "reasoning_effort");
  }
  if (!format.think_open.text.empty()) return std::nullopt;
  answer->reasoning_budget = -1;
  return Ignore(body, "reasoning_budget", "this model does not mark reasoning");
}

MaybeError ReadDate(const ApiContext& context, CheckedBody& body, ChatTemplate::Input* input) {
  input->now = absl::Now();
  const Json* const date = body.Find("date_string");
  if (date == nullptr) return std::nullopt;
  absl::CivilDay day;
  // The shortest year that Abseil reads has one digit.
  if (date->as_string().size() != 10 || !absl::ParseCivilTime(date->as_string(), &day)) {
    return InvalidValue("date_string", "'date_string' must be a date like 2026-07-31.");
  }
  const absl::TimeZone utc = absl::UTCTimeZone();
  input->now = absl::FromCivil(day, utc);
  // As the templates themselves write it that fall back to the clock.
  const std::string text = absl::FormatTime("%d %b %Y", input->now, utc);
  NG_RETURN_IF_REFUSED(SetVariable("date_string", "date_string", text, input));
  if (context.chat_format.reads_date) return std::nullopt;
  return Ignore(body, "date_string", "the chat template prints no date");
}

}  // namespace neurogrid
