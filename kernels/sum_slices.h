// y = the epilogue of slices of K added in order: the end of a product whose slices several blocks
// have summed.
//
// A thread has eight outputs of a row, or eight gates and their ups. Few rows are bound by latency,
// many by the bandwidth of the L2 cache.
#pragma once

#include "kernels/matmul.h"

namespace neurogrid::kernels {

/// operands.slices [SlicesOf(w.packed_outputs()), rows, w.packed_outputs()]; operands.x is not
/// read.
cudaError_t SumSlices(const MatMulOperands& operands, const Weights& w, cudaStream_t stream);

}  // namespace neurogrid::kernels
