#include "coordinator/request_fields.h"

#include <cmath>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

absl::string_view NameOf(FieldType type) {
  switch (type) {
    case FieldType::kBoolean:
      return "boolean";
    case FieldType::kInteger:
      return "integer";
    case FieldType::kNumber:
      return "number";
    case FieldType::kString:
      return "string";
    case FieldType::kArray:
      return "array";
    case FieldType::kObject:
      return "object";
    case FieldType::kAny:
      break;
  }
  return "value";
}

bool HasType(const Json& value, FieldType type) {
  switch (type) {
    case FieldType::kBoolean:
      return value.is_bool();
    case FieldType::kInteger:
      return value.is_integer();
    case FieldType::kNumber:
      return value.is_number();
    case FieldType::kString:
      return value.is_string();
    case FieldType::kArray:
      return value.is_array();
    case FieldType::kObject:
      return value.is_object();
    case FieldType::kAny:
      break;
  }
  return true;
}

/// Bounds as people write them: 0, 0.5, 1000.
std::string Bound(double value) {
  if (value == std::floor(value) && std::abs(value) < 9e15) {
    return absl::StrCat(static_cast<int64_t>(value));
  }
  return absl::StrCat(value);
}

std::string RangeText(const Field& field) {
  const bool low = std::isfinite(field.minimum);
  const bool high = std::isfinite(field.maximum);
  if (low && high) {
    return absl::StrCat(" from ", Bound(field.minimum), " to ", Bound(field.maximum));
  }
  if (low) return absl::StrCat(" of at least ", Bound(field.minimum));
  if (high) return absl::StrCat(" of at most ", Bound(field.maximum));
  return "";
}

const Field* FindField(absl::string_view name, BodyKind kind) {
  for (const Field& field : RequestFields()) {
    if ((field.bodies & kind) == 0) continue;
    if (field.name == name) return &field;
    if (absl::EndsWith(field.name, "*") &&
        absl::StartsWith(name, field.name.substr(0, field.name.size() - 1))) {
      return &field;
    }
  }
  return nullptr;
}

bool IsNeutral(const Field& field, const Json& value) {
  const Json neutral = ParseJson(field.neutral).value();
  for (const Json& allowed : neutral.as_array()) {
    if (allowed == value) return true;
  }
  return false;
}

/// What a field takes, as the end of "must be".
std::string WantedText(const Field& field) {
  if (field.minimum == field.maximum) return Bound(field.minimum);
  return absl::StrCat(WithArticle(NameOf(field.type)), RangeText(field));
}

/// A field that is not honoured: ignored or refused, as its standing and the mode say.
MaybeError SetAside(const Field* field, const std::string& name, CheckedBody* checked) {
  const bool refused = field != nullptr && field->standing == FieldStanding::kRefused;
  if (refused ? checked->mode != ParamsMode::kLenient : checked->mode == ParamsMode::kStrict) {
    const absl::string_view advice = field == nullptr ? "" : field->text;
    return UnsupportedParameter(name, absl::StrCat("'", name.substr(0, 100), "' is not supported",
                                                   advice.empty() ? "" : ": ", advice, "."));
  }
  checked->ignored.push_back(name);
  return std::nullopt;
}

}  // namespace

std::string WithArticle(absl::string_view kind) {
  const bool vowel = !kind.empty() && absl::StrContains("aeiou", kind[0]);
  return absl::StrCat(vowel ? "an " : "a ", kind);
}

bool CheckedBody::Bool(absl::string_view name, bool otherwise) const {
  const Json* value = Find(name);
  return value == nullptr ? otherwise : value->as_bool();
}
int64_t CheckedBody::Integer(absl::string_view name, int64_t otherwise) const {
  const Json* value = Find(name);
  return value == nullptr ? otherwise : value->as_integer();
}
double CheckedBody::Number(absl::string_view name, double otherwise) const {
  const Json* value = Find(name);
  return value == nullptr ? otherwise : value->as_number();
}
std::string CheckedBody::String(absl::string_view name, absl::string_view otherwise) const {
  const Json* value = Find(name);
  return value == nullptr ? std::string(otherwise) : value->as_string();
}

MaybeError CheckValue(const Field& field, const std::string& param, Json& value) {
  bool too_large = false;  // a whole number that no int64 holds
  if (field.type == FieldType::kInteger && value.is_double()) {
    const double number = value.as_number();
    const bool whole = number == std::floor(number);
    too_large = whole && std::abs(number) >= 9223372036854775808.0;
    if (whole && !too_large) value = Json(static_cast<int64_t>(number));
  }
  const std::string wanted = WantedText(field);
  if (!too_large && !HasType(value, field.type)) {
    const std::string found = value.is_double() ? ToString(value) : WithArticle(value.kind_name());
    return InvalidType(param,
                       absl::StrCat("'", param, "' must be ", wanted, ", but is ", found, "."));
  }
  if (!value.is_number()) return std::nullopt;
  const double number = value.as_number();
  if (!too_large && number >= field.minimum && number <= field.maximum) return std::nullopt;
  return InvalidValue(
      param, absl::StrCat("'", param, "' must be ", wanted, ", but is ", ToString(value), "."));
}

MaybeError CheckFields(const Json& body, BodyKind kind, ParamsMode mode, CheckedBody* checked) {
  checked->mode = mode;
  if (!body.is_object()) {
    return InvalidType("", absl::StrCat("The body must be a JSON object, but is ",
                                        WithArticle(body.kind_name()), "."));
  }
  for (const JsonMember& member : body.as_object()) {
    if (member.value.is_null()) continue;
    const Field* field = FindField(member.key, kind);
    if (field == nullptr || field->standing != FieldStanding::kHonoured) {
      if (field != nullptr && IsNeutral(*field, member.value)) continue;
      NG_RETURN_IF_REFUSED(SetAside(field, member.key, checked));
      continue;
    }
    Json value = member.value;
    NG_RETURN_IF_REFUSED(CheckValue(*field, member.key, value));
    const absl::string_view name = field->same_as.empty() ? field->name : field->same_as;
    const Json* twin = checked->Find(name);
    if (twin != nullptr && !(*twin == value)) {
      return InvalidValue(member.key, absl::StrCat("'", name, "' and '", member.key,
                                                   "' mean the same but differ."));
    }
    checked->fields.Set(name, std::move(value));
  }
  for (const Field& field : RequestFields()) {
    if (field.required && (field.bodies & kind) != 0 && checked->Find(field.name) == nullptr) {
      return MissingParameter(std::string(field.name));
    }
  }
  return std::nullopt;
}

Json BodySchema(BodyKind kind) {
  Json::Object properties;
  Json::Array required;
  for (const Field& field : RequestFields()) {
    if ((field.bodies & kind) == 0 || field.standing == FieldStanding::kRefused) continue;
    Json schema = field.schema.empty() ? Json(Json::Object{}) : ParseJson(field.schema).value();
    if (field.schema.empty() && field.type != FieldType::kAny) {
      schema.Set("type", Json::Array{NameOf(field.type), "null"});
      if (field.required) schema.Set("type", NameOf(field.type));
    }
    if (std::isfinite(field.minimum)) schema.Set("minimum", field.minimum);
    if (std::isfinite(field.maximum)) schema.Set("maximum", field.maximum);
    if (!field.text.empty()) schema.Set("description", field.text);
    properties.push_back({std::string(field.name), std::move(schema)});
    if (field.required) required.push_back(field.name);
  }
  Json::Object object = {{"type", "object"}, {"properties", std::move(properties)}};
  if (!required.empty()) object.push_back({"required", std::move(required)});
  return object;
}

}  // namespace neurogrid
