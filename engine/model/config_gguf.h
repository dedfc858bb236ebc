// GGUF keys to ModelConfig (models.md 3.2 and 3.6).
#pragma once

#include <string>
#include <vector>

#include "common/status.h"
#include "engine/model/gguf.h"
#include "engine/model/model_config.h"

namespace neurogrid {

/// The numbers of the file's keys; frequency divisors from the tensor rope_freqs.weight; which
/// biases exist from the tensors of layer 0. Errors name file and key. Keys of the architecture
/// that are not understood are refused.
absl::StatusOr<ModelConfig> ConfigOfGguf(const Gguf& gguf, std::vector<std::string>* warnings);

}  // namespace neurogrid
