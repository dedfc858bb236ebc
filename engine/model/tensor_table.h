// Which tensors a config implies, with their shapes (models.md 1.3).
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/tensor.h"
#include "engine/model/architecture.h"
#include "engine/model/model_config.h"

namespace neurogrid {

struct ExpectedTensor {
  std::string name;
  Shape shape;
};

/// The tensors of one layer, by its kind. Biases are there as the config says.
std::vector<ExpectedTensor> LayerTensors(const Architecture& row, const ModelConfig& config,
                                         int layer);

/// Embedding, final norm, and the head unless it is tied.
std::vector<ExpectedTensor> OuterTensors(const Architecture& row, const ModelConfig& config);

/// "blk.3.attn_q.weight" as "model.layers.3.self_attn.q_proj.weight" (models.md 3.3); empty for a
/// name that the architecture does not have.
std::string TranslateGgufName(const Architecture& row, absl::string_view name);

/// The inverse, of a name of the table.
std::string GgufNameOf(const Architecture& row, absl::string_view name);

}  // namespace neurogrid
