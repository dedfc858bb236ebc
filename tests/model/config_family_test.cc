// What each family's config.json may say, and what is refused by name.
#include <catch2/catch_test_macros.hpp>
#include <cmath>
#include <tuple>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/model/config_json.h"

namespace neurogrid {
namespace {

/// A config.json of this model_type and these members; everything else is the family's default.
absl::StatusOr<ModelConfig> Parse(const std::string& type, const std::string& members,
                                  std::vector<std::string>* warnings = nullptr) {
  std::vector<std::string> ignored;
  const std::string text =
      absl::StrCat("{\"model_type\":\"", type, "\"", members.empty() ? "" : ",", members, "}");
  return ParseModelConfig(ParseJson(text).value(), "config.json",
                          warnings != nullptr ? warnings : &ignored);
}

std::string ErrorOf(const std::string& type, const std::string& members) {
  const absl::StatusOr<ModelConfig> config = Parse(type, members);
  return config.ok() ? "no error" : std::string(config.status().message());
}

int SlidingLayers(const ModelConfig& config) {
  int count = 0;
  for (const LayerConfig& layer : config.layers) count += layer.window > 0 ? 1 : 0;
  return count;
}

TEST_CASE("a missing key is the class default of its family", "[config]") {
  struct Expected {
    const char* type;
    int hidden, ffn, layers, heads, kv, head_dim, vocab, positions;
    float epsilon;
    double theta;
    int window, sliding;
    bool tied;
  };
  // models.md 1.2; the ffn of lfm2 is what its rule makes of 12288.
  const Expected families[] = {
      {"llama", 4096, 11008, 32, 32, 32, 128, 32000, 2048, 1e-6f, 1e4, 0, 0, false},
      {"mistral", 4096, 14336, 32, 32, 8, 128, 32000, 131072, 1e-6f, 1e4, 4096, 32, false},
      {"qwen2", 4096, 22016, 32, 32, 32, 128, 151936, 32768, 1e-6f, 1e4, 0, 0, false},
      {"qwen3", 4096, 22016, 32, 32, 32, 128, 151936, 32768, 1e-6f, 1e4, 0, 0, false},
      {"gemma2", 2304, 9216, 26, 8, 4, 256, 256000, 8192, 1e-6f, 1e4, 4096, 13, true},
      {"gemma3_text", 2304, 9216, 26, 8, 4, 256, 262208, 131072, 1e-6f, 1e6, 4096, 22, true},
      {"lfm2", 2560, 8192, 32, 32, 8, 80, 65536, 128000, 1e-5f, 1e6, 0, 0, true},
  };
  for (const Expected& family : families) {
    CAPTURE(family.type);
    const ModelConfig config = Parse(family.type, "").value();
    CHECK(config.hidden_size == family.hidden);
    CHECK(config.ffn_size == family.ffn);
    CHECK(config.layers_count() == family.layers);
    CHECK(config.query_heads == family.heads);
    CHECK(config.kv_heads == family.kv);
    CHECK(config.head_dim == family.head_dim);
    CHECK(config.vocab_size == family.vocab);
    CHECK(config.max_positions == family.positions);
    CHECK(config.norm_epsilon == family.epsilon);
    CHECK(config.ropes[0].theta == family.theta);
    CHECK(config.layers[0].window == family.window);
    CHECK(SlidingLayers(config) == family.sliding);
    CHECK(config.tied_embeddings == family.tied);
  }
  CHECK(Parse("gemma2", "")->attention_softcap == 50);
  CHECK(Parse("gemma2", "")->final_softcap == 30);
  CHECK(Parse("gemma3_text", "")->attention_softcap == 0);
  CHECK(Parse("gemma3_text", "")->ropes[1].theta == 1e4);
  CHECK(Parse("qwen3", "")->eos_ids.empty());
  CHECK(Parse("gemma2", "")->eos_ids == std::vector<int32_t>{1});
  CHECK(Parse("qwen2", R"("num_key_value_heads":null,"num_attention_heads":16)")->kv_heads == 16);
}

TEST_CASE("windows follow each family's rule", "[config]") {
  const auto sliding = [](const char* type, const char* members) {
    return SlidingLayers(Parse(type, members).value());
  };
  CHECK(sliding("mistral", R"("sliding_window":null)") == 0);
  CHECK(sliding("mistral", R"("sliding_window":8)") == 32);
  CHECK(sliding("qwen2", R"("sliding_window":8)") == 0);
  CHECK(sliding("qwen2", R"("use_sliding_window":true)") == 4);
  CHECK(sliding("qwen3", R"("use_sliding_window":true,"max_window_layers":10)") == 22);
  CHECK(sliding("qwen3", R"("use_sliding_window":true,"sliding_window":null)") == 0);
  CHECK(sliding("qwen3", R"("use_sliding_window":true,"num_hidden_layers":2,
                            "layer_types":["sliding_attention","full_attention"])") == 1);
  CHECK(sliding("gemma3_text", R"("sliding_window_pattern":2)") == 13);
  CHECK(sliding("gemma2", R"("num_hidden_layers":2,
                             "layer_types":["full_attention","full_attention"])") == 0);
  std::vector<std::string> warnings;
  const ModelConfig told = Parse("mistral", R"("num_hidden_layers":2,"sliding_window":8,
      "layer_types":["full_attention","full_attention"])",
                                 &warnings)
                               .value();
  CHECK(SlidingLayers(told) == 2);
  REQUIRE(warnings.size() == 1);
  CHECK(absl::StrContains(warnings[0], "layer_types has no effect in a mistral model"));
}

TEST_CASE("each rope of a family is found in either spelling", "[config][rope]") {
  const ModelConfig older = Parse("gemma3_text", R"("rope_theta":7e5,"rope_local_base_freq":5e3,
      "rope_scaling":{"rope_type":"linear","factor":8})")
                                .value();
  REQUIRE(older.ropes.size() == 2);
  CHECK(older.ropes[0].theta == 7e5);
  CHECK(older.ropes[0].factor == 8);
  CHECK(older.ropes[1].theta == 5e3);
  CHECK(older.ropes[1].scaling == RopeParameters::Scaling::kNone);
  const ModelConfig half =
      Parse("gemma3_text", R"("rope_parameters":{"full_attention":{"rope_type":"default"}})")
          .value();
  CHECK(half.ropes[0].theta == 1e6);
  CHECK(half.ropes[1].theta == 1e4);

  const ModelConfig keyed = Parse("gemma2", R"("rope_parameters":
      {"full_attention":{"rope_theta":9},"sliding_attention":{"rope_theta":8}})")
                                .value();
  REQUIRE(keyed.ropes.size() == 2);
  CHECK(keyed.layers[0].rope == 1);
  CHECK(keyed.ropes[1].theta == 8);
  CHECK(keyed.layers[1].rope == 0);
  CHECK(keyed.ropes[0].theta == 9);
  CHECK(Parse("gemma2", R"("rope_theta":9)")->ropes.size() == 1);
  CHECK(Parse("lfm2", R"("rope_parameters":{"full_attention":{"rope_theta":9},"conv":{}})")
            ->ropes[0]
            .theta == 9);

  std::vector<std::string> warnings;
  CHECK(Parse("lfm2", R"("theta":5e5)", &warnings)->ropes[0].theta == 5e5);
  REQUIRE(warnings.size() == 1);
  CHECK(absl::StrContains(warnings[0], "theta 500000 is used, not rope_theta 1e+06"));
}

TEST_CASE("lfm2 computes its width from the one that is said", "[config]") {
  const auto width = [](const char* members) { return Parse("lfm2", members)->ffn_size; };
  CHECK(width(R"("block_ff_dim":6656)") == 4608);  // 4437 rounded up to a multiple of 256
  CHECK(width(R"("block_ff_dim":6656,"intermediate_size":100)") == 4608);
  CHECK(width(R"("intermediate_size":6656)") == 4608);
  CHECK(width(R"("block_ff_dim":6656,"block_multiple_of":1)") == 4437);
  CHECK(width(R"("block_ff_dim":6656,"block_ffn_dim_multiplier":1.3)") == 5888);
  CHECK(width(R"("block_ff_dim":6656,"block_ffn_dim_multiplier":null)") == 4437);
  CHECK(width(R"("block_ff_dim":6656,"block_auto_adjust_ff_dim":false)") == 6656);
  CHECK_FALSE(
      Parse("lfm2", R"("tie_embedding":false,"tie_word_embeddings":true)")->tied_embeddings);
}

TEST_CASE("biases are where each family may have them", "[config]") {
  const auto biases = [](const char* type, const char* members) {
    const ModelConfig config = Parse(type, members).value();
    return absl::StrCat(config.qkv_bias, config.output_bias, config.mlp_bias);
  };
  CHECK(biases("llama", R"("attention_bias":true,"mlp_bias":true)") == "111");
  CHECK(biases("qwen2", "") == "100");
  CHECK(biases("qwen3", R"("attention_bias":true)") == "110");
  CHECK(biases("gemma3_text", R"("attention_bias":true)") == "110");
  CHECK(biases("mistral", R"("attention_bias":true,"mlp_bias":true)") == "000");
}

TEST_CASE("each key of the Gemmas' maths can be said", "[config]") {
  const ModelConfig config =
      Parse("gemma2", R"("query_pre_attn_scalar":144,"attn_logit_softcapping":null,
                         "final_logit_softcapping":20.5,"hidden_act":"gelu")")
          .value();
  CHECK(config.attention_scale == static_cast<float>(1 / 12.0));
  CHECK(config.attention_softcap == 0);
  CHECK(config.final_softcap == 20.5f);
  CHECK(config.embedding_scale == 48);
}

TEST_CASE("layer_types beats full_attn_idxs, whatever layers that names", "[config]") {
  const ModelConfig config =
      Parse("lfm2", R"("num_hidden_layers":2,"layer_types":["conv","full_attention"],
                       "full_attn_idxs":[0,5,14])")
          .value();
  CHECK(config.layers[0].kind == BlockKind::kShortConvolution);
  CHECK(config.layers[1].kind == BlockKind::kAttention);
}

TEST_CASE("what no family here computes is refused by its key, in every family",
          "[config][refused]") {
  const std::pair<const char*, const char*> cases[] = {
      {R"("num_experts":8)", "num_experts is 8"},
      {R"("num_local_experts":8)", "num_local_experts is 8"},
      {R"("n_routed_experts":8)", "n_routed_experts is 8"},
      {R"("quantization_config":{"bits":4})", "quantization_config is {\"bits\":4}"},
      {R"("use_bidirectional_attention":true)", "use_bidirectional_attention is true"},
      {R"("use_qk_norm":true)", "use_qk_norm is true"},
      {R"("use_mrope":true)", "use_mrope is true"},
      {R"("clip_qkv":8)", "clip_qkv is 8"},
      {R"("logit_scale":0.5)", "logit_scale is 0.5"},
      {R"("residual_multiplier":0.5)", "residual_multiplier is 0.5"},
      {R"("no_rope_layers":[0,1])", "no_rope_layers is [0,1]"},
      {R"("partial_rotary_factor":0.5)", "partial_rotary_factor is 0.5"},
      {R"("rope_interleaved":true)", "rope_interleaved is true"},
      {R"("rope_scaling":{"full_attention":{"type":"su","short_factor":[1]},
                          "sliding_attention":{"type":"su"}})",
       "\"su\" is not known; known are default, linear, llama3, yarn, dynamic"},
      {R"("num_hidden_layers":1,"layer_types":["chunked_attention"])",
       "layer_types holds \"chunked_attention\"; layers of a"},
      {R"("architectures":["LlamaForSequenceClassification"])",
       "LlamaForSequenceClassification, no ...ForCausalLM"},
  };
  for (const char* type : {"llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "lfm2"}) {
    for (const auto& [members, says] : cases) {
      const std::string error = ErrorOf(type, members);
      CAPTURE(type, members, error);
      CHECK(absl::StrContains(error, says));
      CHECK(absl::StartsWith(error, "config.json: "));
    }
  }
}

TEST_CASE("families with experts are no families known here", "[config][refused]") {
  for (const char* type : {"qwen2_moe", "qwen3_moe", "lfm2_moe", "mixtral", "gemma3n_text"}) {
    CHECK(ErrorOf(type, "") ==
          absl::StrCat("config.json: model_type: architecture \"", type,
                       "\" is not known; known are llama, mistral, qwen2, qwen3, gemma2, "
                       "gemma3_text, lfm2"));
  }
}

TEST_CASE("a key that turns nothing on is no news", "[config]") {
  std::vector<std::string> warnings;
  CHECK(
      Parse(
          "qwen3",
          R"("num_experts":0,"use_bidirectional_attention":false,"use_mrope":false,"clip_qkv":null,
                 "attention_dropout":0.1,"torch_dtype":"bfloat16","_name_or_path":"x")",
          &warnings)
          .ok());
  CHECK(warnings.empty());
}

TEST_CASE("caps are refused outside the Gemmas and when they are no caps", "[config][refused]") {
  for (const char* type : {"llama", "mistral", "qwen2", "qwen3", "lfm2"}) {
    CAPTURE(type);
    CHECK(absl::StrContains(ErrorOf(type, R"("attn_logit_softcapping":50)"),
                            "attn_logit_softcapping is 50"));
    CHECK(ErrorOf(type, R"("attn_logit_softcapping":null)") == "no error");
  }
  CHECK(absl::StrContains(ErrorOf("gemma2", R"("attn_logit_softcapping":0)"),
                          "attn_logit_softcapping is 0 but must be a number in [0.001, 1e+06]"));
  CHECK(absl::StrContains(ErrorOf("gemma3_text", R"("final_logit_softcapping":-1)"),
                          "final_logit_softcapping is -1 but must be"));
  CHECK(absl::StrContains(ErrorOf("gemma2", R"("query_pre_attn_scalar":0)"),
                          "query_pre_attn_scalar is 0 but must be"));
}

TEST_CASE("a bad number of a family's own is named", "[config][refused]") {
  const std::tuple<const char*, const char*, const char*> cases[] = {
      {"qwen2", R"("hidden_act":"gelu")", "hidden_act is \"gelu\" but a qwen2 model has silu"},
      {"gemma2", R"("hidden_activation":"silu")",
       "hidden_activation is \"silu\" but a gemma2 model has gelu_pytorch_tanh"},
      {"qwen2", R"("num_hidden_layers":1,"layer_types":["sliding_attention"])",
       "layers of sliding_attention but no sliding_window (or use_sliding_window is not true)"},
      {"gemma2", R"("sliding_window":null)", "layers of sliding_attention but no sliding_window"},
      {"gemma2", R"("sliding_window":0)", "sliding_window is 0 but must be"},
      {"gemma3_text", R"("sliding_window_pattern":0)", "sliding_window_pattern is 0 but must be"},
      {"gemma3_text", R"("rope_local_base_freq":0)", "rope_local_base_freq is 0 but must be"},
      {"llama", R"("num_hidden_layers":1,"layer_types":["sliding_attention"])",
       "layer_types holds \"sliding_attention\"; layers of a llama model are full_attention"},
      {"lfm2", R"("full_attn_idxs":[2,32])", "full_attn_idxs holds 32 but"},
      {"lfm2", R"("full_attn_idxs":7)", "full_attn_idxs must be a list"},
      {"lfm2", R"("full_attn_idxs":[])", "none of the 32 layers is one of attention"},
      {"lfm2", R"("conv_L_cache":17)", "conv_L_cache is 17 but must be an integer in [1, 16]"},
      {"lfm2", R"("conv_bias":1)", "conv_bias is 1 but must be true or false"},
      {"lfm2", R"("block_ff_dim":1,"block_ffn_dim_multiplier":null)", "give a width of 0"},
      {"lfm2", R"("norm_eps":0)", "norm_eps is 0 but must be"},
      {"qwen3", R"("rope_scaling":{"type":"mrope","mrope_section":[16,24,24]})",
       "rope type \"mrope\" is not known; known are default, linear, llama3, yarn, dynamic"},
      {"qwen3", R"("rope_scaling":{"type":"longrope","long_factor":[1]})",
       "rope type \"longrope\" is not known"},
      {"gemma2", R"("rope_parameters":{"full_attention":{}})",
       "rope_parameters.sliding_attention is missing"},
      {"gemma2", R"("rope_parameters":{"full_attention":{},"rope_theta":5})",
       "rope_parameters has rope_theta beside layer types"},
  };
  for (const auto& [type, members, says] : cases) {
    const std::string error = ErrorOf(type, members);
    CAPTURE(type, members, error);
    CHECK(absl::StrContains(error, says));
    CHECK(absl::StartsWith(error, "config.json: "));
  }
}

TEST_CASE("a Gemma 3 that sees images is read by its text_config", "[config]") {
  const std::string text = R"("text_config":{"model_type":"gemma3_text","hidden_size":2560,
      "intermediate_size":10240,"num_hidden_layers":34,"sliding_window":1024,
      "rope_scaling":{"factor":8.0,"rope_type":"linear"}})";
  const std::string around = R"("architectures":["Gemma3ForConditionalGeneration"],
      "boi_token_index":255999,"eoi_token_index":256000,"eos_token_id":[1,106],
      "image_token_index":262144,"initializer_range":0.02,"mm_tokens_per_image":256,
      "torch_dtype":"bfloat16","transformers_version":"4.50.0.dev0",
      "vision_config":{"hidden_size":1152},)";
  std::vector<std::string> warnings;
  const ModelConfig config = Parse("gemma3", around + text, &warnings).value();
  CHECK(warnings.empty());
  CHECK(config.architecture == "gemma3_text");
  CHECK(config.hidden_size == 2560);
  CHECK(config.query_heads == 8);
  CHECK(config.vocab_size == 262208);
  CHECK(config.layers[0].window == 1024);
  CHECK(config.ropes[0].factor == 8);
  CHECK(config.eos_ids == std::vector<int32_t>{1, 106});
  CHECK(config.tied_embeddings);
  CHECK_FALSE(Parse("gemma3", text + R"(,"tie_word_embeddings":false)")->tied_embeddings);

  CHECK(absl::StrContains(ErrorOf("gemma3", ""), "config.json: text_config is missing"));
  CHECK(absl::StrContains(ErrorOf("gemma3", R"("text_config":{"hidden_size":0})"),
                          "config.json: text_config: hidden_size is 0"));
  CHECK(absl::StrContains(ErrorOf("gemma3", R"("text_config":{"model_type":"mamba"})"),
                          "config.json: text_config: model_type: architecture \"mamba\""));
  CHECK(absl::StrContains(ErrorOf("gemma3", R"("text_config":{},"quantization_config":{})"),
                          "config.json: quantization_config"));
}

}  // namespace
}  // namespace neurogrid
