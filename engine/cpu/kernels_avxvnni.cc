// The kernels in AVX2 and FMA, with integers in AVX-VNNI: Alder Lake and its like.
#include "engine/cpu/kernels_unit.h"

namespace neurogrid {

const Kernels kAvxVnniKernels = kUnit;

}  // namespace neurogrid
