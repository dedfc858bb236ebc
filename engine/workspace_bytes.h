// What a stage allocates beside weights and pages, for planners that hold no device.
#pragma once

#include <cstdint>

#include "engine/model/model_config.h"
#include "engine/stage.h"

namespace neurogrid {

/// Bytes of the activations of one step within `options.limits`: the sizes that Stage::Load
/// allocates, from the same function. Allocates nothing.
int64_t StageWorkspaceBytes(const ModelConfig& config, const StageOptions& options);

/// The most that a GPU takes beside weights, caches and that workspace: tables of rotations, states
/// of split attention, inputs of steps, the sampler's scratch, recorded steps.
int64_t GpuScratchBytes(const ModelConfig& config, const BatchLimits& limits);

}  // namespace neurogrid
