// Sixteen lanes in the instructions the including file is compiled for. The one place that asks the
// compiler: kernels_avx2.cc and its neighbours differ in their flags alone.
#pragma once

#ifdef __AVX512F__
#include "engine/cpu/vec_avx512.h"
#else
#include "engine/cpu/vec_avx2.h"
#endif

namespace neurogrid {
namespace {

#if defined(__AVX512BF16__)
using Simd = Avx512Lanes<PairDotsByBf16, IntDotsByVnni>;
#elif defined(__AVX512VNNI__)
using Simd = Avx512Lanes<PairDotsByFma, IntDotsByVnni>;
#elif defined(__AVX512F__)
using Simd = Avx512Lanes<PairDotsByFma, IntDotsByWords>;
#elif defined(__AVXVNNI__)
using Simd = Avx2Lanes<IntDotsByVnni>;
#else
using Simd = Avx2Lanes<IntDotsByWords>;
#endif

}  // namespace
}  // namespace neurogrid
