// What the products of sm_90a share, and the kernel in which a block has whole tiles.
#pragma once

#include <cuda.h>

#include <algorithm>

#include "kernels/matmul_sm90_boxes.cuh"

namespace neurogrid::kernels {

/// Chunks in the order of their summation; behind the last one those that lie outside of the
/// matrices and are zeros.
template <int kSlices>
struct ChunkOrder {
  int slice = 0;
  int chunk = 0;

  __device__ __forceinline__ int Take(int chunks) {
    if (chunk >= chunks) return chunks;
    const int taken = chunk;
    chunk += kSlices;
    if (chunk >= chunks && slice + 1 < kSlices && slice + 1 < chunks) chunk = ++slice;
    return taken;
  }
};

template <typename T>
__device__ __forceinline__ void CopyStageOfWeights(const Ring<T>& ring, const CUtensorMap& w,
                                                   int slot, int chunk, int output,
                                                   uint64_t policy) {
  ArriveExpecting(ring.Full(slot), T::kStageBytes);
  CopyBox(ring.Stage(slot), w, chunk * kChunkInputs<T::kFormat>, output, ring.Full(slot), policy);
}

template <typename T>
__device__ __forceinline__ void CopyStageOfRows(const Ring<T>& ring, const CUtensorMap& x, int slot,
                                                int chunk, int row) {
#pragma unroll
  for (int part = 0; part < T::kParts; ++part) {
    CopyBox(ring.Stage(slot) + static_cast<uint32_t>(T::kWeightBytes + part * T::kPartBytes), x,
            chunk * kChunkInputs<T::kFormat> + part * 64, row, ring.Full(slot), kEvictNormal);
  }
}

/// The thread that copies: every stage of every tile of the block.
template <typename T>
__device__ __forceinline__ void Feed(const Ring<T>& ring, const CUtensorMap& w,
                                     const CUtensorMap& x, const Sm90Arguments& a) {
  const int stages = (a.chunks + T::kStages - 1) / T::kStages * T::kStages;
  const int first = static_cast<int>(blockIdx.x);
  ChunkOrder<T::kSlices> weights_order;
  for (int slot = 0; slot < T::kStages; ++slot) {
    CopyStageOfWeights(ring, w, slot, weights_order.Take(a.chunks),
                       first / a.row_tiles * T::kOutputs, a.weights_policy);
  }
  WaitForPredecessor();
  ChunkOrder<T::kSlices> order;
  for (int slot = 0; slot < T::kStages; ++slot) {
    CopyStageOfRows(ring, x, slot, order.Take(a.chunks), first % a.row_tiles * T::kRows);
  }
  uint32_t parity = 0;
  int slot = 0;
  int done = T::kStages;
  for (int tile = first; tile < a.tiles; tile += static_cast<int>(gridDim.x)) {
    for (int i = done; i < stages; ++i) {
      WaitBarrier(ring.Empty(slot), parity);
      const int chunk = order.Take(a.chunks);
      CopyStageOfWeights(ring, w, slot, chunk, tile / a.row_tiles * T::kOutputs, a.weights_policy);
      CopyStageOfRows(ring, x, slot, chunk, tile % a.row_tiles * T::kRows);
      if (++slot == T::kStages) {
        slot = 0;
        parity ^= 1;
      }
    }
    done = 0;
    order = {};
  }
}

/// sums (+)= the chunk in stage `slot`.
template <typename T>
__device__ __forceinline__ void MultiplyStage(float (&sums)[T::kSums], const Ring<T>& ring,
                                              int slot, uint32_t group_bytes, bool fresh) {
  const uint32_t stage = ring.Stage(slot);
  const uint64_t b = RowsDescriptor(stage + T::kWeightBytes);
  constexpr uint64_t kPartDescriptor = T::kPartBytes >> 4;
  if constexpr (T::kFormat == WeightFormat::kInt8) {
    const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
    const int warp = static_cast<int>(threadIdx.x) % kGroupThreads / kWarpThreads;
    const uint8_t* w = ring.bytes + slot * T::kStageBytes + group_bytes;
    uint32_t a[8][4];
#pragma unroll
    for (int pair = 0; pair < 4; ++pair) {
      uint32_t r[4];
      LdMatrix(r, w + Swizzled(kTileOutputs * warp + lane % 16, 2 * pair + lane / 16));
      WidenStep(a[2 * pair], r[0], r[1]);
      WidenStep(a[2 * pair + 1], r[2], r[3]);
    }
    BeginProducts();
#pragma unroll
    for (int step = 0; step < 8; ++step) {
      Wgmma<T::kRows>::Run(sums, a[step],
                           b + step / 4 * kPartDescriptor + step % 4 * kStepDescriptor,
                           !fresh || step > 0);
    }
  } else {
    const uint64_t a = RowsDescriptor(stage + group_bytes);
    BeginProducts();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      Wgmma<T::kRows>::Run(sums, a + step * kStepDescriptor, b + step * kStepDescriptor,
                           !fresh || step > 0);
    }
  }
  CommitProducts();
}

template <int kCount>
__device__ __forceinline__ void AddSlice(float (&totals)[kCount], const float (&sums)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) totals[i] += sums[i];
}

/// Of a warpgroup's outputs from `output` on, those that the thread has sums of.
__device__ __forceinline__ Channels ChannelsOf(const Output& out, int output,
                                               const Sm90Arguments& a) {
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  const int first = output + kTileOutputs * (thread / kWarpThreads);
  if (first >= a.packed_outputs) return {};
  return LoadChannels(out, first / kTileOutputs, thread % kWarpThreads / 4);
}

/// A warpgroup's sums of one tile to y.
template <typename T>
__device__ __forceinline__ void Store(const Ring<T>& ring, const Output& out,
                                      const float (&sums)[T::kSums], const BoxPlace& place,
                                      const Channels& channels, uint32_t old_parity,
                                      const Sm90Arguments& a, const CUtensorMap& y) {
  if constexpr (T::kBoxes) {
    if (a.boxes && out.epilogue == Epilogue::kSiluGated) {
      return StoreBoxes<T, true>(out, sums, place, channels, old_parity, y);
    }
    if (a.boxes) return StoreBoxes<T, false>(out, sums, place, channels, old_parity, y);
  }
  StoreTile<T>(out, sums, ring.Staged(place.group), place.group, place.output, place.row, a);
}

/// A warpgroup that multiplies.
template <typename T>
__device__ __forceinline__ void Consume(const Ring<T>& ring, const Output& out,
                                        const Sm90Arguments& a, const CUtensorMap& y) {
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  const int lane = thread % kWarpThreads;
  // From lane 0, so that the compiler knows it to be the same in all lanes.
  const int group = __shfl_sync(kFullMask, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  const auto group_bytes = static_cast<uint32_t>(group * T::kOwned * kChunkBytes);
  const int rounds = (a.chunks + T::kStages - 1) / T::kStages;
  const bool boxes = T::kBoxes && a.boxes;
  const auto release = [&](int slot) {
    if (lane == 0) Arrive(ring.Empty(slot));
  };
  WaitForPredecessor();
  uint32_t parity = 0;
  uint32_t old_parity = 0;
  for (int tile = static_cast<int>(blockIdx.x); tile < a.tiles;
       tile += static_cast<int>(gridDim.x)) {
    const BoxPlace place{ring.Box(group), ring.Old(group), group,
                         tile / a.row_tiles * T::kOutputs + group * T::kOwned,
                         tile % a.row_tiles * T::kRows};
    const Channels channels = boxes ? ChannelsOf(out, place.output, a) : Channels();
    float sums[T::kSums];
    float totals[T::kSlices > 1 ? T::kSums : 1];
#pragma unroll
    for (float& total : totals) total = -0.0f;  // what is added to it keeps its sign
    int slice = 0;
    int left = (a.chunks + T::kSlices - 1) / T::kSlices;  // chunks of the slice
    bool fresh = true;
    for (int round = 0; round < rounds; ++round) {
      // Slots are constants, so that descriptors lie in uniform registers: otherwise a product of
      // 16 rows takes 58 cycles instead of 20.
#pragma unroll
      for (int slot = 0; slot < T::kStages; ++slot) {
        WaitBarrier(ring.Full(slot), parity);
        MultiplyStage<T>(sums, ring, slot, group_bytes, fresh);
        fresh = false;
        if (T::kSlices > 1 && --left == 0) {
          WaitForProducts<0>();
          Pin(sums);
          if constexpr (T::kSlices > 1) AddSlice(totals, sums);
          ++slice;
          left = slice < T::kSlices ? (a.chunks - slice + T::kSlices - 1) / T::kSlices : 0;
          fresh = true;
        } else {
          WaitForProducts<1>();
        }
        if (slot > 0) release(slot - 1);
        if (slot == 0 && round > 0) release(T::kStages - 1);
      }
      parity ^= 1;
      if constexpr (T::kBoxes) {  // late enough for the tile before to have left
        if (boxes && round == 0 && thread == 0 && out.epilogue == Epilogue::kAdd) {
          FetchOld<T>(place, y);
        }
      }
    }
    WaitForProducts<0>();
    Pin(sums);
    release(T::kStages - 1);
    if constexpr (T::kSlices > 1) {
      Store(ring, out, totals, place, channels, old_parity, a, y);
    } else {
      Store(ring, out, sums, place, channels, old_parity, a, y);
    }
    old_parity ^= 1;
  }
  if (boxes && thread == 0) WaitForBoxesStored();
}

template <typename T>
__device__ __forceinline__ void InitRing(const Ring<T>& ring) {
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < T::kStages; ++slot) {
      InitBarrier(ring.Full(slot), 1);
      InitBarrier(ring.Empty(slot), T::kGroups * kGroupThreads / kWarpThreads);
    }
    for (int group = 0; T::kBoxes && group < T::kGroups; ++group) InitBarrier(ring.Old(group), 1);
    PublishBarriers();
  }
  __syncthreads();
}

template <typename T>
__global__ void __launch_bounds__(T::kThreads, 1)
    Sm90Kernel(Output out, Sm90Arguments a, const __grid_constant__ CUtensorMap w,
               const __grid_constant__ CUtensorMap x, const __grid_constant__ CUtensorMap y) {
  ReleaseSuccessor();
  const Ring<T> ring;
  InitRing(ring);
  constexpr int kFeeder = T::kGroups * kGroupThreads;
  if (threadIdx.x >= kFeeder) {
    if constexpr (T::kMovesRegisters) GiveRegisters<40>();
    if (threadIdx.x == kFeeder) Feed<T>(ring, w, x, a);
  } else {
    if constexpr (T::kMovesRegisters) TakeRegisters<232>();
    Consume<T>(ring, out, a, y);
  }
}

}  // namespace neurogrid::kernels
