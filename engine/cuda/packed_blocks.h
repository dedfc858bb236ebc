// From the blocks of a file to those of kernels/block_format.h: the same integers and scales in
// another order.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "kernels/block_format.h"

namespace neurogrid {

/// Of a block type of GGUF.
kernels::BlockType BlockTypeOf(DType dtype);

/// Writes row `in_tile` of a tile of zeros. The row's blocks are of type `dtype`; `type` is the
/// tile's, its own or kWide.
void PackBlocks(kernels::BlockType type, DType dtype, const uint8_t* blocks, int64_t inputs,
                int in_tile, uint8_t* tile);

}  // namespace neurogrid
