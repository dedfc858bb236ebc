// The architecture table: what one model family calls its tensors and leaves unsaid in its files.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/status.h"
#include "engine/model/model_config.h"

namespace neurogrid {

/// Hugging Face names without ".weight" and ".bias" (models.md 1.3). Empty: the family has no such
/// tensor. Names of the other groups stand after "model.layers.N."; those of the third belong to
/// layers of attention, those of the fourth to layers of short convolution.
struct TensorNames {
  absl::string_view embedding;
  absl::string_view final_norm;
  absl::string_view head;

  absl::string_view attention_norm;  // before the attention or convolution
  absl::string_view post_attention_norm;
  absl::string_view ffn_norm;
  absl::string_view gate;
  absl::string_view up;
  absl::string_view down;
  absl::string_view post_ffn_norm;

  absl::string_view query;
  absl::string_view key;
  absl::string_view value;
  absl::string_view output;
  absl::string_view query_norm;
  absl::string_view key_norm;

  absl::string_view conv_in;
  absl::string_view conv_taps;
  absl::string_view conv_out;
};

/// What a key missing from config.json means (models.md 1.2).
struct ConfigDefaults {
  int hidden_size = 0;
  int ffn_size = 0;
  int layers = 0;
  int query_heads = 0;
  int kv_heads = 0;  // 0: as many as query heads
  int head_dim = 0;  // 0: hidden_size / query_heads
  int vocab_size = 0;
  int max_positions = 0;
  double norm_epsilon = 0;
  double rope_theta = 0;
  double local_rope_theta = 0;  // of layers with a window; 0: they share the rope of the others
  int window = 0;
  double query_scalar = 0;  // attention scale is its -1/2th power; 0: that of head_dim
  double attention_softcap = 0;
  double final_softcap = 0;
  bool tied_embeddings = false;
  std::optional<int32_t> bos_id = std::nullopt;
  std::optional<int32_t> eos_id = std::nullopt;
};

/// Which layers see only a window of keys, where layer_types does not say it.
enum class WindowRule {
  kNever,
  kEvery,    // all of them; layer_types has no say (Mistral)
  kUpper,    // with use_sliding_window those from max_window_layers on (Qwen)
  kPattern,  // layer i unless (i + 1) mod window_pattern is 0 (Gemma)
};

struct Architecture {
  absl::string_view name;        // model_type of config.json
  absl::string_view class_name;  // architectures[0] of config.json
  absl::string_view gguf_name;   // general.architecture; empty: its files use another row's
  // The same two of a config.json that holds this family's as its text_config, beside vision parts.
  absl::string_view wrapper_name = "";
  absl::string_view wrapper_class_name = "";
  TensorNames tensors;
  ConfigDefaults defaults;
  // Keys beyond those that all families share; whatever is not in either is not understood.
  absl::Span<const absl::string_view> config_keys;
  absl::string_view norm_epsilon_key = "rms_norm_eps";
  absl::string_view activation_key = "hidden_act";  // empty: there is none
  Activation activation = Activation::kSilu;
  float norm_offset = 0;
  bool norm_rounds_before_weight = true;
  bool scales_embedding = false;  // by the square root of hidden_size
  bool qkv_bias = false;          // whatever the keys say
  WindowRule windows = WindowRule::kNever;
  int window_pattern = 0;
  bool gguf_interleaves_heads = false;  // rows of q and k are permuted there (models.md 3.4)
  absl::string_view gguf_final_norm = "output_norm";
  int gguf_wide_scale_layers =
      0;  // in files of so many layers queries are scaled by hidden / heads

  /// Whether config.json may say `key` besides the keys that all families share.
  bool HasKey(absl::string_view key) const;
  /// "silu", "gelu_pytorch_tanh".
  absl::string_view activation_name() const;
};

absl::Span<const Architecture> Architectures();

/// By model_type or by GGUF's general.architecture. Unimplemented, naming it and the known ones.
absl::StatusOr<const Architecture*> FindArchitecture(absl::string_view name);
absl::StatusOr<const Architecture*> FindGgufArchitecture(absl::string_view gguf_name);
/// The row whose config is the text_config of a `model_type`; null when there is none.
const Architecture* FindWrapped(absl::string_view model_type);

/// "model.layers.3.self_attn.q_proj.weight" of LayerTensor(3, "self_attn.q_proj").
std::string LayerTensor(int layer, absl::string_view part, absl::string_view suffix = "weight");

}  // namespace neurogrid
