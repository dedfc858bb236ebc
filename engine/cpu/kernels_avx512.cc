// The kernels in AVX-512 without its VNNI and BF16 parts: Skylake-X.
#include "engine/cpu/kernels_unit.h"

namespace neurogrid {

const Kernels kAvx512Kernels = kUnit;

}  // namespace neurogrid
