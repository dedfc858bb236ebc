// y = the epilogue of slices of K added in order: the end of a product whose slices several blocks
// have summed.
//
// A thread has eight outputs of a row, or eight gates and their ups. Few rows are bound by latency,
// many by the bandwidth of the L2 cache. Where y is normed next, a block has a row, as in
// rms_norm.cu, and norms what it has just stored: one kernel less between two products.
#pragma once

#include "kernels/matmul.h"

namespace neurogrid::kernels {

/// Whether SumSlices can do operands.next: a bf16 y of whole pieces of 16 bytes, rows side by side.
bool SumSlicesNorms(const MatMulOperands& operands, const Weights& w);

/// operands.slices [SlicesOf(w.packed_outputs()), rows, w.packed_outputs()]; operands.x is not
/// read. Then operands.next; InvalidValue where it cannot.
cudaError_t SumSlices(const MatMulOperands& operands, const Weights& w, cudaStream_t stream);

}  // namespace neurogrid::kernels
