// Products of one row, each of the one before, in one kernel on sm_90: the bits of MatMul.
//
// A block for each multiprocessor. One thread copies weights through a ring of boxes that runs from
// product to product without a stop; eight warps multiply. A row between two products travels as
// words of two values and a tag, which readers ask for until the tag is the launch's: there is no
// barrier, and nothing to clear. Blocks wait for each other, so all must run at a time: one stream
// of a device may queue sequences, and no other process beside it. Bound by the weights' bytes;
// what a product's end takes to reach the next one's first tile is mostly less than the ring holds.
// bf16 alone, rows to norm of at most 2,048 values: int8 multiplies for so long, and larger
// products leave so little between them, that one kernel after the other is as fast.
#pragma once

#include <cstdint>

#include "kernels/matmul.h"

namespace neurogrid::kernels {

inline constexpr int kSequenceProductsMax = 12;

struct SequenceProduct {
  MatMulOperands operands;
  Weights weights;
};

/// Products that are queued as one.
struct ProductSequence {
  SequenceProduct at[kSequenceProductsMax];
  int count = 0;
};

/// Memory of one stream's sequences: zeros at first.
struct SequenceScratch {
  void* data = nullptr;
  int64_t bytes = 0;
};
/// Scratch for sequences whose rows have up to so many values; 0 where the device has none.
int64_t SequenceScratchBytes(int64_t values_max);

/// Whether `next` may be appended: the device has the kernel, it takes such a product, and what it
/// reads and adds to is there or made by the last one.
bool SequenceTakes(const ProductSequence& sequence, const SequenceProduct& next,
                   const SequenceScratch& scratch);
/// All of them, at least one, each taken.
cudaError_t MatMulSequence(const ProductSequence& sequence, const SequenceScratch& scratch,
                           cudaStream_t stream);

}  // namespace neurogrid::kernels
