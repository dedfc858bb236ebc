#include "engine/model/architecture.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace neurogrid {
namespace {

constexpr TensorNames kLlamaNames = {
    .embedding = "model.embed_tokens",
    .final_norm = "model.norm",
    .head = "lm_head",
    .attention_norm = "input_layernorm",
    .query = "self_attn.q_proj",
    .key = "self_attn.k_proj",
    .value = "self_attn.v_proj",
    .output = "self_attn.o_proj",
    .query_norm = "",
    .key_norm = "",
    .post_attention_norm = "",
    .ffn_norm = "post_attention_layernorm",  // in this family the norm before the FFN
    .gate = "mlp.gate_proj",
    .up = "mlp.up_proj",
    .down = "mlp.down_proj",
    .post_ffn_norm = "",
};

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
                  .rope_theta = 10000.0,
                  .tied_embeddings = false,
                  .bos_id = 1,
                  .eos_id = 2},
     .bias_keys = true,
     .gguf_interleaves_heads = true},
};

std::string KnownNames(absl::string_view Architecture::*name) {
  return absl::StrJoin(kArchitectures, ", ", [name](std::string* out, const Architecture& row) {
    absl::StrAppend(out, row.*name);
  });
}

absl::StatusOr<const Architecture*> FindBy(absl::string_view Architecture::*name,
                                           absl::string_view wanted) {
  for (const Architecture& row : kArchitectures) {
    if (row.*name == wanted) return &row;
  }
  return absl::UnimplementedError(
      absl::StrCat("architecture \"", wanted, "\" is not known; known are ", KnownNames(name)));
}

}  // namespace

absl::Span<const Architecture> Architectures() { return kArchitectures; }

absl::StatusOr<const Architecture*> FindArchitecture(absl::string_view name) {
  return FindBy(&Architecture::name, name);
}

absl::StatusOr<const Architecture*> FindGgufArchitecture(absl::string_view gguf_name) {
  return FindBy(&Architecture::gguf_name, gguf_name);
}

std::string LayerTensor(int layer, absl::string_view part, absl::string_view suffix) {
  return absl::StrCat("model.layers.", layer, ".", part, ".", suffix);
}

}  // namespace neurogrid
