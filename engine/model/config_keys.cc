#include "engine/model/config_keys.h"

#include <algorithm>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

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
                                              "pad_token_id",
                                              "pretraining_tp",
                                              "tokenizer_class",
                                              "torch_dtype",
                                              "transformers.js_config",
                                              "transformers_version",
                                              "unk_token_id",
                                              "unsloth_fixed",
                                              "unsloth_version",
                                              "use_cache"};

/// Keys that every family reads.
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
                                           "layer_types",
                                           "rope_theta",
                                           "rope_scaling",
                                           "rope_parameters",
                                           "partial_rotary_factor",
                                           "bos_token_id",
                                           "eos_token_id"};

/// Keys around a text_config: the rest concerns images.
constexpr absl::string_view kWrapperKeys[] = {
    "model_type",     "text_config",       "vision_config",       "mm_tokens_per_image",
    "boi_token_id",   "boi_token_index",   "eoi_token_id",        "eoi_token_index",
    "image_token_id", "image_token_index", "tie_word_embeddings", "bos_token_id",
    "eos_token_id"};

template <size_t N>
bool Contains(const absl::string_view (&list)[N], absl::string_view key) {
  return std::find(std::begin(list), std::end(list), key) != std::end(list);
}

bool IsOn(const Json& value) {
  return (value.is_bool() && value.as_bool()) || (value.is_number() && value.as_number() > 0);
}

bool IsOne(const Json& value) { return value.is_number() && value.as_number() == 1.0; }

/// Whether a key changes the maths in a way that no family here has; nothing for keys of which that
/// is not known. Null values have been skipped.
std::optional<bool> IsRefused(absl::string_view key, const Json& value) {
  if (key == "num_experts" || key == "num_local_experts" || key == "n_routed_experts" ||
      key == "use_bidirectional_attention" || key == "use_qk_norm" || key == "use_mrope" ||
      key == "rope_interleaved" || key == "is_encoder_decoder" || key == "use_sliding_window") {
    return IsOn(value);
  }
  if (key == "partial_rotary_factor" || absl::EndsWith(key, "_multiplier")) return !IsOne(value);
  if (key == "quantization_config" || key == "logit_scale" || key == "clip_qkv" ||
      key == "no_rope_layers" || absl::EndsWith(key, "softcapping") ||
      absl::EndsWith(key, "softcap")) {
    return true;
  }
  return std::nullopt;
}

absl::Status CheckKey(const JsonMember& member, bool known, const std::string& file,
                      std::vector<std::string>* warnings) {
  const std::optional<bool> refused = IsRefused(member.key, member.value);
  if (refused == true) {
    return absl::UnimplementedError(absl::StrCat(
        file, ": ", member.key.substr(0, 100), " is ", ToString(member.value).substr(0, 60),
        ", which changes what the model computes and is not supported"));
  }
  if (!refused && !known && !Contains(kIgnoredKeys, member.key)) {
    warnings->push_back(
        absl::StrCat(file, ": ", member.key.substr(0, 100), " is not known and has no effect"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckConfigKeys(const Json& root, const std::string& file, const Architecture& row,
                             std::vector<std::string>* warnings) {
  for (const JsonMember& member : root.as_object()) {
    if (member.value.is_null() || row.HasKey(member.key)) continue;
    NG_RETURN_IF_ERROR(CheckKey(member, Contains(kReadKeys, member.key), file, warnings));
  }
  return absl::OkStatus();
}

absl::Status CheckWrapperKeys(const Json& root, const std::string& file,
                              std::vector<std::string>* warnings) {
  for (const JsonMember& member : root.as_object()) {
    if (member.value.is_null()) continue;
    NG_RETURN_IF_ERROR(CheckKey(member, Contains(kWrapperKeys, member.key), file, warnings));
  }
  return absl::OkStatus();
}

}  // namespace neurogrid
