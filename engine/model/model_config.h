// A model as plain numbers: what config.json or GGUF keys say, with the family's defaults filled
// in.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace neurogrid {

enum class Activation { kSilu, kGeluTanh };
enum class BlockKind { kAttention, kShortConvolution };

/// One frequency table (models.md 2.4). Angles are position * f_j, f_j from theta and the scaling.
struct RopeParameters {
  enum class Scaling { kNone, kLinear, kLlama3, kYarn };
  Scaling scaling = Scaling::kNone;
  double theta = 10000.0;
  double factor = 1.0;
  double low_freq_factor = 1.0;
  double high_freq_factor = 4.0;
  double original_max_positions = 0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double attention_factor = 0;  // 0: computed from the factor
  bool truncate = true;
  std::vector<float> frequency_divisors = {};  // [head_dim / 2] or empty; GGUF's rope_freqs.weight

  bool operator==(const RopeParameters&) const = default;
};

struct LayerConfig {
  BlockKind kind = BlockKind::kAttention;
  int window = 0;  // keys visible to a query, itself included; 0: all
  int rope = 0;    // index into ModelConfig::ropes

  bool operator==(const LayerConfig&) const = default;
};

/// Sampling defaults of generation_config.json; absent: the API's defaults.
struct GenerationDefaults {
  std::optional<double> temperature;
  std::optional<double> top_p;
  std::optional<int> top_k;
  std::optional<double> repetition_penalty;

  bool operator==(const GenerationDefaults&) const = default;
};

struct ModelConfig {
  std::string architecture;  // row of the architecture table: "llama", "qwen3", ...
  int hidden_size = 0;
  int ffn_size = 0;
  int query_heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  int vocab_size = 0;  // rows of the embedding
  int max_positions = 0;
  int conv_taps = 0;       // K of the short convolution; 0 without one
  bool conv_bias = false;  // of its three parts
  float norm_epsilon = 1e-5f;
  float norm_offset = 0;                  // 1 for Gemma's (1 + w)
  bool norm_rounds_before_weight = true;  // the Llama form of models.md 1.4
  float attention_scale = 0;
  float attention_softcap = 0;  // 0: none
  float final_softcap = 0;      // 0: none
  float embedding_scale = 1;    // not yet rounded to the dtype of the activations
  Activation activation = Activation::kSilu;
  bool tied_embeddings = false;  // the head is the embedding; no lm_head.weight
  bool qkv_bias = false;
  bool output_bias = false;  // of the attention's output projection
  bool mlp_bias = false;
  std::vector<LayerConfig> layers;
  std::vector<RopeParameters> ropes;
  std::vector<int32_t> eos_ids;  // ascending; union of generation_config, config and GGUF keys
  std::optional<int32_t> bos_id;
  GenerationDefaults generation;

  int layers_count() const { return static_cast<int>(layers.size()); }
  bool operator==(const ModelConfig&) const = default;
};

}  // namespace neurogrid
