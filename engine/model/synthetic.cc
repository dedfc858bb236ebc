#include "engine/model/synthetic.h"

#include <cmath>
#include <filesystem>
#include <numbers>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/dtype.h"
#include "common/limits.h"
#include "common/mapped_file.h"
#include "common/rng.h"
#include "engine/model/checkpoint_builder.h"
#include "engine/model/config_json.h"
#include "engine/model/tensor_table.h"

namespace neurogrid {
namespace {

constexpr int64_t kBlockElements = 1'048'573;  // the largest prime below 2^20
constexpr int64_t kOnesElements = 4096;
constexpr double kDeviation = 0.02;

struct BuiltIn {
  absl::string_view name;
  absl::string_view config;  // the text of a config.json
};

constexpr BuiltIn kBuiltIns[] = {
    {"llama-1b", R"({"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 65536, "max_position_embeddings": 128000, "rms_norm_eps": 1e-5,
        "rope_theta": 1e6, "tie_word_embeddings": true})"},
    {"smollm2-135m", R"({"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536,
        "num_hidden_layers": 30, "num_attention_heads": 9, "num_key_value_heads": 3,
        "vocab_size": 49152, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
        "rope_theta": 1e5, "tie_word_embeddings": true})"},
    {"lfm2.5-1.2b", R"({"model_type": "lfm2", "hidden_size": 2048, "intermediate_size": 8192,
        "block_auto_adjust_ff_dim": false, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 65536, "max_position_embeddings": 128000,
        "norm_eps": 1e-5, "rope_theta": 1e6, "conv_L_cache": 3, "conv_bias": false,
        "full_attn_idxs": [2, 5, 8, 10, 12, 14], "tie_word_embeddings": true})"},
    {"llama-3.2-1b", R"({"model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192,
        "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        "rope_theta": 5e5, "tie_word_embeddings": true})"},
    {"llama-3.1-8b", R"({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8,
        "vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5,
        "rope_theta": 5e5, "tie_word_embeddings": false})"},
};

absl::StatusOr<std::string> ConfigText(const std::string& what) {
  for (const BuiltIn& model : kBuiltIns) {
    if (model.name == what) return std::string(model.config);
  }
  if (std::filesystem::exists(what)) return ReadSmallFile(what, kConfigBytesMax);
  return absl::NotFoundError(
      absl::StrCat("\"", what, "\" is neither a config.json nor a built-in shape; known are ",
                   absl::StrJoin(kBuiltIns, ", ", [](std::string* out, const BuiltIn& model) {
                     absl::StrAppend(out, model.name);
                   })));
}

/// A uniform number in (0, 1] from one hash.
double Uniform(uint64_t x) { return (static_cast<double>(SplitMix64(x) >> 11) + 1) * 0x1p-53; }

/// Normal numbers by Box and Muller's formula.
absl::StatusOr<Buffer> NormalBlock() {
  NG_ASSIGN_OR_RETURN(Buffer buffer, Buffer::Allocate((kBlockElements + 1) * sizeof(bf16)));
  bf16* values = buffer.as<bf16>();
  for (int64_t i = 0; i < kBlockElements; i += 2) {
    const double radius = kDeviation * std::sqrt(-2 * std::log(Uniform(static_cast<uint64_t>(i))));
    const double angle = 2 * std::numbers::pi * Uniform(static_cast<uint64_t>(i) + 1);
    values[i] = ToBf16(static_cast<float>(radius * std::cos(angle)));
    values[i + 1] = ToBf16(static_cast<float>(radius * std::sin(angle)));
  }
  return buffer;
}

absl::StatusOr<Buffer> OnesBlock() {
  NG_ASSIGN_OR_RETURN(Buffer buffer, Buffer::Allocate(kOnesElements * sizeof(bf16)));
  for (int64_t i = 0; i < kOnesElements; ++i) buffer.as<bf16>()[i] = ToBf16(1.0f);
  return buffer;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> MakeSyntheticCheckpoint(const std::string& what) {
  NG_ASSIGN_OR_RETURN(const std::string text, ConfigText(what));
  const absl::StatusOr<Json> root = ParseJson(text);
  if (!root.ok() || !root->is_object()) {
    return absl::InvalidArgumentError(absl::StrCat(what, " is no JSON object",
                                                   root.ok() ? "" : ": ",
                                                   root.ok() ? "" : root.status().message()));
  }
  std::vector<std::string> warnings;
  NG_ASSIGN_OR_RETURN(ModelConfig config, ParseModelConfig(*root, what, &warnings));
  NG_ASSIGN_OR_RETURN(const Architecture* row, FindArchitecture(config.architecture));

  std::vector<Buffer> buffers(2);
  NG_ASSIGN_OR_RETURN(buffers[0], NormalBlock());
  NG_ASSIGN_OR_RETURN(buffers[1], OnesBlock());
  WeightStore weights(what);
  uint64_t tensors = 0;
  const auto add = [&](const ExpectedTensor& tensor) {
    const bool norm = tensor.shape.rank() == 1 && !absl::EndsWith(tensor.name, ".bias");
    const void* data = buffers[norm ? 1 : 0].data();
    WeightStore::Entry entry{ConstTensor(data, DType::kBF16, tensor.shape), what};
    entry.cycle_elements = norm ? kOnesElements : kBlockElements;
    entry.cycle_start =
        norm ? 0 : static_cast<int64_t>(SplitMix64(++tensors) % uint64_t{kBlockElements});
    weights.Add(tensor.name, std::move(entry));
  };
  for (const ExpectedTensor& tensor : OuterTensors(*row, config)) add(tensor);
  for (int layer = 0; layer < config.layers_count(); ++layer) {
    for (const ExpectedTensor& tensor : LayerTensors(*row, config, layer)) add(tensor);
  }
  CheckpointBuilder builder(what);
  NG_RETURN_IF_ERROR(
      builder.AddSynthetic(std::move(config), std::move(weights), std::move(buffers)));
  return builder.Finish();
}

}  // namespace neurogrid
