// Operands of ops as kernels take them.
#pragma once

#include "engine/ops.h"
#include "kernels/rms_norm.h"

namespace neurogrid {

inline kernels::NormParameters ParametersOf(const Norm& norm) {
  return {norm.weight.as<float>(), norm.epsilon, norm.rounds_before_weight};
}

inline int RowsOf(ConstTensor x) { return static_cast<int>(x.shape[0]); }
inline int ColumnsOf(ConstTensor x) { return static_cast<int>(x.shape[1]); }

}  // namespace neurogrid
