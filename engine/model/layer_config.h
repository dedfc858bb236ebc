// What differs from layer to layer: kind, window, and the rope that goes with it.
#pragma once

#include <string>
#include <vector>

#include "common/json.h"
#include "common/status.h"
#include "engine/model/architecture.h"
#include "engine/model/model_config.h"

namespace neurogrid {

/// Fills `config->layers`, which has its length, and `config->ropes` from a config.json (models.md
/// 1.2). layer_types beats the patterns, except where the reference does not read it. Layers
/// without a window come first in `ropes`; equal ropes are one.
absl::Status ReadLayers(const Json& root, const std::string& file, const Architecture& row,
                        ModelConfig* config, std::vector<std::string>* warnings);

/// The window rule kPattern: layer i slides unless (i + 1) mod pattern is 0.
bool SlidesByPattern(int layer, int pattern);

/// The rope index of each layer of attention: `full` is that of layers without a window, `sliding`
/// of those with one. Layers of neither kind take the first.
void AssignRopes(const RopeParameters& full, const RopeParameters& sliding, ModelConfig* config);

}  // namespace neurogrid
