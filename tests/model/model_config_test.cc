// config.json in all its spellings, and what is refused.
#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "absl/strings/match.h"
#include "engine/model/config_json.h"
#include "tests/support/golden.h"
#include "tests/support/model_files.h"
#include "tests/support/test_data.h"

namespace neurogrid {
namespace {

absl::StatusOr<ModelConfig> Parse(const std::string& text,
                                  std::vector<std::string>* warnings = nullptr) {
  std::vector<std::string> ignored;
  return ParseModelConfig(ParseJson(text).value(), "config.json",
                          warnings != nullptr ? warnings : &ignored);
}

/// The micro config with members added or replaced.
std::string With(const std::string& members) {
  Json config = ParseJson(MicroConfig()).value();
  const Json extra = ParseJson("{" + members + "}").value();
  for (const JsonMember& member : extra.as_object()) config.Set(member.key, member.value);
  return ToString(config);
}

std::string ErrorOf(const std::string& members) {
  const absl::StatusOr<ModelConfig> config = Parse(With(members));
  return config.ok() ? "no error" : std::string(config.status().message());
}

TEST_CASE("all spellings of a config give the same numbers", "[config]") {
  for (const char* model : {"llama", "llama3-rope", "mistral-window", "nemo", "qwen2", "qwen3",
                            "qwen3-yarn", "lfm2", "lfm2-bias", "gemma2", "gemma3"}) {
    CAPTURE(model);
    std::vector<std::string> warnings;
    const std::string folder = Golden(std::string("tiny/") + model);
    const auto read = [&](const char* name) {
      const std::string file = folder + "/" + name;
      return ParseModelConfig(ReadJson(file), file, &warnings).value();
    };
    const ModelConfig config = read("config.json");
    CHECK(config == read("config.alt.json"));
    CHECK(config == read("config.sparse.json"));
    CHECK(warnings.empty());
  }
}

TEST_CASE("the numbers of the tiny configs are those of their makers", "[config]") {
  std::vector<std::string> warnings;
  const ModelConfig llama = ReadModelConfig(Golden("tiny/llama"), &warnings).value();
  CHECK(llama.architecture == "llama");
  CHECK(llama.hidden_size == 96);
  CHECK(llama.ffn_size == 160);
  CHECK(llama.layers_count() == 4);
  CHECK(llama.query_heads == 4);
  CHECK(llama.kv_heads == 2);
  CHECK(llama.head_dim == 24);
  CHECK(llama.vocab_size == 263);
  CHECK(llama.max_positions == 256);
  CHECK(llama.norm_epsilon == 1e-5f);
  CHECK(llama.attention_scale == static_cast<float>(1 / std::sqrt(24.0)));
  CHECK_FALSE(llama.tied_embeddings);
  CHECK(llama.eos_ids == std::vector<int32_t>{2, 262});
  CHECK(llama.bos_id == 1);
  CHECK(llama.generation.temperature == 0.7);
  CHECK(llama.generation.top_k == 20);
  CHECK(llama.generation.top_p == 0.9);

  const ModelConfig scaled = ReadModelConfig(Golden("tiny/llama3-rope"), &warnings).value();
  REQUIRE(scaled.ropes.size() == 1);
  const RopeParameters& rope = scaled.ropes[0];
  CHECK(rope.scaling == RopeParameters::Scaling::kLlama3);
  CHECK(rope.theta == 10000.0);
  CHECK(rope.factor == 8.0);
  CHECK(rope.low_freq_factor == 1.0);
  CHECK(rope.high_freq_factor == 4.0);
  CHECK(rope.original_max_positions == 64.0);
  CHECK(scaled.tied_embeddings);
}

ModelConfig Tiny(const std::string& name) {
  std::vector<std::string> warnings;
  return ReadModelConfig(Golden("tiny/" + name), &warnings).value();
}

std::vector<int> WindowsOf(const ModelConfig& config) {
  std::vector<int> windows;
  for (const LayerConfig& layer : config.layers) windows.push_back(layer.window);
  return windows;
}

std::string KindsOf(const ModelConfig& config) {
  std::string kinds;
  for (const LayerConfig& layer : config.layers) {
    kinds += layer.kind == BlockKind::kAttention ? 'a' : 'c';
  }
  return kinds;
}

TEST_CASE("each family's tiny model has what sets the family apart", "[config]") {
  const ModelConfig mistral = Tiny("mistral-window");
  CHECK(WindowsOf(mistral) == std::vector<int>(4, 8));
  CHECK(mistral.ropes.size() == 1);
  CHECK_FALSE(mistral.qkv_bias);

  const ModelConfig nemo = Tiny("nemo");
  CHECK(WindowsOf(nemo) == std::vector<int>(4, 0));
  CHECK(nemo.head_dim * nemo.query_heads == 128);
  CHECK(nemo.hidden_size == 96);
  CHECK(nemo.ropes[0].theta == 1e6);

  const ModelConfig qwen2 = Tiny("qwen2");
  CHECK(qwen2.qkv_bias);
  CHECK_FALSE(qwen2.output_bias);
  CHECK(WindowsOf(qwen2) == std::vector<int>(4, 0));

  const ModelConfig qwen3 = Tiny("qwen3");
  CHECK(qwen3.head_dim == 32);
  CHECK_FALSE(qwen3.qkv_bias);
  CHECK(qwen3.norm_epsilon == 1e-3f);

  const RopeParameters yarn = Tiny("qwen3-yarn").ropes[0];
  CHECK(yarn.scaling == RopeParameters::Scaling::kYarn);
  CHECK(yarn.factor == 4);
  CHECK(yarn.original_max_positions == 64);
  CHECK(yarn.beta_fast == 16);
  CHECK(yarn.beta_slow == 1);

  const ModelConfig lfm2 = Tiny("lfm2");
  CHECK(KindsOf(lfm2) == "ccacac");
  CHECK(lfm2.ffn_size == 64);  // 96 * 2 / 3, a multiple of 16 already
  CHECK(lfm2.conv_taps == 3);
  CHECK_FALSE(lfm2.conv_bias);
  CHECK(lfm2.tied_embeddings);
  const ModelConfig biased = Tiny("lfm2-bias");
  CHECK(KindsOf(biased) == "cacacc");
  CHECK(biased.conv_taps == 4);
  CHECK(biased.conv_bias);
  CHECK(biased.norm_epsilon == 1e-3f);
}

TEST_CASE("the Gemmas have caps, windows, scales and norms of their own", "[config]") {
  const ModelConfig gemma2 = Tiny("gemma2");
  CHECK(WindowsOf(gemma2) == std::vector<int>{8, 0, 8, 0});
  CHECK(gemma2.attention_softcap == 5);
  CHECK(gemma2.final_softcap == 3);
  CHECK(gemma2.attention_scale == static_cast<float>(1 / std::sqrt(20.0)));
  CHECK(gemma2.embedding_scale == static_cast<float>(std::sqrt(96.0)));
  CHECK(gemma2.activation == Activation::kGeluTanh);
  CHECK(gemma2.norm_offset == 1);
  CHECK_FALSE(gemma2.norm_rounds_before_weight);
  CHECK(gemma2.tied_embeddings);
  CHECK(gemma2.ropes.size() == 1);
  CHECK(gemma2.eos_ids == std::vector<int32_t>{1, 5});

  const ModelConfig gemma3 = Tiny("gemma3");
  CHECK(WindowsOf(gemma3) == std::vector<int>{8, 8, 8, 8, 8, 0, 8});
  CHECK(gemma3.attention_softcap == 0);
  CHECK(gemma3.final_softcap == 0);
  REQUIRE(gemma3.ropes.size() == 2);
  CHECK(gemma3.layers[5].rope == 0);
  CHECK(gemma3.layers[6].rope == 1);
  CHECK(gemma3.ropes[0].theta == 1e6);
  CHECK(gemma3.ropes[0].scaling == RopeParameters::Scaling::kLinear);
  CHECK(gemma3.ropes[0].factor == 8);
  CHECK(gemma3.ropes[1].theta == 1e4);
  CHECK(gemma3.ropes[1].scaling == RopeParameters::Scaling::kNone);
}

TEST_CASE("a missing key means the family's default", "[config]") {
  const ModelConfig config = Parse(R"({"model_type":"llama"})").value();
  CHECK(config.hidden_size == 4096);
  CHECK(config.ffn_size == 11008);
  CHECK(config.layers_count() == 32);
  CHECK(config.kv_heads == 32);
  CHECK(config.head_dim == 128);
  CHECK(config.vocab_size == 32000);
  CHECK(config.max_positions == 2048);
  CHECK(config.norm_epsilon == 1e-6f);
  CHECK(config.eos_ids == std::vector<int32_t>{2});
  CHECK(Parse(R"({"architectures":["LlamaForCausalLM"],"hidden_size":null})")->hidden_size == 4096);
  CHECK(Parse(R"({"model_type":"llama","eos_token_id":null})")->eos_ids.empty());
}

TEST_CASE("rope is found wherever it is spelled", "[config][rope]") {
  const auto rope = [](const std::string& members) { return Parse(With(members))->ropes[0]; };
  CHECK(rope(R"("rope_theta":5e5)").theta == 5e5);
  CHECK(rope(R"("rope_theta":5e5,"rope_parameters":{"rope_theta":7})").theta == 7);
  CHECK(rope(R"("rope_scaling":{"type":"linear","factor":4},"rope_parameters":{"rope_theta":7})")
            .theta == 10000);
  CHECK(rope(R"("rope_scaling":{"type":"linear","factor":4})").factor == 4);
  CHECK(rope(R"("rope_scaling":{"rope_type":"default","type":"linear"})").scaling ==
        RopeParameters::Scaling::kNone);
  CHECK(rope(R"("rope_parameters":{"full_attention":{"rope_theta":9,"rope_type":"default"},
                                   "sliding_attention":{"rope_theta":8}})")
            .theta == 9);
  const RopeParameters yarn = rope(R"("rope_scaling":{"type":"yarn","factor":4})");
  CHECK(yarn.scaling == RopeParameters::Scaling::kYarn);
  CHECK(yarn.original_max_positions == 64);
  CHECK(yarn.beta_fast == 32);
  CHECK(yarn.attention_factor == 0);
  std::vector<std::string> warnings;
  CHECK(Parse(With(R"("rope_scaling":{"type":"dynamic","factor":2})"), &warnings)->max_positions ==
        64);
  CHECK(warnings.size() == 1);
}

TEST_CASE("a bad config is refused with the field's name", "[config][U7]") {
  const std::pair<const char*, const char*> cases[] = {
      {R"("hidden_size":0)", "hidden_size is 0 but must be an integer in [1, 65536]"},
      {R"("hidden_size":"8")", "hidden_size is \"8\" but must be an integer"},
      {R"("hidden_size":8.5)", "hidden_size is 8.5"},
      {R"("num_hidden_layers":1000000000)", "num_hidden_layers is 1000000000"},
      {R"("num_attention_heads":3,"head_dim":null)", "hidden_size 8 is no multiple of num_attention_heads 3"},
      {R"("num_key_value_heads":3,"num_attention_heads":4)", "num_key_value_heads"},
      {R"("head_dim":3)", "head_dim is 3 but must be even"},
      {R"("vocab_size":-1)", "vocab_size is -1"},
      {R"("rms_norm_eps":0)", "rms_norm_eps is 0"},
      {R"("hidden_act":"gelu")", "hidden_act is \"gelu\""},
      {R"("tie_word_embeddings":1)", "tie_word_embeddings is 1 but must be true or false"},
      {R"("eos_token_id":6)", "eos_token_id is 6 but must be an id below the vocab_size 6"},
      {R"("eos_token_id":[1,"2"])", "eos_token_id is \"2\""},
      {R"("rope_theta":-1)", "rope_theta is -1"},
      {R"("rope_scaling":{"type":"longrope","factor":4})", "rope type \"longrope\" is not known"},
      {R"("rope_scaling":{"type":"linear"})", "rope_scaling: factor is missing"},
      {R"("rope_scaling":{"type":"llama3","factor":8,"low_freq_factor":4,"high_freq_factor":4,
          "original_max_position_embeddings":64})",
       "high_freq_factor 4 must be greater"},
      {R"("rope_scaling":{"type":"yarn","factor":8,"mscale":1})", "mscale is not known"},
      {R"("rope_scaling":7)", "rope_scaling must be an object"},
      {R"("rope_parameters":{"sliding_attention":{}})",
       "rope_parameters.full_attention is missing"},
      {R"("partial_rotary_factor":0.5)", "partial_rotary_factor"},
      {R"("model_type":"mamba")", "architecture \"mamba\" is not known; known are llama"},
      {R"("model_type":7)", "model_type is 7 but must be a string"},
      {R"("architectures":["LlamaForSequenceClassification"])", "no ...ForCausalLM"},
      {R"("num_local_experts":8)", "num_local_experts is 8, which changes what the model computes"},
      {R"("quantization_config":{})", "quantization_config"},
      {R"("use_bidirectional_attention":true)", "use_bidirectional_attention"},
      {R"("logit_scale":0.5)", "logit_scale"},
      {R"("embedding_multiplier":12)", "embedding_multiplier"},
      {R"("final_logit_softcapping":30)", "final_logit_softcapping"},
      {R"("layer_types":["conv"])", "layer_types holds \"conv\""},
      {R"("layer_types":[])", "layer_types must be a list"},
  };
  for (const auto& [members, says] : cases) {
    CAPTURE(members);
    const std::string error = ErrorOf(members);
    CAPTURE(error);
    CHECK(absl::StrContains(error, says));
    CHECK(absl::StartsWith(error, "config.json"));
  }
}

TEST_CASE("code named by a config is never followed", "[config][R52]") {
  std::vector<std::string> warnings;
  const auto config = Parse(With(R"("auto_map":{"AutoModelForCausalLM":"evil.Model"})"), &warnings);
  CHECK(config.ok());
  CHECK(warnings.empty());
}

TEST_CASE("an unknown key is told and changes nothing", "[config]") {
  std::vector<std::string> warnings;
  const ModelConfig config = Parse(With(R"("some_flag":true)"), &warnings).value();
  CHECK(config == Parse(MicroConfig()).value());
  REQUIRE(warnings.size() == 1);
  CHECK(warnings[0] == "config.json: some_flag is not known and has no effect");
}

TEST_CASE("generation_config.json adds end tokens and sampling defaults", "[config]") {
  ModelConfig config = Parse(MicroConfig()).value();
  const auto apply = [&](const std::string& text) {
    return ApplyGenerationConfig(ParseJson(text).value(), "generation_config.json", &config);
  };
  CHECK(apply(R"({"eos_token_id":[5,0,5],"temperature":0.6,"repetition_penalty":1.1})").ok());
  CHECK(config.eos_ids == std::vector<int32_t>{0, 2, 5});
  CHECK(config.generation.temperature == 0.6);
  CHECK(config.generation.repetition_penalty == 1.1);
  CHECK_FALSE(config.generation.top_k.has_value());
  CHECK(apply(R"({"do_sample":false,"temperature":0.6})").ok());
  CHECK(config.generation.temperature == 0.0);
  CHECK(apply(R"({"top_p":1.5})").message() ==
        "generation_config.json: top_p is 1.5 but must be a number in [0, 1]");
}

}  // namespace
}  // namespace neurogrid
