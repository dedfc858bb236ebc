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
#include "engine/model/gguf_keys.h"
#include "engine/model/layer_config.h"

namespace neurogrid {
namespace {

/// Keys after "{architecture}." that every family reads, or that have no effect.
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

bool CanSlide(const Architecture& row) {
  // Mistral's files say llama.
  return row.windows != WindowRule::kNever || row.name == "llama";
}
bool HasConvolutions(const Architecture& row) { return !row.tensors.conv_in.empty(); }
bool HasQueryScalar(const Architecture& row) { return row.defaults.query_scalar != 0; }

/// Whether a family reads `key` beyond kKnownKeys.
bool IsOwnKey(const Architecture& row, absl::string_view key) {
  if (absl::StartsWith(key, "attention.sliding_window")) {
    return CanSlide(row) &&
           (key == "attention.sliding_window" || key == "attention.sliding_window_pattern");
  }
  if (key == "attn_logit_softcapping" || key == "final_logit_softcapping") {
    return HasQueryScalar(row);
  }
  if (key == "rope.freq_base_swa") return row.defaults.local_rope_theta != 0;
  if (key == "shortconv.l_cache") return HasConvolutions(row);
  // The parts of such a file that see images are not used.
  return !row.wrapper_name.empty() &&
         (absl::StartsWith(key, "vision.") || absl::StartsWith(key, "mm."));
}

absl::Status CheckKeys(const Gguf& gguf, const Architecture& row) {
  const std::string prefix = absl::StrCat(row.gguf_name, ".");
  for (const auto& [key, value] : gguf.metadata()) {
    absl::string_view rest = key;
    if (!absl::ConsumePrefix(&rest, prefix) || IsOwnKey(row, rest)) continue;
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

/// attention.head_count_kv: a number, or one for each layer; where a family has convolutions, 0
/// marks one.
void ReadKvHeads(const Gguf& gguf, GgufKeys& keys, const Architecture& row, ModelConfig* config) {
  constexpr absl::string_view kKey = "attention.head_count_kv";
  const auto list = gguf.Integers(absl::StrCat(row.gguf_name, ".", kKey));
  if (!list.ok() || !HasConvolutions(row)) {
    config->kv_heads = static_cast<int>(keys.Uniform(kKey, 1, kHeadsMax, config->query_heads));
    return;
  }
  if ((*list)->size() != config->layers.size()) {
    return keys.Fail(kKey, absl::StrCat("has ", (*list)->size(), " numbers but there are ",
                                        config->layers.size(), " layers"));
  }
  for (size_t i = 0; i < config->layers.size(); ++i) {
    const int64_t heads = (**list)[i];
    if (heads == 0) {
      config->layers[i].kind = BlockKind::kShortConvolution;
    } else if (heads < 0 || heads > kHeadsMax) {
      return keys.Fail(kKey, absl::StrCat("holds ", heads, " but must be in [0, ", kHeadsMax, "]"));
    } else if (config->kv_heads != 0 && config->kv_heads != heads) {
      return keys.Fail(kKey, absl::StrCat("holds ", config->kv_heads, " and ", heads,
                                          ", which this architecture does not support"));
    } else {
      config->kv_heads = static_cast<int>(heads);
    }
  }
  if (config->kv_heads == 0) keys.Fail(kKey, "names no layer of attention");
}

/// Rows of the embedding. Some files of models whose table was padded still say the padded size.
void ReadVocabSize(const Gguf& gguf, GgufKeys& keys, const Architecture& row, ModelConfig* config,
                   std::vector<std::string>* warnings) {
  const Gguf::TensorInfo* embedding = gguf.FindTensor("token_embd.weight");
  std::optional<int64_t> rows;
  if (embedding != nullptr) rows = embedding->tensor.shape[0];
  int64_t size = keys.Integer("vocab_size", 1, kVocabSizeMax, rows);
  if (row.scales_embedding && rows && *rows < size) {
    warnings->push_back(absl::StrCat(gguf.path(), ": ", row.gguf_name, ".vocab_size is ", size,
                                     " but token_embd.weight has ", *rows, " rows, which count"));
    size = *rows;
  }
  if (size > kVocabSizeMax) {
    keys.Fail("vocab_size", absl::StrCat("is missing and token_embd.weight has ", size, " rows"));
    size = kVocabSizeMax;
  }
  config->vocab_size = static_cast<int>(size);
}

void ReadSizes(const Gguf& gguf, GgufKeys& keys, const Architecture& row, ModelConfig* config) {
  const auto integer = [](int64_t value) { return static_cast<int>(value); };
  config->hidden_size = integer(keys.Integer("embedding_length", 1, kHiddenSizeMax, std::nullopt));
  config->layers.resize(
      static_cast<size_t>(keys.Integer("block_count", 1, kLayersMax, std::nullopt)));
  config->ffn_size = integer(keys.Uniform("feed_forward_length", 1, kFfnSizeMax, std::nullopt));
  config->query_heads = integer(keys.Uniform("attention.head_count", 1, kHeadsMax, std::nullopt));
  ReadKvHeads(gguf, keys, row, config);
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
  config->max_positions = integer(keys.Integer("context_length", 1, kPositionsMax, std::nullopt));
  if (HasConvolutions(row)) {
    config->conv_taps = integer(keys.Integer("shortconv.l_cache", 1, kConvTapsMax, std::nullopt));
  }
}

/// attention.sliding_window_pattern: a number as in config.json, or for each layer whether it
/// slides. Without it the family's rule; Mistral's files, which say llama, mean every layer.
void ReadWindows(const Gguf& gguf, GgufKeys& keys, const Architecture& row, ModelConfig* config) {
  if (!CanSlide(row)) return;
  constexpr absl::string_view kPattern = "attention.sliding_window_pattern";
  const bool by_pattern = row.windows == WindowRule::kPattern;
  std::optional<int64_t> fallback = by_pattern ? std::nullopt : std::optional<int64_t>(0);
  if (by_pattern && row.defaults.local_rope_theta == 0) fallback = row.defaults.window;
  const int window =
      static_cast<int>(keys.Integer("attention.sliding_window", 0, kPositionsMax, fallback));
  if (window == 0) return;
  const GgufValue* found = gguf.Find(absl::StrCat(row.gguf_name, ".", kPattern));
  const std::vector<bool>* list =
      found == nullptr ? nullptr : std::get_if<std::vector<bool>>(&found->value);
  if (list != nullptr && list->size() != config->layers.size()) {
    return keys.Fail(kPattern, absl::StrCat("has ", list->size(), " values but there are ",
                                            config->layers.size(), " layers"));
  }
  if (found == nullptr && row.windows == WindowRule::kUpper) {
    return keys.Fail("attention.sliding_window",
                     absl::StrCat("is ", window, " but no ", kPattern, " says in which layers"));
  }
  const int own_pattern = by_pattern ? row.window_pattern : 0;
  const int pattern =
      list != nullptr ? 0 : static_cast<int>(keys.Integer(kPattern, 0, kLayersMax, own_pattern));
  for (size_t i = 0; i < config->layers.size(); ++i) {
    const bool slides = list != nullptr
                            ? (*list)[i]
                            : pattern == 0 || SlidesByPattern(static_cast<int>(i), pattern);
    if (slides) config->layers[i].window = window;
  }
}

/// What changes the maths of a layer beside sizes and windows.
void ReadMaths(GgufKeys& keys, const Architecture& row, ModelConfig* config) {
  config->norm_epsilon =
      static_cast<float>(keys.Number("attention.layer_norm_rms_epsilon", 1e-12, 1, std::nullopt));
  config->norm_offset = 0;  // Files with (1 + w) norms hold the sum already.
  config->norm_rounds_before_weight = row.norm_rounds_before_weight;
  config->activation = row.activation;
  const bool wide = row.gguf_wide_scale_layers == config->layers_count();
  config->attention_scale =
      AttentionScale(wide ? config->hidden_size / config->query_heads : config->head_dim);
  if (row.scales_embedding) config->embedding_scale = EmbeddingScale(config->hidden_size);
  if (!HasQueryScalar(row)) return;
  const auto cap = [&keys](absl::string_view key, double fallback) {
    return static_cast<float>(keys.Has(key) ? keys.Number(key, 1e-3, 1e6, std::nullopt) : fallback);
  };
  config->attention_softcap = cap("attn_logit_softcapping", row.defaults.attention_softcap);
  config->final_softcap = cap("final_logit_softcapping", row.defaults.final_softcap);
}

/// The file does not say which biases it has; the first layer of each kind shows it.
void FindBiases(const Gguf& gguf, const Architecture& row, ModelConfig* config) {
  const auto first_of = [&](BlockKind kind) {
    for (int i = 0; i < config->layers_count(); ++i) {
      if (config->layers[static_cast<size_t>(i)].kind == kind) return i;
    }
    return 0;
  };
  const auto has = [&gguf](int layer, absl::string_view part) {
    return gguf.FindTensor(absl::StrCat("blk.", layer, ".", part, ".bias")) != nullptr;
  };
  const int attention = first_of(BlockKind::kAttention);
  config->qkv_bias = row.qkv_bias || has(attention, "attn_q");
  config->output_bias = has(attention, "attn_output");
  config->conv_bias = has(first_of(BlockKind::kShortConvolution), "shortconv.conv");
  config->mlp_bias = has(0, "ffn_up");
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

absl::StatusOr<RopeParameters> ReadRope(const Gguf& gguf, GgufKeys& keys,
                                        const ModelConfig& config) {
  RopeParameters rope;
  rope.theta = keys.Number("rope.freq_base", kRopeThetaMin, kRopeThetaMax, 10000.0);
  // A factor without a type is linear to those who write such files.
  const std::string type =
      keys.String("rope.scaling.type", keys.Has("rope.scaling.factor") ? "linear" : "none");
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
  GgufKeys keys(gguf, "tokenizer.ggml.");
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
  GgufKeys keys(gguf, "general.sampling.");
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
  NG_RETURN_IF_ERROR(CheckKeys(gguf, row));

  ModelConfig config;
  config.architecture = std::string(row.name);
  GgufKeys keys(gguf, name + ".");
  ReadSizes(gguf, keys, row, &config);
  ReadVocabSize(gguf, keys, row, &config, warnings);
  ReadWindows(gguf, keys, row, &config);
  ReadMaths(keys, row, &config);
  NG_RETURN_IF_ERROR(keys.status());
  config.tied_embeddings = gguf.FindTensor("output.weight") == nullptr;
  FindBiases(gguf, row, &config);
  NG_ASSIGN_OR_RETURN(const RopeParameters rope, ReadRope(gguf, keys, config));
  RopeParameters local = rope;
  if (row.defaults.local_rope_theta != 0) {
    local = RopeParameters();  // without the scaling of the others
    local.theta = keys.Number("rope.freq_base_swa", kRopeThetaMin, kRopeThetaMax,
                              row.defaults.local_rope_theta);
    NG_RETURN_IF_ERROR(keys.status());
  }
  AssignRopes(rope, local, &config);
  NG_RETURN_IF_ERROR(ReadTokenIds(gguf, &config));
  NG_RETURN_IF_ERROR(ReadSampling(gguf, &config.generation));
  NG_RETURN_IF_ERROR(CheckModelConfig(config, gguf.path()));
  const bool slides = config.layers[0].window > 0;
  if (row.name == "llama" && config.kv_heads < config.query_heads && config.vocab_size == 32000 &&
      !slides && config.max_positions == 32768) {
    warnings->push_back(
        absl::StrCat(gguf.path(),
                     ": if this is Mistral 7B v0.1, its attention window of 4096 tokens is not "
                     "recorded in GGUF files: answers past it differ from the original's"));
  }
  return config;
}

}  // namespace neurogrid
