// config.json and generation_config.json to ModelConfig, in every spelling of models.md 1.2.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/json.h"
#include "common/status.h"
#include "engine/model/architecture.h"
#include "engine/model/model_config.h"

namespace neurogrid {

/// `root` is the text of the file `file`, which errors name together with the field. A missing key
/// means the family's default. Keys of families, quantisations and code that are not understood are
/// refused by name. Things to tell the operator are appended to `warnings`.
absl::StatusOr<ModelConfig> ParseModelConfig(const Json& root, const std::string& file,
                                             std::vector<std::string>* warnings);

/// Adds the end tokens of generation_config.json and takes its sampling defaults.
absl::Status ApplyGenerationConfig(const Json& root, const std::string& file, ModelConfig* config);

/// config.json and, where present, generation_config.json of a folder.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& folder,
                                            std::vector<std::string>* warnings);

/// The rope of the layers of one type, "full_attention" or "sliding_attention" (models.md 1.2,
/// RoPE). `root` is the object that holds the model's numbers.
absl::StatusOr<RopeParameters> ParseRope(const Json& root, const std::string& file,
                                         absl::string_view layer_type, const Architecture& row,
                                         int max_positions, std::vector<std::string>* warnings);

/// scalar^-1/2, the factor of attention scores: the scalar is head_dim or a number of the config.
float AttentionScale(double scalar);
/// hidden_size^1/2, not yet rounded to the dtype of the activations.
float EmbeddingScale(int hidden_size);

/// What every source of a config must fulfil beyond the range of each number; `where` opens errors.
absl::Status CheckModelConfig(const ModelConfig& config, const std::string& where);

/// Adds an end token, keeping the list ascending and without repeats.
void AddEosId(int32_t id, ModelConfig* config);

}  // namespace neurogrid
