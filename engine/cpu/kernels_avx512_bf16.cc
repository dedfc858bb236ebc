// The kernels in AVX-512 with BF16 and VNNI.
#include "engine/cpu/kernels_unit.h"

namespace neurogrid {

const Kernels kAvx512Bf16Kernels = kUnit;

}  // namespace neurogrid
