// The last step of packing weights: rows of floats become a panel.
#pragma once

#include <cstdint>

#include "engine/cpu/packed_matrix.h"

namespace neurogrid {

/// Writes 64 rows of `inputs` floats, which are overwritten, as one panel of any format but
/// kGroups, and the scales of its outputs where there are any. A row with a value that is not
/// finite gets the scale NaN and zeros. The panel holds zeros: where inputs end within a step, the
/// rest stays so.
void FillPanel(PackedMatrix::Format format, float* rows, int64_t inputs, uint8_t* panel,
               float* scales);

}  // namespace neurogrid
