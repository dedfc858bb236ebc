// What the kernels of attention with wgmma share: a warpgroup copies chunks of keys and values to a
// ring, two attend.
#pragma once

#include "kernels/attention.cuh"
#include "kernels/wgmma.cuh"

namespace neurogrid::kernels {

inline constexpr int kWarpgroupThreads = 128;
inline constexpr int kWgmmaThreads = 3 * kWarpgroupThreads;  // of a block
inline constexpr int kWgmmaRows = 64;                        // of one product
inline constexpr int kQueryBytes = kWgmmaRows * 128;         // of 64 columns

/// Piece of 16 bytes of a row of 128 of an operand of wgmma.
__device__ __forceinline__ int SwizzledByte(int row, int piece) {
  return row * 128 + ((piece ^ (row & 7)) << 4);
}

/// Chunk after chunk of keys and values passes through kSlots slots.
template <int kSlots, int kSlotBytes>
struct ChunkRing {
  static constexpr int kSlotCount = kSlots;
  static constexpr int kSlotsBytes = kSlots * kSlotBytes;
  static constexpr int kBarriersBytes = 2 * kSlots * kBarrierBytes;
  static constexpr int kLeaving = 2 * kWarpgroupThreads / kWarpThreads;  // warps

  uint8_t* slots;
  uint32_t barriers;  // of each slot: its chunk is there; behind these: nobody needs it any more

  __device__ __forceinline__ uint8_t* Slot(int chunk) const {
    return slots + chunk % kSlots * kSlotBytes;
  }
  __device__ __forceinline__ uint32_t Full(int chunk) const {
    return barriers + chunk % kSlots * kBarrierBytes;
  }
  __device__ __forceinline__ uint32_t Empty(int chunk) const {
    return Full(chunk) + kSlots * kBarrierBytes;
  }

  /// First of all, by all threads.
  __device__ __forceinline__ void Begin() const {
    if (threadIdx.x == 0) {
      for (int slot = 0; slot < kSlots; ++slot) {
        InitBarrier(Full(slot), kWarpgroupThreads);
        InitBarrier(Empty(slot), kLeaving);
      }
    }
    __syncthreads();
  }
  /// The warpgroup that copies; copy(chunk) queues what a thread has of it.
  template <typename Copy>
  __device__ __forceinline__ void Produce(int chunks, const Copy& copy) const {
    const auto hand_over = [&](int chunk) {
      FenceForProducts();
      Arrive(Full(chunk));
    };
    for (int chunk = 0; chunk < chunks; ++chunk) {
      if (chunk >= kSlots) {
        WaitBarrier(Empty(chunk), static_cast<uint32_t>(chunk / kSlots + 1) & 1u);
      }
      copy(chunk);
      CommitCopies();
      if (chunk == 0) continue;
      WaitForCopies<1>();
      hand_over(chunk - 1);
    }
    WaitForCopies<0>();
    hand_over(chunks - 1);
  }
  __device__ __forceinline__ void WaitFor(int chunk) const {
    WaitBarrier(Full(chunk), static_cast<uint32_t>(chunk / kSlots) & 1u);
  }
  /// Once all warps that attend have left it, the slot is free.
  __device__ __forceinline__ void Leave(int chunk, int lane) const {
    if (lane == 0) Arrive(Empty(chunk));
  }
};

/// The first warpgroup copies, the others, 0 and 1, attend.
template <typename Copy, typename Attend>
__device__ __forceinline__ void ShareRoles(const Copy& copy, const Attend& attend) {
  const int warpgroup =
      __shfl_sync(kFullMask, static_cast<int>(threadIdx.x) / kWarpgroupThreads, 0);
  if (warpgroup == 0) {
    GiveRegisters<40>();
    copy();
  } else {
    TakeRegisters<232>();
    attend(warpgroup - 1);
  }
}

__device__ __forceinline__ int LiveTiles(const AttentionWorkView& work) {
  return work.live == nullptr ? work.more_tiles_count : work.live->more_tiles;
}

/// The queries of rows [first_row, first_row + 64), 64 columns after 64, by kThreads threads.
template <int kDim, int kThreads>
__device__ __forceinline__ void LoadQueries(uint8_t* queries, const Bf16Attention& o,
                                            const AttentionPlace& place, int first_row) {
  for (int i = static_cast<int>(threadIdx.x) % kThreads; i < kWgmmaRows * (kDim / 8);
       i += kThreads) {
    const int row = i / (kDim / 8);
    const int column = i % (kDim / 8) * 8;
    Vec<uint32_t> piece = {};
    if (first_row + row < place.rows()) {
      piece = LoadVec(
          reinterpret_cast<const uint32_t*>(o.qkv + place.QueryOf(first_row + row) * o.qkv_stride +
                                            place.HeadOf(first_row + row) * kDim + column));
    }
    StoreVec(reinterpret_cast<uint32_t*>(queries + column / 64 * kQueryBytes +
                                         SwizzledByte(row, column % 64 / 8)),
             piece);
  }
  FenceForProducts();
}

}  // namespace neurogrid::kernels
