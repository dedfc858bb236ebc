// Few outputs and few rows: a block has one slice of a tile and leaves its sums in memory.
// SumSlices adds them.
#pragma once

#include "kernels/matmul_sm90.cuh"

namespace neurogrid::kernels {

inline constexpr int kSplitSlices = 8;

/// Chunk i of the block's slice; behind the last one, zeros.
__device__ __forceinline__ int ChunkOfSlice(const Sm90Arguments& a, int i) {
  const int chunk = static_cast<int>(blockIdx.x) % kSplitSlices + i * kSplitSlices;
  return chunk < a.chunks ? chunk : a.chunks;
}

template <typename T>
__device__ __forceinline__ void FeedSlice(const Ring<T>& ring, const CUtensorMap& w,
                                          const CUtensorMap& x, const Sm90Arguments& a,
                                          int rounds) {
  const int tile = static_cast<int>(blockIdx.x) / kSplitSlices;
  const int output = tile / a.row_tiles * T::kOutputs;
  const int row = tile % a.row_tiles * T::kRows;
  for (int slot = 0; slot < T::kStages; ++slot) {
    CopyStageOfWeights(ring, w, slot, ChunkOfSlice(a, slot), output, a.weights_policy);
  }
  WaitForPredecessor();
  for (int slot = 0; slot < T::kStages; ++slot) {
    CopyStageOfRows(ring, x, slot, ChunkOfSlice(a, slot), row);
  }
  for (int round = 1; round < rounds; ++round) {
    for (int slot = 0; slot < T::kStages; ++slot) {
      WaitBarrier(ring.Empty(slot), static_cast<uint32_t>(round - 1) & 1);
      const int chunk = ChunkOfSlice(a, round * T::kStages + slot);
      CopyStageOfWeights(ring, w, slot, chunk, output, a.weights_policy);
      CopyStageOfRows(ring, x, slot, chunk, row);
    }
  }
}

/// A warpgroup's sums: eight neighbours in memory of each row at a time.
template <typename T>
__device__ __forceinline__ void StoreSums(float* slices, const float (&sums)[T::kSums],
                                          const Sm90Arguments& a, int output, int row) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) % kGroupThreads / kWarpThreads;
  const int slice = static_cast<int>(blockIdx.x) % kSplitSlices;
  const int first = output + kTileOutputs * warp;
  if (first >= a.packed_outputs) return;
  float* to = slices + (static_cast<int64_t>(slice) * a.rows + row) * a.packed_outputs + first;
#pragma unroll
  for (int i = 0; i < T::kSums; ++i) {
    const int r = i / 4 * 8 + 2 * (lane % 4) + i % 2;
    if (row + r < a.rows) {
      to[static_cast<int64_t>(r) * a.packed_outputs + lane / 4 + i / 2 % 2 * 8] = sums[i];
    }
  }
}

/// sums = the products of so many rounds of the ring; what a warpgroup owns of the weights begins
/// at group_bytes of a stage.
template <typename T>
__device__ __forceinline__ void MultiplyRounds(float (&sums)[T::kSums], const Ring<T>& ring,
                                               uint32_t group_bytes, int rounds) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  for (int round = 0; round < rounds; ++round) {
#pragma unroll
    for (int slot = 0; slot < T::kStages; ++slot) {
      WaitBarrier(ring.Full(slot), static_cast<uint32_t>(round) & 1);
      MultiplyStage<T>(sums, ring, slot, group_bytes, round == 0 && slot == 0);
      WaitForProducts<1>();
      if (lane == 0 && slot > 0) Arrive(ring.Empty(slot - 1));
      if (lane == 0 && slot == 0 && round > 0) Arrive(ring.Empty(T::kStages - 1));
    }
  }
  WaitForProducts<0>();
  Pin(sums);
}

template <typename T>
__device__ __forceinline__ void ConsumeSlice(const Ring<T>& ring, float* slices,
                                             const Sm90Arguments& a, int rounds) {
  const int group = __shfl_sync(kFullMask, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  const auto group_bytes = static_cast<uint32_t>(group * T::kOwned * kChunkBytes);
  WaitForPredecessor();
  float sums[T::kSums];
  MultiplyRounds<T>(sums, ring, group_bytes, rounds);
  const int tile = static_cast<int>(blockIdx.x) / kSplitSlices;
  StoreSums<T>(slices, sums, a, tile / a.row_tiles * T::kOutputs + group * T::kOwned,
               tile % a.row_tiles * T::kRows);
}

template <typename T>
__global__ void __launch_bounds__(T::kThreads, 1)
    Sm90SplitKernel(float* slices, Sm90Arguments a, const __grid_constant__ CUtensorMap w,
                    const __grid_constant__ CUtensorMap x) {
  static_assert(T::kOwned == kGroupOutputs && T::kSlices == kSplitSlices);
  ReleaseSuccessor();
  const Ring<T> ring;
  InitRing(ring);
  const int chunks = (a.chunks - static_cast<int>(blockIdx.x) % kSplitSlices + kSplitSlices - 1) /
                     kSplitSlices;  // at least one
  const int rounds = (chunks + T::kStages - 1) / T::kStages;
  constexpr int kFeeder = T::kGroups * kGroupThreads;
  if (threadIdx.x >= kFeeder) {
    if constexpr (T::kMovesRegisters) GiveRegisters<40>();
    if (threadIdx.x == kFeeder) FeedSlice<T>(ring, w, x, a, rounds);
  } else {
    if constexpr (T::kMovesRegisters) TakeRegisters<232>();
    ConsumeSlice<T>(ring, slices, a, rounds);
  }
}

}  // namespace neurogrid::kernels
