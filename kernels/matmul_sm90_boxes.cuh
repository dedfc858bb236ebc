// How a bf16 y leaves a tile of many rows: rounded in registers, transposed into rows of shared
// memory, copied from there by map while the next tile is multiplied.
#pragma once

#include <cuda.h>

#include <algorithm>

#include "kernels/matmul_sm90_store.cuh"

namespace neurogrid::kernels {

/// A warpgroup's part of y in shared memory: kRows rows of a tile at once, kColumns of them.
template <typename T, bool kGated>
struct BoxOfY {
  static constexpr int kColumns = kGated ? kGroupOutputs / 2 : kGroupOutputs;
  static constexpr int kRowBytes = kColumns * static_cast<int>(sizeof(bf16));
  static constexpr int kRows = std::min(T::kRows, kBoxBytes / kRowBytes);

  /// Where 16-byte piece `piece` of a row lies (tensor_map.h): no bank conflicts.
  static __device__ __forceinline__ uint32_t Place(int row, int piece) {
    const int permuted = kGated ? piece ^ (row / 2 % 4) : piece ^ (row % 8);
    return static_cast<uint32_t>(row * kRowBytes + permuted * 16);
  }
};

/// What a warpgroup knows of its part of y.
struct BoxPlace {
  uint32_t shared;
  uint32_t old;  // the barrier of what y held
  int group;
  int output;  // the first packed one
  int row;
};

/// One thread, after the predecessor: what y holds goes where its sums will be added.
template <typename T>
__device__ __forceinline__ void FetchOld(const BoxPlace& place, const CUtensorMap& y) {
  using Box = BoxOfY<T, false>;
  WaitForBoxesRead();
  ArriveExpecting(place.old, Box::kRows * Box::kRowBytes);
  CopyBox(place.shared, y, place.output, place.row, place.old, kEvictNormal);
}

template <typename T>
__device__ __forceinline__ float ScaledOne(const Output& out, float sum, float scale, float bias) {
  if constexpr (T::kFormat == WeightFormat::kInt8) sum = __fmul_rn(sum, scale);
  return out.bias != nullptr ? sum + bias : sum;
}

/// 32 rows of a warp's gates and ups.
template <typename T>
__device__ __forceinline__ void PutGated(const Output& out, const Channels& c,
                                         const float (&sums)[kPicked], uint32_t box, int first_row,
                                         int warp, int lane) {
  uint32_t pairs[4];
#pragma unroll
  for (int eight = 0; eight < 4; ++eight) {  // rows
    float v[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const float gate = ScaledOne<T>(out, sums[4 * eight + i], c.low_scale, c.low_bias);
      const float up = ScaledOne<T>(out, sums[4 * eight + 2 + i], c.high_scale, c.high_bias);
      v[i] = __fmul_rn(Silu(gate), up);
    }
    pairs[eight] = PackBf16(v[0], v[1]);
  }
  StMatrixTransposed(box + BoxOfY<T, true>::Place(first_row + lane, warp), pairs);
}

/// 32 rows of a warp's outputs; added to what is there where `adds`.
template <typename T>
__device__ __forceinline__ void PutOutputs(const Output& out, const Channels& c,
                                           const float (&sums)[kPicked], uint32_t box,
                                           int first_row, int warp, int lane, bool adds) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + 16 * half + lane / 16 * 8 + lane % 8;
    const uint32_t place = box + BoxOfY<T, false>::Place(row, 2 * warp + lane / 8 % 2);
    float v[8];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const bool high = i / 2 % 2 == 1;
      v[i] = ScaledOne<T>(out, sums[8 * half + i], high ? c.high_scale : c.low_scale,
                          high ? c.high_bias : c.low_bias);
    }
    if (adds) {
      uint32_t old[4];
      LdMatrixTransposed(old, place);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        v[2 * i] = __uint_as_float(old[i] << 16) + v[2 * i];
        v[2 * i + 1] = __uint_as_float(old[i] & 0xffff0000u) + v[2 * i + 1];
      }
    }
    const uint32_t pairs[4] = {PackBf16(v[0], v[1]), PackBf16(v[2], v[3]), PackBf16(v[4], v[5]),
                               PackBf16(v[6], v[7])};
    StMatrixTransposed(place, pairs);
  }
}

template <typename T, bool kGated>
__device__ __forceinline__ void StoreBoxes(const Output& out, const float (&sums)[T::kSums],
                                           const BoxPlace& place, const Channels& channels,
                                           uint32_t old_parity, const CUtensorMap& y) {
  using Box = BoxOfY<T, kGated>;
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  const int lane = thread % kWarpThreads;
  const int warp = thread / kWarpThreads;
  const bool adds = !kGated && out.epilogue == Epilogue::kAdd;
#pragma unroll 1
  for (int first = 0; first < T::kRows; first += Box::kRows) {
    if (adds) {
      WaitBarrier(place.old, old_parity);
    } else {
      if (thread == 0) WaitForBoxesRead();
      SyncThreads<kGroupThreads>(1 + place.group);
    }
#pragma unroll 1
    for (int row = 0; row < Box::kRows; row += 2 * kPicked) {
      float some[kPicked];
      Pick(sums, (first + row) / (2 * kPicked), some);
      if constexpr (kGated) {
        PutGated<T>(out, channels, some, place.shared, row, warp, lane);
      } else {
        PutOutputs<T>(out, channels, some, place.shared, row, warp, lane, adds);
      }
    }
    FenceForProducts();
    SyncThreads<kGroupThreads>(1 + place.group);
    if (thread == 0) {
      StoreBox(y, kGated ? place.output / 2 : place.output, place.row + first, place.shared);
    }
  }
}

/// Whether a map can describe y, and T stores by it.
template <typename T>
bool StoresBoxes(const Output& out) {
  if (!T::kBoxes || out.is_f32 || !HasWideStores(out)) return false;
  if (out.epilogue == Epilogue::kGeluGated) return false;
  return out.epilogue != Epilogue::kAdd || BoxOfY<T, false>::kRows == T::kRows;
}

}  // namespace neurogrid::kernels
