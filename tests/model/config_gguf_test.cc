// The numbers of GGUF keys for each family, and what is refused.
#include "engine/model/config_gguf.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "tests/support/golden.h"
#include "tests/support/model_files.h"

namespace neurogrid {
namespace {

constexpr uint32_t kBool = 7;
constexpr uint32_t kArray = 9;
constexpr uint32_t kI32 = 5;

/// The keys of a model of hidden 64 and heads of 16, all of which a case may add to.
struct Keys {
  std::string name;
  GgufWriter writer;

  explicit Keys(const std::string& architecture, uint32_t layers = 4, uint32_t heads = 4)
      : name(architecture) {
    writer.Text("general.architecture", name);
    U32("context_length", 64).U32("embedding_length", 64).U32("block_count", layers);
    U32("feed_forward_length", 96).U32("attention.head_count", heads).U32("vocab_size", 32);
    F32("attention.layer_norm_rms_epsilon", 1e-5f);
  }
  Keys& U32(const std::string& key, uint32_t value) {
    writer.U32(name + "." + key, value);
    return *this;
  }
  Keys& F32(const std::string& key, float value) {
    writer.F32(name + "." + key, value);
    return *this;
  }
  Keys& Text(const std::string& key, const std::string& value) {
    writer.Text(name + "." + key, value);
    return *this;
  }
  Keys& List(const std::string& key, const std::vector<int32_t>& values) {
    std::string items;
    for (const int32_t value : values) items += Bytes(value);
    writer.Key(name + "." + key, kArray,
               Bytes(kI32) + Bytes(static_cast<uint64_t>(values.size())) + items);
    return *this;
  }
  Keys& Bools(const std::string& key, const std::string& values) {
    writer.Key(name + "." + key, kArray,
               Bytes(kBool) + Bytes(static_cast<uint64_t>(values.size())) + values);
    return *this;
  }

  absl::StatusOr<ModelConfig> Parse(std::vector<std::string>* warnings = nullptr) const {
    const TemporaryFolder folder;
    const auto gguf = Gguf::Open(folder.Write("m.gguf", writer.File())).value();
    std::vector<std::string> ignored;
    return ConfigOfGguf(*gguf, warnings != nullptr ? warnings : &ignored);
  }
  std::string Error() const {
    const absl::StatusOr<ModelConfig> config = Parse();
    return config.ok() ? "no error" : std::string(config.status().message());
  }
};

std::vector<int> WindowsOf(const ModelConfig& config) {
  std::vector<int> windows;
  for (const LayerConfig& layer : config.layers) windows.push_back(layer.window);
  return windows;
}

TEST_CASE("Gemma files leave pattern, caps and local rope to the reader", "[gguf][config]") {
  const ModelConfig gemma2 = Keys("gemma2").Parse().value();
  CHECK(WindowsOf(gemma2) == std::vector<int>{4096, 0, 4096, 0});
  CHECK(gemma2.attention_softcap == 50);
  CHECK(gemma2.final_softcap == 30);
  CHECK(gemma2.activation == Activation::kGeluTanh);
  CHECK(gemma2.embedding_scale == 8);
  CHECK(gemma2.attention_scale == 0.25f);
  CHECK(gemma2.norm_offset == 0);
  CHECK(gemma2.ropes.size() == 1);
  const ModelConfig told = Keys("gemma2")
                               .F32("attn_logit_softcapping", 5)
                               .F32("final_logit_softcapping", 3)
                               .U32("attention.sliding_window", 8)
                               .Parse()
                               .value();
  CHECK(told.attention_softcap == 5);
  CHECK(told.final_softcap == 3);
  CHECK(WindowsOf(told) == std::vector<int>{8, 0, 8, 0});

  const ModelConfig gemma3 = Keys("gemma3", 7)
                                 .U32("attention.sliding_window", 8)
                                 .F32("rope.freq_base", 1e6f)
                                 .Text("rope.scaling.type", "linear")
                                 .F32("rope.scaling.factor", 8)
                                 .Parse()
                                 .value();
  CHECK(WindowsOf(gemma3) == std::vector<int>{8, 8, 8, 8, 8, 0, 8});
  CHECK(gemma3.attention_softcap == 0);
  CHECK(gemma3.final_softcap == 0);
  REQUIRE(gemma3.ropes.size() == 2);
  CHECK(gemma3.ropes[0].factor == 8);
  CHECK(gemma3.ropes[1].theta == 10000);
  CHECK(gemma3.ropes[1].scaling == RopeParameters::Scaling::kNone);
  CHECK(gemma3.layers[0].rope == 1);
  CHECK(gemma3.layers[5].rope == 0);
  const ModelConfig other = Keys("gemma3")
                                .U32("attention.sliding_window", 8)
                                .F32("rope.freq_base", 1e6f)
                                .F32("rope.freq_base_swa", 500)
                                .U32("attention.sliding_window_pattern", 3)
                                .Parse()
                                .value();
  CHECK(WindowsOf(other) == std::vector<int>{8, 8, 0, 8});
  CHECK(other.ropes[1].theta == 500);
}

TEST_CASE("the largest Gemmas scale queries by hidden / heads, the others by the head",
          "[gguf][config]") {
  const auto scale = [](const char* name, uint32_t layers) {
    return Keys(name, layers)
        .U32("attention.sliding_window", 8)
        .U32("attention.key_length", 64)
        .U32("attention.value_length", 64)
        .Parse()
        ->attention_scale;
  };
  CHECK(scale("gemma2", 46) == 0.25f);
  CHECK(scale("gemma2", 42) == 0.125f);
  CHECK(scale("gemma3", 62) == 0.25f);
  CHECK(scale("gemma3", 46) == 0.125f);
}

TEST_CASE("a window says in which layers, or is refused", "[gguf][config]") {
  const auto windows = [](const Keys& keys) { return WindowsOf(keys.Parse().value()); };
  CHECK(windows(Keys("llama").U32("attention.sliding_window", 8)) == std::vector<int>(4, 8));
  CHECK(windows(Keys("qwen3").U32("attention.sliding_window", 0)) == std::vector<int>(4, 0));
  CHECK(windows(Keys("qwen3")
                    .U32("attention.sliding_window", 8)
                    .Bools("attention.sliding_window_pattern", std::string("\0\0\1\1", 4))) ==
        std::vector<int>{0, 0, 8, 8});
  CHECK(absl::StrContains(Keys("qwen2").U32("attention.sliding_window", 8).Error(),
                          "qwen2.attention.sliding_window is 8 but no "
                          "attention.sliding_window_pattern says in which layers"));
  CHECK(absl::StrContains(
      Keys("gemma2").Bools("attention.sliding_window_pattern", std::string("\0\1", 2)).Error(),
      "attention.sliding_window_pattern has 2 values but there are 4 layers"));
  CHECK(absl::StrContains(Keys("gemma3").Error(), "gemma3.attention.sliding_window is missing"));
  CHECK(absl::StrContains(Keys("lfm2").U32("attention.sliding_window", 8).Error(),
                          "lfm2.attention.sliding_window is not known"));
}

TEST_CASE("in lfm2 files no key-value heads mark a convolution", "[gguf][config]") {
  const ModelConfig config = Keys("lfm2")
                                 .List("attention.head_count_kv", {0, 2, 0, 2})
                                 .U32("shortconv.l_cache", 3)
                                 .Parse()
                                 .value();
  CHECK(config.kv_heads == 2);
  CHECK(config.layers[0].kind == BlockKind::kShortConvolution);
  CHECK(config.layers[1].kind == BlockKind::kAttention);
  CHECK(config.conv_taps == 3);
  const auto error = [](const std::vector<int32_t>& heads) {
    return Keys("lfm2").List("attention.head_count_kv", heads).U32("shortconv.l_cache", 3).Error();
  };
  CHECK(absl::StrContains(error({0, 2, 0}), "has 3 numbers but there are 4 layers"));
  CHECK(absl::StrContains(error({0, 2, 0, 4}), "holds 2 and 4"));
  CHECK(absl::StrContains(error({0, 2, 0, -1}), "holds -1 but must be in [0, 1024]"));
  CHECK(absl::StrContains(error({0, 0, 0, 0}), "names no layer of attention"));
  CHECK(absl::StrContains(Keys("lfm2").List("attention.head_count_kv", {0, 2, 0, 2}).Error(),
                          "lfm2.shortconv.l_cache is missing"));
  CHECK(absl::StrContains(Keys("lfm2").U32("shortconv.l_cache", 17).Error(),
                          "lfm2.shortconv.l_cache is 17 but must be in [1, 16]"));
  CHECK(absl::StrContains(Keys("llama").List("attention.head_count_kv", {0, 2, 0, 2}).Error(),
                          "llama.attention.head_count_kv differs between layers"));
}

TEST_CASE("scaling keys mean what their writers mean", "[gguf][config][rope]") {
  const auto rope = [](const Keys& keys) { return keys.Parse()->ropes[0]; };
  CHECK(rope(Keys("qwen2")).theta == 10000);
  const RopeParameters linear = rope(Keys("llama").F32("rope.scaling.factor", 4));
  CHECK(linear.scaling == RopeParameters::Scaling::kLinear);
  CHECK(linear.factor == 4);
  const RopeParameters yarn = rope(Keys("qwen3")
                                       .Text("rope.scaling.type", "yarn")
                                       .F32("rope.scaling.factor", 4)
                                       .U32("rope.scaling.original_context_length", 16)
                                       .F32("rope.scaling.yarn_beta_fast", 16)
                                       .F32("rope.scaling.attn_factor", 2));
  CHECK(yarn.scaling == RopeParameters::Scaling::kYarn);
  CHECK(yarn.original_max_positions == 16);
  CHECK(yarn.beta_fast == 16);
  CHECK(yarn.beta_slow == 1);
  CHECK(yarn.attention_factor == 2 * (0.1 * std::log(4.0) + 1));
  CHECK(absl::StrContains(Keys("llama").Text("rope.scaling.type", "longrope").Error(),
                          "llama.rope.scaling.type is \"longrope\""));
}

TEST_CASE("rope_freqs.weight divides the frequencies and replaces a scaling key",
          "[gguf][config][rope]") {
  const auto keys = [](const std::string& tensor, const std::vector<float>& values) {
    Keys with("llama");
    with.F32("rope.freq_base", 5e5f).F32("rope.scaling.factor", 4);
    std::string data;
    for (const float value : values) data += Bytes(value);
    with.writer.Tensor(tensor, {values.size()}, 0, data);
    return with;
  };
  const std::vector<float> divisors = {1, 1, 1, 1, 1.5f, 2, 4, 8};  // of heads of 16
  const RopeParameters rope = keys("rope_freqs.weight", divisors).Parse()->ropes[0];
  CHECK(rope.theta == 5e5);
  CHECK(rope.scaling == RopeParameters::Scaling::kNone);
  CHECK(rope.frequency_divisors == divisors);
  CHECK(absl::StrContains(keys("rope_freqs.weight", {1, 1}).Error(),
                          "rope_freqs.weight is F32 [2] but must be F32 [8]"));
  CHECK(absl::StrContains(keys("rope_freqs.weight", {1, 1, 1, 1, 0, 1, 1, 1}).Error(),
                          "rope_freqs.weight holds 0 but must be positive"));
  CHECK(absl::StrContains(keys("rope_factors_long.weight", divisors).Error(),
                          "tensor rope_factors_long.weight (longrope) is not supported"));
}

TEST_CASE("a bad number of a GGUF key is named with its range", "[gguf][config]") {
  const std::pair<Keys, const char*> cases[] = {
      {Keys("gemma2").F32("attn_logit_softcapping", 0), "gemma2.attn_logit_softcapping is 0 but"},
      {Keys("gemma2").F32("final_logit_softcapping", -3),
       "gemma2.final_logit_softcapping is -3 but"},
      {Keys("llama").F32("attn_logit_softcapping", 50),
       "llama.attn_logit_softcapping is not known"},
      {Keys("qwen3").U32("rope.freq_base_swa", 50), "qwen3.rope.freq_base_swa is not known"},
      {Keys("qwen3").U32("expert_count", 8), "qwen3.expert_count: models with experts"},
      {Keys("gemma3").U32("shortconv.l_cache", 3), "gemma3.shortconv.l_cache is not known"},
      {Keys("llama", 4, 3), "llama.embedding_length is 64, no multiple"},
      {Keys("mamba"),
       "architecture \"mamba\" is not known; known are llama, qwen2, qwen3, gemma2, gemma3, lfm2"},
  };
  for (const auto& [keys, says] : cases) {
    const std::string error = keys.Error();
    CAPTURE(says, error);
    CHECK(absl::StrContains(error, says));
    CHECK(absl::StrContains(error, "m.gguf: "));
  }
}

TEST_CASE("keys and padding of the parts that see images change nothing", "[gguf][config]") {
  std::vector<std::string> warnings;
  Keys keys("gemma3");
  keys.U32("attention.sliding_window", 8).U32("vision.block_count", 27).U32("mm.tokens", 256);
  keys.writer.Tensor("token_embd.weight", {64, 30}, 0, std::string(64 * 30 * 4, '\0'));
  const ModelConfig config = keys.Parse(&warnings).value();
  CHECK(config.vocab_size == 30);
  REQUIRE(warnings.size() == 1);
  CHECK(
      absl::StrContains(warnings[0], "gemma3.vocab_size is 32 but token_embd.weight has 30 rows"));
}

TEST_CASE("a file that may be Mistral 7B v0.1 without its window says so", "[gguf][config]") {
  GgufWriter writer;
  writer.Text("general.architecture", "llama").U32("llama.context_length", 32768);
  writer.U32("llama.embedding_length", 64).U32("llama.block_count", 1);
  writer.U32("llama.feed_forward_length", 96).U32("llama.attention.head_count", 4);
  writer.U32("llama.attention.head_count_kv", 2).U32("llama.vocab_size", 32000);
  writer.F32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  const TemporaryFolder folder;
  const auto gguf = Gguf::Open(folder.Write("m.gguf", writer.File())).value();
  std::vector<std::string> warnings;
  CHECK(ConfigOfGguf(*gguf, &warnings).ok());
  REQUIRE(warnings.size() == 1);
  CHECK(absl::StrContains(warnings[0], "window of 4096 tokens is not recorded"));
}

}  // namespace
}  // namespace neurogrid
