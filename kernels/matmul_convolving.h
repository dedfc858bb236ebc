// y = x w^T, whose outputs are B, C and U of a short convolution, and the convolution of y's rows,
// each a sequence's only one: in one kernel, with the bits of MatMul and ShortConvolution.
//
// A block has 16 channels of each of the three and up to 64 rows, so what it has summed is all that
// it needs to convolve, but for what earlier steps left in slots, which is there before the
// predecessor has ended: one kernel less between two products. Bound by the weights' bytes.
#pragma once

#include "kernels/matmul.h"
#include "kernels/short_convolution.h"

namespace neurogrid::kernels {

/// next.bcu is operands.y, chunks [operands.rows] of one row each, inputs of the step. Only where
/// MatMulConvolves says so, else InvalidValue; it says so on sm_90 alone.
struct ConvolvingOperands {
  MatMulOperands product;
  ConvolutionOperands<__nv_bfloat16> next;
  const ConvolutionChunk* chunks;
};

bool MatMulConvolves(const ConvolvingOperands& operands, const Weights& w);
cudaError_t ConvolvingMatMul(const ConvolvingOperands& operands, const Weights& w,
                             cudaStream_t stream);

}  // namespace neurogrid::kernels
