// Products of more rows on sm_90a: the bits of the other kernels, by wgmma.
//
// A block is one or two warpgroups that multiply and a warp or warpgroup that copies. Chunks of
// weights and activations, boxes of 128 bytes a row, travel through one ring; weights of the first
// chunks come before the predecessor has ended. A warpgroup multiplies 64 outputs but may own only
// some of them, the others are dropped: so few outputs fill the device without cutting K further.
// Where that is not enough (2,048 outputs of 8,192 inputs) a block sums one slice alone, and
// SumSlices adds the eight, norming rows as it goes where a norm comes next. Bound by the weights'
// bytes up to about 128 rows, then by the tensor core.
#pragma once

#include "kernels/matmul.h"

namespace neurogrid::kernels {

/// Whether the device has these kernels, they can read x and w, and rows are enough for them.
bool Sm90Takes(const MatMulOperands& operands, const Weights& w);
cudaError_t MatMulSm90(const MatMulOperands& operands, const Weights& w, cudaStream_t stream);
/// Whether MatMulSm90 does operands.next too.
bool Sm90NormsNext(const MatMulOperands& operands, const Weights& w);
int64_t SliceFloatsMaxSm90(int rows);  // 0 without them

/// For tests: each shape of tile there is. InvalidValue where its slices are not those of w.
int Sm90Variants();
const char* Sm90VariantName(int variant);
bool Sm90VariantFits(int variant, const MatMulOperands& operands, const Weights& w);
cudaError_t MatMulSm90By(int variant, const MatMulOperands& operands, const Weights& w,
                         cudaStream_t stream);

}  // namespace neurogrid::kernels
