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
#include "engine/model/config_keys.h"
#include "engine/model/layer_config.h"

namespace neurogrid {
namespace {

/// The numbers of a family, wherever they stand in the file.
struct Source {
  const Architecture* row = nullptr;
  const Json* config = nullptr;  // the whole file, or its text_config
  std::string where;             // opens errors about `config`
};

/// architectures[0], empty when missing.
std::string ClassOf(const Json& root) {
  const Json* classes = root.Find("architectures");
  if (classes == nullptr || !classes->is_array() || classes->as_array().empty() ||
      !classes->as_array()[0].is_string()) {
    return "";
  }
  return classes->as_array()[0].as_string();
}

/// model_type, or the one that architectures[0] stands for where that is missing.
absl::StatusOr<std::string> TypeOf(const Json& root, const std::string& file) {
  ConfigFields fields(root, file);
  const std::string type = fields.String("model_type", "");
  NG_RETURN_IF_ERROR(fields.status());
  if (!type.empty()) return type;
  const std::string name = ClassOf(root);
  for (const Architecture& row : Architectures()) {
    if (name.empty()) break;
    if (row.class_name == name) return std::string(row.name);
    if (row.wrapper_class_name == name) return std::string(row.wrapper_name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat(file, ": model_type is missing",
                   name.empty() ? "" : " and architectures names " + name.substr(0, 100)));
}

absl::StatusOr<const Architecture*> RowOf(const std::string& type, const std::string& where) {
  absl::StatusOr<const Architecture*> row = FindArchitecture(type.substr(0, 100));
  if (row.ok()) return row;
  return absl::Status(row.status().code(),
                      absl::StrCat(where, ": model_type: ", row.status().message()));
}

absl::StatusOr<Source> FindSource(const Json& root, const std::string& file) {
  NG_ASSIGN_OR_RETURN(const std::string type, TypeOf(root, file));
  const std::string name = ClassOf(root);
  const Architecture* wrapped = FindWrapped(type);
  const bool whole = wrapped != nullptr && name == wrapped->wrapper_class_name;
  if (!name.empty() && !absl::EndsWith(name, "ForCausalLM") && !whole) {
    return absl::UnimplementedError(
        absl::StrCat(file, ": architectures names ", name.substr(0, 100), ", no ...ForCausalLM"));
  }
  if (wrapped == nullptr) {
    NG_ASSIGN_OR_RETURN(const Architecture* row, RowOf(type, file));
    return Source{row, &root, file};
  }
  const Json* text = root.Find("text_config");
  if (text == nullptr || !text->is_object()) {
    return absl::InvalidArgumentError(
        absl::StrCat(file, ": text_config ", text == nullptr ? "is missing" : "must be an object"));
  }
  Source source{wrapped, text, absl::StrCat(file, ": text_config")};
  if (text->Find("model_type") != nullptr) {
    NG_ASSIGN_OR_RETURN(const std::string inner, TypeOf(*text, source.where));
    NG_ASSIGN_OR_RETURN(source.row, RowOf(inner, source.where));
  }
  return source;
}

/// An id, a list of ids, or null for none. Missing: the family's default.
absl::Status ReadEosIds(const Json& root, const std::string& file, std::optional<int32_t> fallback,
                        ModelConfig* config) {
  const Json* value = root.Find("eos_token_id");
  if (value == nullptr) {
    if (fallback && *fallback < config->vocab_size) AddEosId(*fallback, config);
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
  // Null means as many as query heads, a missing key the family's number.
  const bool named = fields.IsNull("num_key_value_heads") || defaults.kv_heads == 0;
  config->kv_heads =
      integer("num_key_value_heads", kHeadsMax, named ? config->query_heads : defaults.kv_heads);
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

/// LFM2 says a width from which the one that counts is computed.
void ReadBlockWidth(ConfigFields& fields, ModelConfig* config) {
  int64_t width = fields.Integer("block_ff_dim", 1, kFfnSizeMax, config->ffn_size);
  if (fields.Bool("block_auto_adjust_ff_dim", true)) {
    width = 2 * width / 3;
    if (!fields.IsNull("block_ffn_dim_multiplier")) {
      width = static_cast<int64_t>(fields.Number("block_ffn_dim_multiplier", 1e-6, 1e6, 1.0) *
                                   static_cast<double>(width));
      const int64_t multiple = fields.Integer("block_multiple_of", 1, kFfnSizeMax, 256);
      width = (width + multiple - 1) / multiple * multiple;
    }
  }
  if (width < 1 || width > kFfnSizeMax) {
    fields.Fail(absl::StrCat("block_ff_dim and its rules give a width of ", width,
                             " but it must be in [1, ", kFfnSizeMax, "]"));
  }
  config->ffn_size = static_cast<int>(width);
}

void ReadConvolution(ConfigFields& fields, ModelConfig* config) {
  config->conv_taps = static_cast<int>(fields.Integer("conv_L_cache", 1, kConvTapsMax, 3));
  config->conv_bias = fields.Bool("conv_bias", false);
}

/// A cap, 0 for none: null means none, a missing key the family's.
float ReadSoftcap(ConfigFields& fields, absl::string_view key, double fallback) {
  if (fields.IsNull(key)) return 0;
  if (!fields.Has(key)) return static_cast<float>(fallback);
  return static_cast<float>(fields.Number(key, 1e-3, 1e6, std::nullopt));
}

/// Everything that changes the maths of a layer beside sizes.
void ReadMaths(ConfigFields& fields, const Architecture& row, ModelConfig* config) {
  config->norm_epsilon =
      static_cast<float>(fields.Number(row.norm_epsilon_key, 1e-12, 1, row.defaults.norm_epsilon));
  config->norm_offset = row.norm_offset;
  config->norm_rounds_before_weight = row.norm_rounds_before_weight;
  config->activation = row.activation;
  if (!row.activation_key.empty()) {
    const std::string name(row.activation_name());
    const std::string found = fields.String(row.activation_key, name);
    if (found != name) {
      fields.Fail(absl::StrCat(row.activation_key, " is \"", found.substr(0, 60), "\" but a ",
                               row.name, " model has ", name));
    }
  }
  double scalar = config->head_dim;
  if (row.defaults.query_scalar != 0) {
    scalar = fields.Number("query_pre_attn_scalar", 1e-3, 1e6, row.defaults.query_scalar);
    config->attention_softcap =
        ReadSoftcap(fields, "attn_logit_softcapping", row.defaults.attention_softcap);
    config->final_softcap =
        ReadSoftcap(fields, "final_logit_softcapping", row.defaults.final_softcap);
  }
  config->attention_scale = AttentionScale(scalar);
  if (row.scales_embedding) {
    config->embedding_scale = EmbeddingScale(config->hidden_size);
  }
  const bool biased = row.HasKey("attention_bias") && fields.Bool("attention_bias", false);
  config->qkv_bias = row.qkv_bias || biased;
  config->output_bias = biased;
  config->mlp_bias = row.HasKey("mlp_bias") && fields.Bool("mlp_bias", false);
}

absl::StatusOr<ModelConfig> ReadFields(const Json& root, const std::string& file,
                                       const Architecture& row) {
  ModelConfig config;
  config.architecture = std::string(row.name);
  ConfigFields fields(root, file);
  ReadSizes(fields, row, &config);
  if (row.HasKey("block_ff_dim")) ReadBlockWidth(fields, &config);
  if (!row.tensors.conv_in.empty()) ReadConvolution(fields, &config);
  ReadMaths(fields, row, &config);
  config.tied_embeddings = fields.Bool("tie_word_embeddings", row.defaults.tied_embeddings);
  if (row.HasKey("tie_embedding")) {
    config.tied_embeddings = fields.Bool("tie_embedding", config.tied_embeddings);
  }
  if (fields.Has("bos_token_id")) {
    config.bos_id =
        static_cast<int32_t>(fields.Integer("bos_token_id", 0, config.vocab_size - 1, 0));
  } else if (!fields.IsNull("bos_token_id")) {
    config.bos_id = row.defaults.bos_id;
  }
  NG_RETURN_IF_ERROR(fields.status());
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

float AttentionScale(double scalar) { return static_cast<float>(std::pow(scalar, -0.5)); }

float EmbeddingScale(int hidden_size) {
  return static_cast<float>(std::sqrt(static_cast<double>(hidden_size)));
}

absl::Status CheckModelConfig(const ModelConfig& config, const std::string& where) {
  if (config.query_heads % config.kv_heads != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": the ", config.query_heads, " query heads are no multiple of the ",
                     config.kv_heads, " key-value heads (num_key_value_heads)"));
  }
  const bool attends =
      std::any_of(config.layers.begin(), config.layers.end(),
                  [](const LayerConfig& layer) { return layer.kind == BlockKind::kAttention; });
  if (!attends) {
    return absl::UnimplementedError(absl::StrCat(where, ": none of the ", config.layers_count(),
                                                 " layers is one of attention"));
  }
  if (config.head_dim % 2 != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": head_dim is ", config.head_dim, " but must be even"));
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelConfig> ParseModelConfig(const Json& root, const std::string& file,
                                             std::vector<std::string>* warnings) {
  NG_ASSIGN_OR_RETURN(const Source source, FindSource(root, file));
  const Architecture& row = *source.row;
  const bool wrapped = source.config != &root;
  if (wrapped) NG_RETURN_IF_ERROR(CheckWrapperKeys(root, file, warnings));
  NG_RETURN_IF_ERROR(CheckConfigKeys(*source.config, source.where, row, warnings));
  NG_ASSIGN_OR_RETURN(ModelConfig config, ReadFields(*source.config, source.where, row));
  if (wrapped && source.config->Find("tie_word_embeddings") == nullptr) {
    ConfigFields outer(root, file);
    config.tied_embeddings = outer.Bool("tie_word_embeddings", config.tied_embeddings);
    NG_RETURN_IF_ERROR(outer.status());
  }
  NG_RETURN_IF_ERROR(ReadLayers(*source.config, source.where, row, &config, warnings));
  NG_RETURN_IF_ERROR(ReadEosIds(*source.config, source.where, row.defaults.eos_id, &config));
  if (wrapped) NG_RETURN_IF_ERROR(ReadEosIds(root, file, std::nullopt, &config));
  NG_RETURN_IF_ERROR(CheckModelConfig(config, source.where));
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
