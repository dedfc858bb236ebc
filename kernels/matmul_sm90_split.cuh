// Few outputs and few rows: a tile's eight slices in the eight blocks of a cluster, which add them
// through each other's shared memory.
#pragma once

#include "kernels/matmul_sm90.cuh"

namespace neurogrid::kernels {

inline constexpr int kClusterBlocks = 8;  // one for each slice

/// Chunk i of the block's slice; behind the last one, zeros.
__device__ __forceinline__ int ChunkOfSlice(const Sm90Arguments& a, int i) {
  const int chunk = static_cast<int>(blockIdx.x) % kClusterBlocks + i * kClusterBlocks;
  return chunk < a.chunks ? chunk : a.chunks;
}

template <typename T>
__device__ __forceinline__ void FeedSlice(const Ring<T>& ring, const CUtensorMap& w,
                                          const CUtensorMap& x, const Sm90Arguments& a,
                                          int rounds) {
  const int tile = static_cast<int>(blockIdx.x) / kClusterBlocks;
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

/// The block's share of the tile's rows: eight slices added in order, and stored.
template <typename T>
__device__ __forceinline__ void AddSlicesOfCluster(const Output& out, const Sm90Arguments& a,
                                                   const Ring<T>& ring, int output, int row) {
  constexpr int kShare = T::kRows / kClusterBlocks;
  const bool gated = out.epilogue == Epilogue::kSiluGated || out.epilogue == Epilogue::kGeluGated;
  const int pieces = T::kOutputs / (gated ? kTileOutputs : kTileOutputs / 2);
  const int first = static_cast<int>(blockIdx.x) % kClusterBlocks * kShare;
  for (int i = static_cast<int>(threadIdx.x); i < kShare * pieces;
       i += T::kGroups * kGroupThreads) {
    const int r = first + i / pieces;
    const int at = i % pieces * (gated ? kTileOutputs : kTileOutputs / 2);
    if (row + r >= a.rows || output + at >= a.packed_outputs) continue;
    const uint32_t place =
        ring.address + T::kRingBytes + static_cast<uint32_t>(4 * (r * T::kSplitStride + at));
    float sums[kTileOutputs] = {};
#pragma unroll
    for (int four = 0; four < kTileOutputs / 4; ++four) {
      if (four >= 2 && !gated) continue;
#pragma unroll
      for (int slice = 0; slice < kClusterBlocks; ++slice) {
        const float4 v = LoadOfBlock(place + 16 * four, slice);
        const float parts[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          float& sum = sums[4 * four + j];
          sum = slice == 0 ? parts[j] : sum + parts[j];
        }
      }
    }
    FinishPiece(out, sums, row + r, output + at, gated, a.wide_stores);
  }
}

template <typename T>
__device__ __forceinline__ void ConsumeSlice(const Ring<T>& ring, const Output& out,
                                             const Sm90Arguments& a, int rounds) {
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpThreads;
  const int group = __shfl_sync(kFullMask, thread / kGroupThreads, 0);
  const auto group_bytes = static_cast<uint32_t>(group * T::kOwned * kChunkBytes);
  WaitForPredecessor();
  float sums[T::kSums];
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
  float* staged = ring.Staged(0) + T::kOwned * group + kTileOutputs * (thread / kWarpThreads % 4);
#pragma unroll
  for (int i = 0; i < T::kSums; ++i) {
    const int row = i / 4 * 8 + 2 * (lane % 4) + i % 2;
    staged[row * T::kSplitStride + lane / 4 + i / 2 % 2 * 8] = sums[i];
  }
  SyncCluster();
  const int tile = static_cast<int>(blockIdx.x) / kClusterBlocks;
  AddSlicesOfCluster<T>(out, a, ring, tile / a.row_tiles * T::kOutputs,
                        tile % a.row_tiles * T::kRows);
  SyncCluster();  // others may still read this block's sums
}

template <typename T>
__global__ void __cluster_dims__(kClusterBlocks, 1, 1) __launch_bounds__(T::kThreads, 1)
    Sm90SplitKernel(Output out, Sm90Arguments a, const __grid_constant__ CUtensorMap w,
                    const __grid_constant__ CUtensorMap x) {
  static_assert(T::kOwned == kGroupOutputs && T::kRows % kClusterBlocks == 0 &&
                T::kSlices == kClusterBlocks);
  ReleaseSuccessor();
  const Ring<T> ring;
  InitRing(ring);
  // The same in all blocks; stages that one does not need are zeros.
  const int chunks = (a.chunks + kClusterBlocks - 1) / kClusterBlocks;
  const int rounds = (chunks + T::kStages - 1) / T::kStages;
  constexpr int kFeeder = T::kGroups * kGroupThreads;
  if (threadIdx.x >= kFeeder) {
    if constexpr (T::kMovesRegisters) GiveRegisters<40>();
    if (threadIdx.x == kFeeder) FeedSlice<T>(ring, w, x, a, rounds);
  } else {
    if constexpr (T::kMovesRegisters) TakeRegisters<232>();
    ConsumeSlice<T>(ring, out, a, rounds);
  }
}

}  // namespace neurogrid::kernels
