#include "engine/model/config_json.h"

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/limits.h"
#include "common/mapped_file.h"
#include "engine/model/architecture.h"
#include "engine/model/config_fields.h"

namespace neurogrid {
namespace {

/// Keys that concern training, caching, bookkeeping or other programs, and such as name code
/// (auto_map: never followed).
constexpr absl::string_view kIgnoredKeys[] = {"_name_or_path",
                                              "_attn_implementation",
                                              "architectures",
                                              "attention_dropout",
                                              "auto_map",
                                              "dtype",
                                              "initializer_range",
                                              "is_llama_config",
                                              "layer_types",
                                              "pad_token_id",
                                              "pretraining_tp",
                                              "rope_interleaved",
                                              "tokenizer_class",
                                              "torch_dtype",
                                              "transformers.js_config",
                                              "transformers_version",
                                              "unk_token_id",
                                              "unsloth_fixed",
                                              "unsloth_version",
                                              "use_cache"};

constexpr absl::string_view kReadKeys[] = {"model_type",
                                           "hidden_size",
                                           "intermediate_size",
                                           "num_hidden_layers",
                                           "num_attention_heads",
                                           "num_key_value_heads",
                                           "head_dim",
                                           "vocab_size",
                                           "max_position_embeddings",
                                           "rms_norm_eps",
                                           "hidden_act",
                                           "tie_word_embeddings",
                                           "attention_bias",
                                           "mlp_bias",
                                           "rope_theta",
                                           "rope_scaling",
                                           "rope_parameters",
                                           "partial_rotary_factor",
                                           "bos_token_id",
                                           "eos_token_id"};

template <size_t N>
bool Contains(const absl::string_view (&list)[N], absl::string_view key) {
  return std::find(std::begin(list), std::end(list), key) != std::end(list);
}

bool IsPositive(const Json& value) { return value.is_number() && value.as_number() > 0; }
bool IsTrue(const Json& value) { return value.is_bool() && value.as_bool(); }
bool IsOn(const Json& value) { return IsTrue(value) || IsPositive(value); }

/// Whether a key changes the maths in a way that no family here has; null values have been skipped.
bool IsRefused(absl::string_view key, const Json& value) {
  if (key == "quantization_config") return true;
  if (key == "num_experts" || key == "num_local_experts" || key == "n_routed_experts") {
    return IsOn(value);
  }
  if (key == "use_bidirectional_attention" || key == "use_qk_norm" || key == "rope_interleaved" ||
      key == "is_encoder_decoder" || key == "use_sliding_window") {
    return IsOn(value);
  }
  if (key == "partial_rotary_factor") return !value.is_number() || value.as_number() != 1.0;
  if (absl::EndsWith(key, "_multiplier")) return !value.is_number() || value.as_number() != 1.0;
  return key == "logit_scale" || key == "clip_qkv" || key == "no_rope_layers" ||
         absl::EndsWith(key, "softcapping") || absl::EndsWith(key, "softcap");
}

absl::Status CheckKeys(const Json& root, const std::string& file,
                       std::vector<std::string>* warnings) {
  for (const JsonMember& member : root.as_object()) {
    if (member.value.is_null()) continue;
    if (IsRefused(member.key, member.value)) {
      return absl::UnimplementedError(absl::StrCat(
          file, ": ", member.key, " changes what the model computes and is not supported"));
    }
    if (!Contains(kIgnoredKeys, member.key) && !Contains(kReadKeys, member.key)) {
      warnings->push_back(
          absl::StrCat(file, ": ", member.key.substr(0, 100), " is not known and has no effect"));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckLayerTypes(const Json& root, const std::string& file, int layers) {
  const Json* types = root.Find("layer_types");
  if (types == nullptr || types->is_null()) return absl::OkStatus();
  if (!types->is_array() || static_cast<int>(types->as_array().size()) != layers) {
    return absl::InvalidArgumentError(absl::StrCat(
        file, ": layer_types must be a list with a name for each of the ", layers, " layers"));
  }
  for (const Json& type : types->as_array()) {
    if (!type.is_string() || type.as_string() != "full_attention") {
      return absl::UnimplementedError(absl::StrCat(file, ": layer_types holds ",
                                                   ToString(type).substr(0, 60),
                                                   "; this family has full_attention layers only"));
    }
  }
  return absl::OkStatus();
}

/// The row of model_type, or of architectures[0] where that is missing.
absl::StatusOr<const Architecture*> FindRow(const Json& root, const std::string& file) {
  ConfigFields fields(root, file);
  const std::string type = fields.String("model_type", "");
  const Json* classes = fields.Find("architectures");
  NG_RETURN_IF_ERROR(fields.status());
  std::string name;
  if (classes != nullptr && classes->is_array() && !classes->as_array().empty() &&
      classes->as_array()[0].is_string()) {
    name = classes->as_array()[0].as_string();
  }
  if (!name.empty() && !absl::EndsWith(name, "ForCausalLM")) {
    return absl::UnimplementedError(
        absl::StrCat(file, ": architectures names ", name.substr(0, 100), ", no ...ForCausalLM"));
  }
  if (type.empty()) {
    for (const Architecture& row : Architectures()) {
      if (row.class_name == name) return &row;
    }
    return absl::InvalidArgumentError(absl::StrCat(file, ": model_type is missing"));
  }
  absl::StatusOr<const Architecture*> row = FindArchitecture(type.substr(0, 100));
  if (row.ok()) return row;
  return absl::Status(row.status().code(),
                      absl::StrCat(file, ": model_type: ", row.status().message()));
}

/// An id, a list of ids, or null for none. Missing: the family's default.
absl::Status ReadEosIds(const Json& root, const std::string& file, std::optional<int32_t> fallback,
                        ModelConfig* config) {
  const Json* value = root.Find("eos_token_id");
  if (value == nullptr) {
    if (fallback) AddEosId(*fallback, config);
    return absl::OkStatus();
  }
  if (value->is_null()) return absl::OkStatus();
  const Json::Array one = {*value};
  const Json::Array& ids = value->is_array() ? value->as_array() : one;
  if (ids.size() > kEosIdsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": eos_token_id has more than ", kEosIdsMax, " ids"));
  }
  for (const Json& id : ids) {
    if (!id.is_integer() || id.as_integer() < 0 || id.as_integer() >= config->vocab_size) {
      return absl::InvalidArgumentError(
          absl::StrCat(file, ": eos_token_id is ", ToString(id).substr(0, 60),
                       " but must be an id below the vocab_size ", config->vocab_size));
    }
    AddEosId(static_cast<int32_t>(id.as_integer()), config);
  }
  return absl::OkStatus();
}

void ReadSizes(ConfigFields& fields, const Architecture& row, ModelConfig* config) {
  const ConfigDefaults& defaults = row.defaults;
  const auto integer = [&fields](absl::string_view key, int max, int fallback) {
    return static_cast<int>(fields.Integer(key, 1, max, fallback));
  };
  config->hidden_size = integer("hidden_size", kHiddenSizeMax, defaults.hidden_size);
  config->ffn_size = integer("intermediate_size", kFfnSizeMax, defaults.ffn_size);
  config->layers.resize(integer("num_hidden_layers", kLayersMax, defaults.layers));
  config->query_heads = integer("num_attention_heads", kHeadsMax, defaults.query_heads);
  config->kv_heads = integer("num_key_value_heads", kHeadsMax,
                             defaults.kv_heads != 0 ? defaults.kv_heads : config->query_heads);
  if (!fields.Has("head_dim") && defaults.head_dim == 0 &&
      config->hidden_size % config->query_heads != 0) {
    fields.Fail(absl::StrCat("hidden_size ", config->hidden_size,
                             " is no multiple of num_attention_heads ", config->query_heads));
  }
  config->head_dim =
      integer("head_dim", kHeadDimMax,
              defaults.head_dim != 0 ? defaults.head_dim
                                     : std::max(1, config->hidden_size / config->query_heads));
  config->vocab_size = integer("vocab_size", kVocabSizeMax, defaults.vocab_size);
  config->max_positions = integer("max_position_embeddings", kPositionsMax, defaults.max_positions);
}

absl::StatusOr<ModelConfig> ReadFields(const Json& root, const std::string& file,
                                       const Architecture& row) {
  ModelConfig config;
  config.architecture = std::string(row.name);
  ConfigFields fields(root, file);
  ReadSizes(fields, row, &config);
  config.norm_epsilon =
      static_cast<float>(fields.Number("rms_norm_eps", 1e-12, 1, row.defaults.norm_epsilon));
  config.norm_offset = row.norm_offset;
  config.norm_rounds_before_weight = row.norm_rounds_before_weight;
  config.activation = row.activation;
  const std::string activation = fields.String("hidden_act", "silu");
  if (activation != "silu") {
    fields.Fail(absl::StrCat("hidden_act is \"", activation.substr(0, 60), "\" but must be silu"));
  }
  config.tied_embeddings = fields.Bool("tie_word_embeddings", row.defaults.tied_embeddings);
  if (row.bias_keys) {
    config.qkv_bias = fields.Bool("attention_bias", false);
    config.output_bias = config.qkv_bias;
    config.mlp_bias = fields.Bool("mlp_bias", false);
  }
  const Json* bos = root.Find("bos_token_id");
  if (bos == nullptr) {
    config.bos_id = row.defaults.bos_id;
  } else if (!bos->is_null()) {
    config.bos_id =
        static_cast<int32_t>(fields.Integer("bos_token_id", 0, config.vocab_size - 1, 0));
  }
  NG_RETURN_IF_ERROR(fields.status());
  config.attention_scale = 1.0f / std::sqrt(static_cast<float>(config.head_dim));
  return config;
}

absl::StatusOr<Json> ReadJsonObject(const std::string& file) {
  NG_ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(file, kConfigBytesMax));
  absl::StatusOr<Json> root = ParseJson(text);
  if (!root.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, " is not valid JSON: ", root.status().message()));
  }
  if (!root->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, " holds ", root->kind_name(), " but must be an object"));
  }
  return root;
}

}  // namespace

void AddEosId(int32_t id, ModelConfig* config) {
  std::vector<int32_t>& ids = config->eos_ids;
  const auto place = std::lower_bound(ids.begin(), ids.end(), id);
  if (place == ids.end() || *place != id) ids.insert(place, id);
}

absl::Status CheckModelConfig(const ModelConfig& config, const std::string& where) {
  if (config.query_heads % config.kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": the ", config.query_heads, " query heads are no multiple of the ",
                     config.kv_heads, " key-value heads (num_key_value_heads)"));
  }
  if (config.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": head_dim is ", config.head_dim, " but must be even"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelConfig> ParseModelConfig(const Json& root, const std::string& file,
                                             std::vector<std::string>* warnings) {
  NG_ASSIGN_OR_RETURN(const Architecture* row, FindRow(root, file));
  NG_RETURN_IF_ERROR(CheckKeys(root, file, warnings));
  NG_ASSIGN_OR_RETURN(ModelConfig config, ReadFields(root, file, *row));
  NG_RETURN_IF_ERROR(CheckLayerTypes(root, file, config.layers_count()));
  NG_ASSIGN_OR_RETURN(RopeParameters rope,
                      ParseRope(root, file, "full_attention", row->defaults.rope_theta,
                                config.max_positions, warnings));
  config.ropes.push_back(std::move(rope));
  NG_RETURN_IF_ERROR(ReadEosIds(root, file, row->defaults.eos_id, &config));
  NG_RETURN_IF_ERROR(CheckModelConfig(config, file));
  return config;
}

absl::Status ApplyGenerationConfig(const Json& root, const std::string& file, ModelConfig* config) {
  NG_RETURN_IF_ERROR(ReadEosIds(root, file, std::nullopt, config));
  ConfigFields fields(root, file);
  GenerationDefaults& defaults = config->generation;
  if (fields.Has("temperature")) {
    defaults.temperature = fields.Number("temperature", 0, 100, std::nullopt);
  }
  // The reference takes the best token when sampling is off, whatever the temperature.
  if (!fields.Bool("do_sample", true)) defaults.temperature = 0.0;
  if (fields.Has("top_p")) defaults.top_p = fields.Number("top_p", 0, 1, std::nullopt);
  if (fields.Has("top_k")) {
    defaults.top_k = static_cast<int>(fields.Integer("top_k", -1, kVocabSizeMax, std::nullopt));
  }
  if (fields.Has("repetition_penalty")) {
    defaults.repetition_penalty = fields.Number("repetition_penalty", 1e-3, 100, std::nullopt);
  }
  return fields.status();
}

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& folder,
                                            std::vector<std::string>* warnings) {
  const std::string file = folder + "/config.json";
  NG_ASSIGN_OR_RETURN(const Json root, ReadJsonObject(file));
  NG_ASSIGN_OR_RETURN(ModelConfig config, ParseModelConfig(root, file, warnings));
  const std::string generation = folder + "/generation_config.json";
  if (std::filesystem::exists(generation)) {
    NG_ASSIGN_OR_RETURN(const Json extra, ReadJsonObject(generation));
    NG_RETURN_IF_ERROR(ApplyGenerationConfig(extra, generation, &config));
  }
  return config;
}

}  // namespace neurogrid
