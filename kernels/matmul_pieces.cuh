// The epilogue for eight neighbours in y at once, or eight gates and their ups.
#pragma once

#include "kernels/matmul.cuh"

namespace neurogrid::kernels {

/// Whether eight neighbours in y from a multiple of eight on may be moved at once.
inline bool HasWideStores(const Output& out) {
  return reinterpret_cast<uintptr_t>(out.y) % 16 == 0 && out.stride % 8 == 0;
}

/// Sums of packed output `output` on become eight values of y.
struct Eight {
  float v[8];
};
__device__ __forceinline__ Eight Scaled(const Output& out, const float* sums, int output) {
  Eight e;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    e.v[i] = sums[i];
    if (out.scales != nullptr) e.v[i] = __fmul_rn(e.v[i], out.scales[output + i] * kInt8Units);
    if (out.bias != nullptr) e.v[i] += out.bias[output + i];
  }
  return e;
}

/// What eight neighbours of a bf16 y hold, where they are added to.
__device__ __forceinline__ Vec<bf16> OldEight(const Output& out, const bf16* y) {
  return out.epilogue == Epilogue::kAdd ? LoadVec(y) : Vec<bf16>{};
}

/// Eight neighbours of a bf16 y as they will be stored, all of them columns.
__device__ __forceinline__ Vec<bf16> RoundedEight(const Output& out, const Eight& e,
                                                  const Vec<bf16>& old) {
  const bool adds = out.epilogue == Epilogue::kAdd;
  Vec<bf16> piece;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    piece.at[i] = FromFloat<bf16>(adds ? ToFloat(old.at[i]) + e.v[i] : e.v[i]);
  }
  return piece;
}

__device__ __forceinline__ void StoreEight(const Output& out, const Eight& e, int64_t row,
                                           int column, bool wide) {
  if (!wide || column + 8 > out.columns) {
    for (int i = 0; i < 8; ++i) {
      StoreOne(out, row, column + i, e.v[i], LoadOld(out, row, column + i));
    }
    return;
  }
  const int64_t at = row * out.stride + column;
  if (out.is_f32) {
    const bool adds = out.epilogue == Epilogue::kAdd;
    auto* y = reinterpret_cast<float4*>(static_cast<float*>(out.y) + at);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* v = e.v + 4 * half;
      float4 old{};
      if (adds) old = y[half];
      y[half] = adds ? float4{old.x + v[0], old.y + v[1], old.z + v[2], old.w + v[3]}
                     : float4{v[0], v[1], v[2], v[3]};
    }
    return;
  }
  bf16* y = static_cast<bf16*>(out.y) + at;
  StoreVec(y, RoundedEight(out, e, OldEight(out, y)));
}

/// One row of y, from packed output `output` on: eight outputs, or eight gates and their ups.
__device__ __forceinline__ void FinishPiece(const Output& out, const float* sums, int64_t row,
                                            int output, bool gated, bool wide) {
  Eight e = Scaled(out, sums, output);
  if (gated) {
    const Eight up = Scaled(out, sums + 8, output + 8);
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const float gate = out.epilogue == Epilogue::kSiluGated ? Silu(e.v[i]) : GeluTanh(e.v[i]);
      e.v[i] = __fmul_rn(gate, up.v[i]);
    }
  }
  StoreEight(out, e, row, gated ? output / 2 : output, wide);
}

}  // namespace neurogrid::kernels
