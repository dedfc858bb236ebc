// RoPE parameters of config.json: where they stand, which type, which numbers.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "common/limits.h"
#include "engine/model/config_fields.h"
#include "engine/model/config_json.h"

namespace neurogrid {
namespace {

constexpr absl::string_view kSliding = "sliding_attention";
constexpr double kFactorMax = 1e6;
constexpr double kOriginalPositionsMax = 1e9;

/// Every key that a rope dictionary may hold; another one changes the maths in a way not
/// understood.
constexpr absl::string_view kRopeKeys[] = {"rope_type",
                                           "type",
                                           "rope_theta",
                                           "factor",
                                           "low_freq_factor",
                                           "high_freq_factor",
                                           "beta_fast",
                                           "beta_slow",
                                           "truncate",
                                           "attention_factor",
                                           "finetuned",
                                           "original_max_position_embeddings",
                                           "partial_rotary_factor"};

bool IsLayerType(absl::string_view key) {
  return key == "full_attention" || key == "sliding_attention" || key == "conv";
}

bool IsKeyedByLayerType(const Json& dictionary) {
  return std::any_of(dictionary.as_object().begin(), dictionary.as_object().end(),
                     [](const JsonMember& member) { return IsLayerType(member.key); });
}

/// Where the rope of one layer type stands.
struct RopeSource {
  const Json* dictionary = nullptr;
  std::string where;  // opens errors about it
};

/// rope_scaling unless null, else rope_parameters; inside it the entry of the layer type where it
/// is keyed so. An empty object when nothing is said. A family with a rope of its own for layers
/// with a window (`has_local`) means the others by a dictionary that is not keyed, and leaves out
/// entries without a scaling.
absl::StatusOr<RopeSource> FindDictionary(const Json& root, const std::string& file,
                                          absl::string_view layer_type, bool has_local) {
  static const Json nothing{Json::Object()};
  for (const absl::string_view key : {"rope_scaling", "rope_parameters"}) {
    const Json* found = root.Find(key);
    if (found == nullptr || found->is_null()) continue;
    std::string where = absl::StrCat(file, ": ", key);
    if (found->is_object() && IsKeyedByLayerType(*found)) {
      for (const JsonMember& member : found->as_object()) {
        if (IsLayerType(member.key)) continue;
        return absl::InvalidArgumentError(
            absl::StrCat(where, " has ", member.key.substr(0, 60), " beside layer types"));
      }
      found = found->Find(layer_type);
      absl::StrAppend(&where, ".", layer_type);
      if (has_local && (found == nullptr || found->is_null())) return RopeSource{&nothing, where};
    } else if (has_local && layer_type == kSliding) {
      break;
    }
    if (found != nullptr && found->is_object()) return RopeSource{found, where};
    return absl::InvalidArgumentError(
        absl::StrCat(where, found == nullptr ? " is missing" : " must be an object"));
  }
  return RopeSource{&nothing, file};
}

absl::Status CheckKeys(const Json& dictionary, const std::string& where) {
  for (const JsonMember& member : dictionary.as_object()) {
    if (std::find(std::begin(kRopeKeys), std::end(kRopeKeys), member.key) == std::end(kRopeKeys)) {
      return absl::UnimplementedError(absl::StrCat(where, ": ", member.key, " is not known"));
    }
  }
  return absl::OkStatus();
}

void ReadLlama3(ConfigFields& fields, RopeParameters* rope) {
  rope->scaling = RopeParameters::Scaling::kLlama3;
  rope->factor = fields.Number("factor", 1, kFactorMax, std::nullopt);
  rope->low_freq_factor = fields.Number("low_freq_factor", 1e-6, kFactorMax, std::nullopt);
  rope->high_freq_factor = fields.Number("high_freq_factor", 1e-6, kFactorMax, std::nullopt);
  rope->original_max_positions =
      fields.Number("original_max_position_embeddings", 1, kOriginalPositionsMax, std::nullopt);
  if (fields.status().ok() && rope->high_freq_factor <= rope->low_freq_factor) {
    fields.Fail(absl::StrCat("high_freq_factor ", rope->high_freq_factor,
                             " must be greater than low_freq_factor ", rope->low_freq_factor));
  }
}

void ReadYarn(ConfigFields& fields, int max_positions, RopeParameters* rope) {
  rope->scaling = RopeParameters::Scaling::kYarn;
  rope->factor = fields.Number("factor", 1, kFactorMax, std::nullopt);
  rope->original_max_positions =
      fields.Number("original_max_position_embeddings", 1, kOriginalPositionsMax, max_positions);
  rope->beta_fast = fields.Number("beta_fast", 1e-6, kFactorMax, 32.0);
  rope->beta_slow = fields.Number("beta_slow", 1e-6, kFactorMax, 1.0);
  rope->attention_factor = fields.Number("attention_factor", 1e-6, kFactorMax, 0.0);
  rope->truncate = fields.Bool("truncate", true);
}

/// The base beside the dictionary, which one inside it beats.
double ReadTopTheta(ConfigFields& top, const Architecture& row, bool local,
                    std::vector<std::string>* warnings, const std::string& file) {
  if (local) {
    return top.Number("rope_local_base_freq", kRopeThetaMin, kRopeThetaMax,
                      row.defaults.local_rope_theta);
  }
  const double theta =
      top.Number("rope_theta", kRopeThetaMin, kRopeThetaMax, row.defaults.rope_theta);
  if (!row.HasKey("theta")) return theta;
  const double older = top.Number("theta", kRopeThetaMin, kRopeThetaMax, theta);
  if (older != theta) {
    warnings->push_back(absl::StrCat(file, ": theta ", older, " is used, not rope_theta ", theta,
                                     ", which newer transformers take"));
  }
  return older;
}

/// The scaling that `type` names, with its numbers.
absl::Status ReadScaling(const std::string& type, ConfigFields& fields, const std::string& where,
                         int max_positions, std::vector<std::string>* warnings,
                         RopeParameters* rope) {
  if (type == "linear") {
    rope->scaling = RopeParameters::Scaling::kLinear;
    rope->factor = fields.Number("factor", 1e-6, kFactorMax, std::nullopt);
  } else if (type == "llama3") {
    ReadLlama3(fields, rope);
  } else if (type == "yarn") {
    ReadYarn(fields, max_positions, rope);
  } else if (type == "dynamic") {
    // Equals the plain rope up to max_position_embeddings, and no request goes further.
    warnings->push_back(absl::StrCat(where, ": dynamic scaling has no effect within the ",
                                     max_positions, " positions that are served"));
  } else if (type != "default") {
    return absl::UnimplementedError(
        absl::StrCat(where, ": rope type \"", type.substr(0, 60),
                     "\" is not known; known are default, linear, llama3, yarn, dynamic"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<RopeParameters> ParseRope(const Json& root, const std::string& file,
                                         absl::string_view layer_type, const Architecture& row,
                                         int max_positions, std::vector<std::string>* warnings) {
  const bool has_local = row.defaults.local_rope_theta != 0;
  NG_ASSIGN_OR_RETURN(const RopeSource source, FindDictionary(root, file, layer_type, has_local));
  ConfigFields top(root, file);
  ConfigFields fields(*source.dictionary, source.where);
  RopeParameters rope;
  const double top_theta =
      ReadTopTheta(top, row, has_local && layer_type == kSliding, warnings, file);
  NG_RETURN_IF_ERROR(top.status());
  rope.theta = fields.Number("rope_theta", kRopeThetaMin, kRopeThetaMax, top_theta);
  const std::string type = fields.String("rope_type", fields.String("type", "default"));
  NG_RETURN_IF_ERROR(fields.status());
  NG_RETURN_IF_ERROR(ReadScaling(type, fields, source.where, max_positions, warnings, &rope));
  NG_RETURN_IF_ERROR(CheckKeys(*source.dictionary, source.where));
  if (fields.Number("partial_rotary_factor", 0, 1, 1.0) != 1.0) {
    fields.Fail("partial_rotary_factor below 1 is not supported");
  }
  NG_RETURN_IF_ERROR(fields.status());
  return rope;
}

}  // namespace neurogrid
