#include "engine/model/architecture.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace neurogrid {
namespace {

constexpr TensorNames kLlamaNames = {
    .embedding = "model.embed_tokens",
    .final_norm = "model.norm",
    .head = "lm_head",
    .attention_norm = "input_layernorm",
    .post_attention_norm = "",
    .ffn_norm = "post_attention_layernorm",  // in these families the norm before the FFN
    .gate = "mlp.gate_proj",
    .up = "mlp.up_proj",
    .down = "mlp.down_proj",
    .post_ffn_norm = "",
    .query = "self_attn.q_proj",
    .key = "self_attn.k_proj",
    .value = "self_attn.v_proj",
    .output = "self_attn.o_proj",
    .query_norm = "",
    .key_norm = "",
    .conv_in = "",
    .conv_taps = "",
    .conv_out = "",
};

constexpr TensorNames WithHeadNorms(TensorNames names) {
  names.query_norm = "self_attn.q_norm";
  names.key_norm = "self_attn.k_norm";
  return names;
}

constexpr TensorNames WithFourNorms(TensorNames names) {
  names.post_attention_norm = "post_attention_layernorm";
  names.ffn_norm = "pre_feedforward_layernorm";
  names.post_ffn_norm = "post_feedforward_layernorm";
  return names;
}

constexpr TensorNames kLfm2Names = {
    .embedding = "model.embed_tokens",
    .final_norm = "model.embedding_norm",  // the last norm, whatever its name
    .head = "lm_head",
    .attention_norm = "operator_norm",
    .post_attention_norm = "",
    .ffn_norm = "ffn_norm",
    .gate = "feed_forward.w1",
    .up = "feed_forward.w3",
    .down = "feed_forward.w2",
    .post_ffn_norm = "",
    .query = "self_attn.q_proj",
    .key = "self_attn.k_proj",
    .value = "self_attn.v_proj",
    .output = "self_attn.out_proj",
    .query_norm = "self_attn.q_layernorm",
    .key_norm = "self_attn.k_layernorm",
    .conv_in = "conv.in_proj",
    .conv_taps = "conv.conv",
    .conv_out = "conv.out_proj",
};

constexpr absl::string_view kLlamaKeys[] = {"attention_bias", "mlp_bias"};
constexpr absl::string_view kMistralKeys[] = {"sliding_window"};
constexpr absl::string_view kQwen2Keys[] = {"sliding_window", "use_sliding_window",
                                            "max_window_layers"};
constexpr absl::string_view kQwen3Keys[] = {"attention_bias", "sliding_window",
                                            "use_sliding_window", "max_window_layers"};
// hidden_act, beside hidden_activation, and the last two have no effect in the reference.
constexpr absl::string_view kGemma2Keys[] = {"attention_bias",          "hidden_activation",
                                             "query_pre_attn_scalar",   "attn_logit_softcapping",
                                             "final_logit_softcapping", "sliding_window",
                                             "sliding_window_size",     "cache_implementation"};
constexpr absl::string_view kGemma3Keys[] = {"attention_bias",          "hidden_activation",
                                             "query_pre_attn_scalar",   "attn_logit_softcapping",
                                             "final_logit_softcapping", "sliding_window",
                                             "sliding_window_pattern",  "_sliding_window_pattern",
                                             "rope_local_base_freq",    "cache_implementation"};
// From block_dim on without effect in the reference, which takes the sizes from other keys.
constexpr absl::string_view kLfm2Keys[] = {"norm_eps",
                                           "conv_L_cache",
                                           "conv_bias",
                                           "full_attn_idxs",
                                           "block_ff_dim",
                                           "block_auto_adjust_ff_dim",
                                           "block_ffn_dim_multiplier",
                                           "block_multiple_of",
                                           "tie_embedding",
                                           "theta",
                                           "block_dim",
                                           "block_mlp_init_scale",
                                           "block_norm_eps",
                                           "block_out_init_scale",
                                           "block_use_swiglu",
                                           "block_use_xavier_init",
                                           "conv_dim",
                                           "conv_dim_out",
                                           "conv_use_xavier_init",
                                           "num_heads",
                                           "use_pos_enc"};

const Architecture kArchitectures[] = {
    {.name = "llama",
     .class_name = "LlamaForCausalLM",
     .gguf_name = "llama",
     .tensors = kLlamaNames,
     .defaults = {.hidden_size = 4096,
                  .ffn_size = 11008,
                  .layers = 32,
                  .query_heads = 32,
                  .kv_heads = 0,
                  .head_dim = 0,
                  .vocab_size = 32000,
                  .max_positions = 2048,
                  .norm_epsilon = 1e-6,
                  .rope_theta = 1e4,
                  .bos_id = 1,
                  .eos_id = 2},
     .config_keys = kLlamaKeys,
     .gguf_interleaves_heads = true},
    {.name = "mistral",
     .class_name = "MistralForCausalLM",
     .gguf_name = "",  // its GGUF files say llama
     .tensors = kLlamaNames,
     .defaults = {.hidden_size = 4096,
                  .ffn_size = 14336,
                  .layers = 32,
                  .query_heads = 32,
                  .kv_heads = 8,
                  .head_dim = 0,
                  .vocab_size = 32000,
                  .max_positions = 131072,
                  .norm_epsilon = 1e-6,
                  .rope_theta = 1e4,
                  .window = 4096,
                  .bos_id = 1,
                  .eos_id = 2},
     .config_keys = kMistralKeys,
     .windows = WindowRule::kEvery},
    {.name = "qwen2",
     .class_name = "Qwen2ForCausalLM",
     .gguf_name = "qwen2",
     .tensors = kLlamaNames,
     .defaults = {.hidden_size = 4096,
                  .ffn_size = 22016,
                  .layers = 32,
                  .query_heads = 32,
                  .kv_heads = 32,
                  .head_dim = 0,
                  .vocab_size = 151936,
                  .max_positions = 32768,
                  .norm_epsilon = 1e-6,
                  .rope_theta = 1e4,
                  .window = 4096},
     .config_keys = kQwen2Keys,
     .qkv_bias = true,
     .windows = WindowRule::kUpper},
    {.name = "qwen3",
     .class_name = "Qwen3ForCausalLM",
     .gguf_name = "qwen3",
     .tensors = WithHeadNorms(kLlamaNames),
     .defaults = {.hidden_size = 4096,
                  .ffn_size = 22016,
                  .layers = 32,
                  .query_heads = 32,
                  .kv_heads = 32,
                  .head_dim = 128,
                  .vocab_size = 151936,
                  .max_positions = 32768,
                  .norm_epsilon = 1e-6,
                  .rope_theta = 1e4,
                  .window = 4096},
     .config_keys = kQwen3Keys,
     .windows = WindowRule::kUpper},
    {.name = "gemma2",
     .class_name = "Gemma2ForCausalLM",
     .gguf_name = "gemma2",
     .tensors = WithFourNorms(kLlamaNames),
     .defaults = {.hidden_size = 2304,
                  .ffn_size = 9216,
                  .layers = 26,
                  .query_heads = 8,
                  .kv_heads = 4,
                  .head_dim = 256,
                  .vocab_size = 256000,
                  .max_positions = 8192,
                  .norm_epsilon = 1e-6,
                  .rope_theta = 1e4,
                  .window = 4096,
                  .query_scalar = 256,
                  .attention_softcap = 50,
                  .final_softcap = 30,
                  .tied_embeddings = true,
                  .bos_id = 2,
                  .eos_id = 1},
     .config_keys = kGemma2Keys,
     .activation_key = "hidden_activation",
     .activation = Activation::kGeluTanh,
     .norm_offset = 1,
     .norm_rounds_before_weight = false,
     .scales_embedding = true,
     .windows = WindowRule::kPattern,
     .window_pattern = 2,
     .gguf_wide_scale_layers = 46},
    {.name = "gemma3_text",
     .class_name = "Gemma3ForCausalLM",
     .gguf_name = "gemma3",
     .wrapper_name = "gemma3",
     .wrapper_class_name = "Gemma3ForConditionalGeneration",
     .tensors = WithFourNorms(WithHeadNorms(kLlamaNames)),
     .defaults = {.hidden_size = 2304,
                  .ffn_size = 9216,
                  .layers = 26,
                  .query_heads = 8,
                  .kv_heads = 4,
                  .head_dim = 256,
                  .vocab_size = 262208,
                  .max_positions = 131072,
                  .norm_epsilon = 1e-6,
                  .rope_theta = 1e6,
                  .local_rope_theta = 1e4,
                  .window = 4096,
                  .query_scalar = 256,
                  .tied_embeddings = true,
                  .bos_id = 2,
                  .eos_id = 1},
     .config_keys = kGemma3Keys,
     .activation_key = "hidden_activation",
     .activation = Activation::kGeluTanh,
     .norm_offset = 1,
     .norm_rounds_before_weight = false,
     .scales_embedding = true,
     .windows = WindowRule::kPattern,
     .window_pattern = 6,
     .gguf_wide_scale_layers = 62},
    {.name = "lfm2",
     .class_name = "Lfm2ForCausalLM",
     .gguf_name = "lfm2",
     .tensors = kLfm2Names,
     .defaults = {.hidden_size = 2560,
                  .ffn_size = 12288,
                  .layers = 32,
                  .query_heads = 32,
                  .kv_heads = 8,
                  .head_dim = 0,
                  .vocab_size = 65536,
                  .max_positions = 128000,
                  .norm_epsilon = 1e-5,
                  .rope_theta = 1e6,
                  .tied_embeddings = true,
                  .bos_id = 1,
                  .eos_id = 2},
     .config_keys = kLfm2Keys,
     .norm_epsilon_key = "norm_eps",
     .activation_key = "",
     .gguf_final_norm = "token_embd_norm"},
};

/// The row with this name; `names` are those that a file may say.
absl::StatusOr<const Architecture*> FindBy(absl::string_view Architecture::*name,
                                           absl::string_view wanted) {
  std::vector<absl::string_view> known;
  for (const Architecture& row : kArchitectures) {
    if ((row.*name).empty()) continue;
    if (row.*name == wanted) return &row;
    known.push_back(row.*name);
  }
  return absl::UnimplementedError(absl::StrCat(
      "architecture \"", wanted, "\" is not known; known are ", absl::StrJoin(known, ", ")));
}

}  // namespace

bool Architecture::HasKey(absl::string_view key) const {
  return std::find(config_keys.begin(), config_keys.end(), key) != config_keys.end();
}

absl::string_view Architecture::activation_name() const {
  return activation == Activation::kSilu ? "silu" : "gelu_pytorch_tanh";
}

absl::Span<const Architecture> Architectures() { return kArchitectures; }

absl::StatusOr<const Architecture*> FindArchitecture(absl::string_view name) {
  return FindBy(&Architecture::name, name);
}

absl::StatusOr<const Architecture*> FindGgufArchitecture(absl::string_view gguf_name) {
  return FindBy(&Architecture::gguf_name, gguf_name);
}

const Architecture* FindWrapped(absl::string_view model_type) {
  for (const Architecture& row : kArchitectures) {
    if (!row.wrapper_name.empty() && row.wrapper_name == model_type) return &row;
  }
  return nullptr;
}

std::string LayerTensor(int layer, absl::string_view part, absl::string_view suffix) {
  return absl::StrCat("model.layers.", layer, ".", part, ".", suffix);
}

}  // namespace neurogrid
