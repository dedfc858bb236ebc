// The state of a softmax over part of the keys, and how two parts become one.
#pragma once

#include <cuda_runtime.h>

#include "kernels/mma.cuh"

namespace neurogrid::kernels {

inline constexpr float kLog2E = 1.44269504088896340736f;

__device__ __forceinline__ float MinusInfinity() { return __uint_as_float(0xff800000u); }

/// exp2 of maxima and outputs relative to `maximum`; a part that saw no key has the maximum minus
/// infinity, the sum and the outputs 0, and changes nothing.
struct SoftmaxPart {
  float maximum;
  float sum;
};

__device__ __forceinline__ SoftmaxPart NoKeys() { return {MinusInfinity(), 0.0f}; }

struct MergeFactors {
  float old_part;
  float new_part;
};

/// part = part merged with `next`, whose keys come after. Outputs follow by MergeOutput.
__device__ __forceinline__ MergeFactors Merge(SoftmaxPart& part, const SoftmaxPart& next) {
  const float maximum = fmaxf(part.maximum, next.maximum);
  const float base = maximum == MinusInfinity() ? 0.0f : maximum;
  const MergeFactors factors{Exp2(part.maximum - base), Exp2(next.maximum - base)};
  part.sum =
      __fadd_rn(__fmul_rn(part.sum, factors.old_part), __fmul_rn(next.sum, factors.new_part));
  part.maximum = maximum;
  return factors;
}

__device__ __forceinline__ float MergeOutput(float old_output, float new_output,
                                             const MergeFactors& factors) {
  return __fadd_rn(__fmul_rn(old_output, factors.old_part),
                   __fmul_rn(new_output, factors.new_part));
}

/// Parts without keys may have turned -0 into +0: + 0 does it everywhere.
__device__ __forceinline__ float Finished(float output, float sum) {
  return __fadd_rn(output, 0.0f) / sum;
}

}  // namespace neurogrid::kernels
