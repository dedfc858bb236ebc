// The fields of request bodies: one table that validates requests and writes /openapi.json (api.md
// 2).
#pragma once

#include <limits>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/json.h"
#include "coordinator/api_error.h"

namespace neurogrid {

/// Bodies a field may stand in; a field's `bodies` joins several with |.
enum BodyKind : unsigned {
  kChatBody = 1,
  kCompletionBody = 2,
  kTokenizeBody = 4,
  kDetokenizeBody = 8,
};
inline constexpr unsigned kGenerationBodies = kChatBody | kCompletionBody;

enum class FieldType { kBoolean, kInteger, kNumber, kString, kArray, kObject, kAny };

enum class FieldStanding {
  kHonoured,
  kHarmless,  // cannot change the text: accepted and named in X-Ignored-Params
  kRefused,   // 400 unsupported_parameter, unless the value is one of `neutral`
};

struct Field {
  absl::string_view name;  // a final '*' stands for any ending
  unsigned bodies = kGenerationBodies;
  FieldType type = FieldType::kAny;
  double minimum = -std::numeric_limits<double>::infinity();  // of numbers
  double maximum = std::numeric_limits<double>::infinity();
  bool required = false;
  absl::string_view same_as = {};  // the name under which this one is read
  FieldStanding standing = FieldStanding::kHonoured;
  absl::string_view neutral = "[]";  // JSON array of values that ask for nothing
  absl::string_view text = {};       // for people; of a refused field: what to do instead
  absl::string_view schema = {};     // JSON schema where the type alone says too little
};

absl::Span<const Field> RequestFields();

/// What happens to fields that cannot be honoured (api.md 2).
enum class ParamsMode { kStrict, kNormal, kLenient };

/// A body whose fields have their types and ranges.
struct CheckedBody {
  Json fields = Json::Object{};  // under their main names, without nulls; 5.0 of an integer is 5
  std::vector<std::string> ignored;  // for X-Ignored-Params
  ParamsMode mode = ParamsMode::kNormal;

  const Json* Find(absl::string_view name) const { return fields.Find(name); }
  bool Bool(absl::string_view name, bool otherwise) const;
  int64_t Integer(absl::string_view name, int64_t otherwise) const;
  double Number(absl::string_view name, double otherwise) const;
  std::string String(absl::string_view name, absl::string_view otherwise) const;
};

MaybeError CheckFields(const Json& body, BodyKind kind, ParamsMode mode, CheckedBody* checked);

/// Checks one value: type, range. Turns 5.0 into 5 where an integer is wanted. `param` is its path.
MaybeError CheckValue(const Field& field, const std::string& param, Json& value);

/// "a string", "an integer".
std::string WithArticle(absl::string_view kind);

/// JSON schema of a body, from the table.
Json BodySchema(BodyKind kind);

}  // namespace neurogrid
