// The generated run table behind ClassOf.
#pragma once

#include <cstdint>

namespace neurogrid {

/// Ascending; run i reaches to the start of run i + 1, the last one to U+10FFFF.
extern const uint32_t kCharClassRuns[];
extern const int kCharClassRunCount;

}  // namespace neurogrid
