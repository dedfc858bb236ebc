// Rows of any stored type to float32 (models.md 3.5).
#pragma once

#include <cstdint>

#include "common/dtype.h"

namespace neurogrid {

/// out[elements] from `elements` stored elements at `data`, which may lie at any address.
/// `elements` is a multiple of the type's block. F32, F16, BF16 and the block types; the same bits
/// as the reference dequantisation: products in float32 in the order written there, not fused.
void Dequantize(DType dtype, const void* data, int64_t elements, float* out);

}  // namespace neurogrid
