// Models made of numbers alone, for measuring speed without a download.
#pragma once

#include <memory>
#include <string>

#include "engine/model/checkpoint.h"

namespace neurogrid {

/// `what`: "llama-1b", "smollm2-135m", "lfm2.5-1.2b", "llama-3.2-1b", "llama-3.1-8b", or the path
/// of a config.json. Weights are BF16, drawn from a normal distribution of deviation 0.02 (norms are 1),
/// the same in every run. They take 2 MiB whatever the model's size: all tensors are windows into
/// one block of a prime number of elements, so that no two rows of a tensor are equal.
absl::StatusOr<std::unique_ptr<Checkpoint>> MakeSyntheticCheckpoint(const std::string& what);

}  // namespace neurogrid
