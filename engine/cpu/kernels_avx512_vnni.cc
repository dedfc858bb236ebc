// The kernels in AVX-512 with VNNI, without BF16: Cascade Lake, Ice Lake, Tiger Lake.
#include "engine/cpu/kernels_unit.h"

namespace neurogrid {

const Kernels kAvx512VnniKernels = kUnit;

}  // namespace neurogrid
