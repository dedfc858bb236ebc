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
/// tensor. Names of the second group stand after "model.layers.N.".
struct TensorNames {
  absl::string_view embedding;
  absl::string_view final_norm;
  absl::string_view head;

  absl::string_view attention_norm;
  absl::string_view query;
  absl::string_view key;
  absl::string_view value;
  absl::string_view output;
  absl::string_view query_norm;
  absl::string_view key_norm;
  absl::string_view post_attention_norm;
  absl::string_view ffn_norm;
  absl::string_view gate;
  absl::string_view up;
  absl::string_view down;
  absl::string_view post_ffn_norm;
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
  bool tied_embeddings = false;
  std::optional<int32_t> bos_id;
  std::optional<int32_t> eos_id;
};

struct Architecture {
  absl::string_view name;        // model_type of config.json
  absl::string_view class_name;  // architectures[0] of config.json
  absl::string_view gguf_name;   // general.architecture
  TensorNames tensors;
  ConfigDefaults defaults;
  Activation activation = Activation::kSilu;
  float norm_offset = 0;
  bool norm_rounds_before_weight = true;
  bool bias_keys = false;  // config.json says attention_bias (q, k, v and o) and mlp_bias
  bool gguf_interleaves_heads = false;  // rows of q and k are permuted there (models.md 3.4)
};

absl::Span<const Architecture> Architectures();

/// By model_type or by GGUF's general.architecture. Unimplemented, naming it and the known ones.
absl::StatusOr<const Architecture*> FindArchitecture(absl::string_view name);
absl::StatusOr<const Architecture*> FindGgufArchitecture(absl::string_view gguf_name);

/// "model.layers.3.self_attn.q_proj.weight" of LayerTensor(3, "self_attn.q_proj").
std::string LayerTensor(int layer, absl::string_view part, absl::string_view suffix = "weight");

}  // namespace neurogrid
