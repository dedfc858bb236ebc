// The epilogue of a product whose sums somebody else made: scales have no part in it, bias,
// addition and gates are those of matmul.h.
//
// One thread a pair of packed rows and row of y; bound by memory.
#pragma once

#include "kernels/matmul.h"

namespace neurogrid::kernels {

/// y = the epilogue of sums [rows, w.packed_outputs()]; operands.x is not read. bf16 weights alone.
cudaError_t FinishMatMul(const MatMulOperands& operands, const Weights& w, const float* sums,
                         cudaStream_t stream);

}  // namespace neurogrid::kernels
