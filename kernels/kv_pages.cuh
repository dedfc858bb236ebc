// What the kernels that rotate heads share, so that all round and add alike. A warp has a head; its
// lanes hold pairs j = lane, lane + 32, ...: kPairs of them are enough for half a head.
#pragma once

#include "kernels/kv_pages.h"
#include "kernels/norm.cuh"
#include "kernels/simt.cuh"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {

/// The pairs of this lane: calls each(p, j) for pair j, the p-th it has.
template <int kPairs, typename Each>
__device__ __forceinline__ void ForPairs(int dim, const Each& each) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
#pragma unroll
  for (int p = 0; p < kPairs; ++p) {
    const int j = lane + p * kWarpThreads;
    if (j < dim / 2) each(p, j);
  }
}

template <int kPairs>
struct HeadAngles {
  float cosine[kPairs];
  float sine[kPairs];

  /// cosines [2, dim / 2]: of one position, its sines behind them.
  __device__ __forceinline__ HeadAngles(const float* cosines, int dim) {
    ForPairs<kPairs>(dim, [&](int p, int j) {
      cosine[p] = cosines[j];
      sine[p] = cosines[j + dim / 2];
    });
  }
};

template <int kPairs>
struct HeadWeights {
  float at[kPairs][2];

  /// weight null: none.
  __device__ __forceinline__ HeadWeights(const float* weight, int dim) {
    ForPairs<kPairs>(dim, [&](int p, int j) {
      at[p][0] = weight == nullptr ? 1.0f : weight[j];
      at[p][1] = weight == nullptr ? 1.0f : weight[j + dim / 2];
    });
  }
};

template <typename T, int kPairs>
struct HeadPairs {
  T at[kPairs][2];

  HeadPairs() = default;
  __device__ __forceinline__ HeadPairs(const T* values, int dim) {
    ForPairs<kPairs>(dim, [&](int p, int j) {
      at[p][0] = values[j];
      at[p][1] = values[j + dim / 2];
    });
  }
  /// All lanes of the warp call it.
  __device__ __forceinline__ void Norm(const HeadWeights<kPairs>& weights, const HeadNorms& norms,
                                       int dim) {
    float squares = 0;
    ForPairs<kPairs>(dim, [&](int p, int) {
      squares = fmaf(ToFloat(at[p][0]), ToFloat(at[p][0]), squares);
      squares = fmaf(ToFloat(at[p][1]), ToFloat(at[p][1]), squares);
    });
    const float factor = NormFactor(WarpSum(squares), dim, norms.epsilon);
    ForPairs<kPairs>(dim, [&](int p, int) {
      at[p][0] = Normed(at[p][0], factor, weights.at[p][0], norms.rounds_before_weight);
      at[p][1] = Normed(at[p][1], factor, weights.at[p][1], norms.rounds_before_weight);
    });
  }
  __device__ __forceinline__ void Rotate(const HeadAngles<kPairs>& angles, int dim) {
    ForPairs<kPairs>(dim, [&](int p, int) {
      const float a = ToFloat(at[p][0]);
      const float b = ToFloat(at[p][1]);
      const float cosine = angles.cosine[p];
      const float sine = angles.sine[p];
      at[p][0] = FromFloat<T>(__fadd_rn(__fmul_rn(a, cosine), -__fmul_rn(b, sine)));
      at[p][1] = FromFloat<T>(__fadd_rn(__fmul_rn(b, cosine), __fmul_rn(a, sine)));
    });
  }
  /// Calls each(column, value).
  template <typename Each>
  __device__ __forceinline__ void ForEach(int dim, const Each& each) const {
    ForPairs<kPairs>(dim, [&](int p, int j) {
      each(j, at[p][0]);
      each(j + dim / 2, at[p][1]);
    });
  }
};

}  // namespace neurogrid::kernels
