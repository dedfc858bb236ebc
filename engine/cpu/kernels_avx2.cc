// The kernels in AVX2 and FMA.
#include "engine/cpu/kernels_unit.h"

namespace neurogrid {

const Kernels kAvx2Kernels = kUnit;

}  // namespace neurogrid
