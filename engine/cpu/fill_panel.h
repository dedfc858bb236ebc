// The last step of packing weights: rows of floats become a panel.
#pragma once

#include <cstdint>

#include "common/dtype.h"
#include "engine/cpu/packed_matrix.h"

namespace neurogrid {

/// Writes 64 rows of `inputs` floats, which are overwritten, as one panel of any format but
/// kGroups, and the scales of its outputs where there are any. A row with a value that is not
/// finite gets the scale NaN and zeros. The panel holds zeros: where inputs end within a step, the
/// rest stays so.
void FillPanel(PackedMatrix::Format format, float* rows, int64_t inputs, uint8_t* panel,
               float* scales);

/// The same of 64 rows in bf16, which stay as they are, for kBf16.
void FillBf16Panel(const bf16* rows, int64_t inputs, uint8_t* panel);

}  // namespace neurogrid
