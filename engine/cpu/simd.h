// Sixteen lanes in the instructions the including file is compiled for. The one place that asks the
// compiler: kernels_avx2.cc and kernels_avx512.cc differ in their flags alone.
#pragma once

#ifdef __AVX512BF16__
#include "engine/cpu/vec_avx512.h"
#else
#include "engine/cpu/vec_avx2.h"
#endif
