#include "engine/model/config_gguf.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/limits.h"
#include "engine/model/architecture.h"
#include "engine/model/config_json.h"
#include "engine/model/dequantize.h"

namespace neurogrid {
namespace {

/// Keys after "{architecture}." that are read or have no effect.
constexpr absl::string_view kKnownKeys[] = {"context_length",
                                            "embedding_length",
                                            "block_count",
                                            "feed_forward_length",
                                            "vocab_size",
                                            "attention.head_count",
                                            "attention.head_count_kv",
                                            "attention.key_length",
                                            "attention.value_length",
                                            "attention.layer_norm_rms_epsilon",
                                            "attention.sliding_window",
                                            "rope.dimension_count",
                                            "rope.freq_base",
                                            "rope.scaling.type",
                                            "rope.scaling.factor",
                                            "rope.scaling.original_context_length",
                                            "rope.scaling.attn_factor",
                                            "rope.scaling.yarn_beta_fast",
                                            "rope.scaling.yarn_beta_slow",
                                            "rope.scaling.finetuned",
                                            "tensor_data_layout"};

/// Spellings of control tokens that end a turn or a text (models.md 3.6).
constexpr absl::string_view kEndSpellings[] = {"<|eot_id|>",
                                               "<|im_end|>",
                                               "<|end|>",
                                               "<end_of_turn>",
                                               "<|endoftext|>",
                                               "<|eom_id|>",
                                               "<|end_of_text|>",
                                               "</s>",
                                               "<eos>",
                                               "<\xef\xbd\x9c"
                                               "end\xe2\x96\x81of\xe2\x96\x81sentence"
                                               "\xef\xbd\x9c>"};
constexpr int64_t kControlToken = 3;

/// Reads key after key and keeps the first error, as ConfigFields does for JSON.
class Keys {
 public:
  Keys(const Gguf& gguf, absl::string_view prefix) : gguf_(gguf), prefix_(prefix) {}

  bool Has(absl::string_view key) const {
    return gguf_.Find(absl::StrCat(prefix_, key)) != nullptr;
  }

  int64_t Integer(absl::string_view key, int64_t min, int64_t max,
                  std::optional<int64_t> fallback) {
    return InRange(key, fallback, min, max, gguf_.Integer(absl::StrCat(prefix_, key)));
  }
  double Number(absl::string_view key, double min, double max, std::optional<double> fallback) {
    return InRange(key, fallback, min, max, gguf_.Number(absl::StrCat(prefix_, key)));
  }
  /// An integer, or an array of one for each layer which must all be the same.
  int64_t Uniform(absl::string_view key, int64_t min, int64_t max, std::optional<int64_t> fallback);
  std::string String(absl::string_view key, std::string fallback);

  void Fail(absl::string_view key, absl::string_view what) {
    status_.Update(
        absl::InvalidArgumentError(absl::StrCat(gguf_.path(), ": ", prefix_, key, " ", what)));
  }
  const absl::Status& status() const { return status_; }

 private:
  template <typename T>
  T InRange(absl::string_view key, std::optional<T> fallback, T min, T max,
            const absl::StatusOr<T>& found) {
    if (absl::IsNotFound(found.status()) && fallback) return *fallback;
    if (!found.ok()) {
      status_.Update(found.status());
      return min;
    }
    if (*found >= min && *found <= max) return *found;
    Fail(key, absl::StrCat("is ", *found, " but must be in [", min, ", ", max, "]"));
    return min;
  }

  const Gguf& gguf_;
  std::string prefix_;
  absl::Status status_;
};

int64_t Keys::Uniform(absl::string_view key, int64_t min, int64_t max,
                      std::optional<int64_t> fallback) {
  const auto list = gguf_.Integers(absl::StrCat(prefix_, key));
  if (!list.ok()) return Integer(key, min, max, fallback);
  const std::vector<int64_t>& values = **list;
  const bool equal =
      !values.empty() && std::equal(values.begin() + 1, values.end(), values.begin());
  if (!equal) {
    Fail(key, "differs between layers, which this architecture does not support");
    return min;
  }
  return InRange<int64_t>(key, std::nullopt, min, max, values[0]);
}

std::string Keys::String(absl::string_view key, std::string fallback) {
  absl::StatusOr<std::string> found = gguf_.String(absl::StrCat(prefix_, key));
  if (absl::IsNotFound(found.status())) return fallback;
  status_.Update(found.status());
  return found.ok() ? *std::move(found) : fallback;
}

absl::Status CheckKeys(const Gguf& gguf, const std::string& prefix) {
  for (const auto& [key, value] : gguf.metadata()) {
    absl::string_view rest = key;
    if (!absl::ConsumePrefix(&rest, prefix)) continue;
    if (std::find(std::begin(kKnownKeys), std::end(kKnownKeys), rest) != std::end(kKnownKeys)) {
      continue;
    }
    const int64_t* number = std::get_if<int64_t>(&value.value);
    const bool counts_experts = absl::StartsWith(rest, "expert_");
    if (counts_experts && number != nullptr && *number == 0) continue;
    return absl::UnimplementedError(
        absl::StrCat(gguf.path(), ": ", key.substr(0, 200),
                     counts_experts ? ": models with experts are not supported" : " is not known"));
  }
  return absl::OkStatus();
}

void ReadSizes(const Gguf& gguf, Keys& keys, ModelConfig* config) {
  const auto integer = [](int64_t value) { return static_cast<int>(value); };
  config->hidden_size = integer(keys.Integer("embedding_length", 1, kHiddenSizeMax, std::nullopt));
  config->layers.resize(
      static_cast<size_t>(keys.Integer("block_count", 1, kLayersMax, std::nullopt)));
  config->ffn_size = integer(keys.Uniform("feed_forward_length", 1, kFfnSizeMax, std::nullopt));
  config->query_heads = integer(keys.Uniform("attention.head_count", 1, kHeadsMax, std::nullopt));
  config->kv_heads =
      integer(keys.Uniform("attention.head_count_kv", 1, kHeadsMax, config->query_heads));
  if (!keys.Has("attention.key_length") && config->hidden_size % config->query_heads != 0) {
    keys.Fail("embedding_length",
              absl::StrCat("is ", config->hidden_size, ", no multiple of the attention.head_count ",
                           config->query_heads));
  }
  config->head_dim = integer(keys.Integer("attention.key_length", 1, kHeadDimMax,
                                          std::max(1, config->hidden_size / config->query_heads)));
  for (const absl::string_view key : {"attention.value_length", "rope.dimension_count"}) {
    const int64_t other = keys.Integer(key, 0, kPositionsMax, config->head_dim);
    if (other != config->head_dim) {
      keys.Fail(key, absl::StrCat("is ", other, " but must equal the attention.key_length ",
                                  config->head_dim));
    }
  }
  const Gguf::TensorInfo* embedding = gguf.FindTensor("token_embd.weight");
  std::optional<int64_t> rows;
  if (embedding != nullptr) rows = embedding->tensor.shape[0];
  config->vocab_size = integer(keys.Integer("vocab_size", 1, kVocabSizeMax, rows));
  if (config->vocab_size > kVocabSizeMax) {
    keys.Fail("vocab_size", absl::StrCat("is missing and token_embd.weight has ", *rows, " rows"));
  }
  config->max_positions = integer(keys.Integer("context_length", 1, kPositionsMax, std::nullopt));
}

/// rope_freqs.weight replaces any scaling key: f_j / rope_freqs[j] (models.md 3.2).
absl::Status ReadDivisors(const Gguf& gguf, int head_dim, RopeParameters* rope) {
  for (const absl::string_view name : {"rope_factors_long.weight", "rope_factors_short.weight"}) {
    if (gguf.FindTensor(name) != nullptr) {
      return absl::UnimplementedError(
          absl::StrCat(gguf.path(), ": tensor ", name, " (longrope) is not supported"));
    }
  }
  const Gguf::TensorInfo* info = gguf.FindTensor("rope_freqs.weight");
  if (info == nullptr) return absl::OkStatus();
  const Shape expected = {head_dim / 2};
  if (info->tensor.shape != expected || info->tensor.dtype != DType::kF32) {
    return absl::InvalidArgumentError(
        absl::StrCat(gguf.path(), ": rope_freqs.weight is ", InfoOf(info->tensor.dtype).name, " ",
                     info->tensor.shape.ToString(), " but must be F32 ", expected.ToString()));
  }
  const double theta = rope->theta;
  *rope = RopeParameters();
  rope->theta = theta;
  rope->frequency_divisors.resize(static_cast<size_t>(head_dim / 2));
  Dequantize(DType::kF32, info->tensor.data, head_dim / 2, rope->frequency_divisors.data());
  for (const float divisor : rope->frequency_divisors) {
    if (!std::isfinite(divisor) || divisor <= 0) {
      return absl::InvalidArgumentError(absl::StrCat(gguf.path(), ": rope_freqs.weight holds ",
                                                     divisor, " but must be positive"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<RopeParameters> ReadRope(const Gguf& gguf, Keys& keys, const ModelConfig& config) {
  RopeParameters rope;
  rope.theta = keys.Number("rope.freq_base", 1.0 + 1e-6, 1e15, 10000.0);
  const std::string type = keys.String("rope.scaling.type", "none");
  if (type == "linear") {
    rope.scaling = RopeParameters::Scaling::kLinear;
    rope.factor = keys.Number("rope.scaling.factor", 1e-6, 1e6, std::nullopt);
  } else if (type == "yarn") {
    rope.scaling = RopeParameters::Scaling::kYarn;
    rope.factor = keys.Number("rope.scaling.factor", 1, 1e6, std::nullopt);
    rope.original_max_positions =
        keys.Number("rope.scaling.original_context_length", 1, 1e9, config.max_positions);
    rope.beta_fast = keys.Number("rope.scaling.yarn_beta_fast", 1e-6, 1e6, 32.0);
    rope.beta_slow = keys.Number("rope.scaling.yarn_beta_slow", 1e-6, 1e6, 1.0);
    // This format's factor multiplies the computed one; config.json's replaces it.
    const double multiplier = keys.Number("rope.scaling.attn_factor", 1e-6, 1e6, 1.0);
    if (multiplier != 1.0) {
      rope.attention_factor = multiplier * (0.1 * std::log(rope.factor) + 1.0);
    }
  } else if (type != "none" && keys.status().ok()) {
    keys.Fail("rope.scaling.type",
              absl::StrCat("is \"", type.substr(0, 60), "\" but must be none, linear or yarn"));
  }
  NG_RETURN_IF_ERROR(keys.status());
  NG_RETURN_IF_ERROR(ReadDivisors(gguf, config.head_dim, &rope));
  return rope;
}

/// End tokens: the ids named by keys, and control tokens with a known spelling.
absl::Status ReadTokenIds(const Gguf& gguf, ModelConfig* config) {
  Keys keys(gguf, "tokenizer.ggml.");
  const int64_t id_max = config->vocab_size - 1;
  const bool sentencepiece = keys.String("model", "") == "llama";
  if (sentencepiece || keys.Has("bos_token_id")) {
    config->bos_id = static_cast<int32_t>(keys.Integer("bos_token_id", 0, id_max, 1));
  }
  if (sentencepiece || keys.Has("eos_token_id")) {
    AddEosId(static_cast<int32_t>(keys.Integer("eos_token_id", 0, id_max, 2)), config);
  }
  for (const absl::string_view key : {"eot_token_id", "eom_token_id"}) {
    if (!keys.Has(key)) continue;
    AddEosId(static_cast<int32_t>(keys.Integer(key, 0, id_max, std::nullopt)), config);
  }
  NG_RETURN_IF_ERROR(keys.status());
  const auto tokens = gguf.Strings("tokenizer.ggml.tokens");
  const auto types = gguf.Integers("tokenizer.ggml.token_type");
  if (!tokens.ok() || !types.ok()) return absl::OkStatus();  // The tokenizer says what it lacks.
  const size_t count =
      std::min({(*tokens)->size(), (*types)->size(), static_cast<size_t>(config->vocab_size)});
  for (size_t id = 0; id < count; ++id) {
    if ((**types)[id] != kControlToken) continue;
    const std::string& text = (**tokens)[id];
    if (std::find(std::begin(kEndSpellings), std::end(kEndSpellings), text) !=
        std::end(kEndSpellings)) {
      AddEosId(static_cast<int32_t>(id), config);
    }
  }
  return absl::OkStatus();
}

absl::Status ReadSampling(const Gguf& gguf, GenerationDefaults* defaults) {
  Keys keys(gguf, "general.sampling.");
  if (keys.Has("temp")) defaults->temperature = keys.Number("temp", 0, 100, std::nullopt);
  if (keys.Has("top_p")) defaults->top_p = keys.Number("top_p", 0, 1, std::nullopt);
  if (keys.Has("top_k")) {
    defaults->top_k = static_cast<int>(keys.Integer("top_k", -1, kVocabSizeMax, std::nullopt));
  }
  return keys.status();
}

}  // namespace

absl::StatusOr<ModelConfig> ConfigOfGguf(const Gguf& gguf, std::vector<std::string>* warnings) {
  NG_ASSIGN_OR_RETURN(const std::string name, gguf.String("general.architecture"));
  absl::StatusOr<const Architecture*> found = FindGgufArchitecture(name.substr(0, 100));
  if (!found.ok()) {
    return absl::Status(
        found.status().code(),
        absl::StrCat(gguf.path(), ": general.architecture: ", found.status().message()));
  }
  const Architecture& row = **found;
  NG_RETURN_IF_ERROR(CheckKeys(gguf, name + "."));

  ModelConfig config;
  config.architecture = std::string(row.name);
  Keys keys(gguf, name + ".");
  ReadSizes(gguf, keys, &config);
  config.norm_epsilon =
      static_cast<float>(keys.Number("attention.layer_norm_rms_epsilon", 1e-12, 1, std::nullopt));
  config.norm_offset = 0;  // Files with (1 + w) norms hold the sum already.
  config.norm_rounds_before_weight = row.norm_rounds_before_weight;
  config.activation = row.activation;
  const int window =
      static_cast<int>(keys.Integer("attention.sliding_window", 0, kPositionsMax, 0));
  for (LayerConfig& layer : config.layers) layer.window = window;
  NG_RETURN_IF_ERROR(keys.status());
  config.attention_scale = AttentionScale(config.head_dim);
  config.tied_embeddings = gguf.FindTensor("output.weight") == nullptr;
  config.qkv_bias = gguf.FindTensor("blk.0.attn_q.bias") != nullptr;
  config.output_bias = gguf.FindTensor("blk.0.attn_output.bias") != nullptr;
  config.mlp_bias = gguf.FindTensor("blk.0.ffn_up.bias") != nullptr;
  NG_ASSIGN_OR_RETURN(RopeParameters rope, ReadRope(gguf, keys, config));
  config.ropes.push_back(std::move(rope));
  NG_RETURN_IF_ERROR(ReadTokenIds(gguf, &config));
  NG_RETURN_IF_ERROR(ReadSampling(gguf, &config.generation));
  NG_RETURN_IF_ERROR(CheckModelConfig(config, gguf.path()));
  if (config.kv_heads < config.query_heads && config.vocab_size == 32000 && window == 0 &&
      config.max_positions == 32768) {
    warnings->push_back(
        absl::StrCat(gguf.path(),
                     ": if this is Mistral 7B v0.1, its attention window of 4096 tokens is not "
                     "recorded in GGUF files: answers past it differ from the original's"));
  }
  return config;
}

}  // namespace neurogrid
