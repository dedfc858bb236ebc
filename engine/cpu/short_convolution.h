// LFM2's short convolution with its state in slots.
#pragma once

#include "common/tensor.h"
#include "engine/batch.h"
#include "engine/cpu/cpu_context.h"
#include "engine/ops.h"

namespace neurogrid {

/// The contract of Ops::ShortConvolution; `bias` may be null. Each sequence's channels are one
/// chain in time, so bits depend on the sequence alone: not on chunks, neighbours, threads or
/// instruction set.
void ShortConvolution(const CpuContext& cpu, Tensor out, ConstTensor bcu, const float* taps,
                      const float* bias, const StateLayerView& state, const Batch& batch);

}  // namespace neurogrid
