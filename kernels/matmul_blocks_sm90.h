// Products of more rows with blocks on sm_90a: the bits of the other kernels, by wgmma.
//
// A block is two warpgroups that multiply 64 outputs each by 64 or 128 rows, a thread that copies
// activations, and three warps that sum them where a type has minimums. Each warp loads the codes
// of its own 16 outputs straight into registers, one chunk ahead, and widens a group while the
// tensor core multiplies the one before. Slices meet in shared memory. Bound by the tensor core
// and, nearly as much, by the fma that every sum takes for every group.
#pragma once

#include "kernels/matmul.h"

namespace neurogrid::kernels {

/// Whether the device has these kernels and they can read x and w.
bool BlocksSm90Takes(const MatMulOperands& operands, const Weights& w);
cudaError_t MatMulBlocksSm90(const MatMulOperands& operands, const Weights& w, cudaStream_t stream);
/// For tests. `tall`: 128 rows at a time, or 64.
cudaError_t MatMulBlocksSm90By(bool tall, const MatMulOperands& operands, const Weights& w,
                               cudaStream_t stream);

}  // namespace neurogrid::kernels
