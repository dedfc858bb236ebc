// What the products of sm_90a share, and the kernel in which a block has whole tiles.
#pragma once

#include <cuda.h>

#include <algorithm>

#include "kernels/matmul.cuh"
#include "kernels/wgmma.cuh"

namespace neurogrid::kernels {

inline constexpr int kGroupThreads = 128;
inline constexpr int kGroupOutputs = 64;                    // of one wgmma
inline constexpr int kSwizzleBytes = 1024;                  // eight rows
inline constexpr int kStagedStride = kGroupOutputs + 4;     // floats: no bank conflicts
inline constexpr int kBarrierBytes = 2 * sizeof(uint64_t);  // of a stage: full, empty

/// kGroups warpgroups of kOwned outputs by kRows rows; a ring of kStages chunks. kSplit: a block
/// has one slice, the eight of a cluster add theirs.
template <WeightFormat kFormatOf, int kGroupsOf, int kOwnedOf, int kRowsOf, int kStagesOf,
          int kSlicesUsed, bool kSplitSlices = false>
struct Tile {
  static constexpr WeightFormat kFormat = kFormatOf;
  static constexpr int kGroups = kGroupsOf;
  static constexpr int kOwned = kOwnedOf;
  static constexpr int kRows = kRowsOf;
  static constexpr int kStages = kStagesOf;
  static constexpr int kSlices = kSlicesUsed;
  static constexpr bool kSplit = kSplitSlices;

  static constexpr int kOutputs = kGroups * kOwned;
  // Widened weights need more registers than a third of the file: a whole warpgroup copies and
  // gives up its own.
  static constexpr bool kMovesRegisters = kGroups == 2 && kFormat == WeightFormat::kInt8;
  static constexpr int kThreads =
      kGroups * kGroupThreads + (kMovesRegisters ? kGroupThreads : kWarpThreads);
  static constexpr int kParts = kChunkInputs<kFormat> / 64;  // of x: 64 inputs are 128 bytes
  static constexpr int kWeightBytes = kOutputs * kChunkBytes;
  static constexpr int kPartBytes = kRows * kChunkBytes;
  static constexpr int kStageBytes = kWeightBytes + kParts * kPartBytes;
  static constexpr int kRingBytes = kStages * kStageBytes;
  static constexpr int kStagedRows = kRows < 32 ? kRows : 32;  // of y at once
  static constexpr int kStagedFloats = kStagedRows * kStagedStride;
  static constexpr int kSplitStride = kOutputs + 4;  // floats between rows of a slice's sums
  // Products of outputs that are not owned read behind the weights, at last behind the ring.
  static constexpr int kBehindBytes =
      std::max<int>(kSplit ? kRows * kSplitStride * 4 : kGroups * kStagedFloats * 4,
                    ((kGroups - 1) * kOwned + kGroupOutputs) * kChunkBytes - kStageBytes);
  static constexpr int kSharedBytes =
      kSwizzleBytes + kRingBytes + kBehindBytes + kStages * kBarrierBytes;
  static constexpr int kSums = kRows / 2;  // of a thread

  static_assert(kOwned % kTileOutputs == 0 && kOwned <= kGroupOutputs);
  static_assert(kPartBytes % kSwizzleBytes == 0 && kBehindBytes % 16 == 0);
};

struct Sm90Arguments {
  int packed_outputs;
  int rows;
  int row_tiles;
  int tiles;
  int chunks;
  uint64_t weights_policy;
  bool wide_stores;  // eight elements of y are 16-byte aligned
};

/// A block's shared memory, from the first multiple of 1,024 bytes on.
template <typename T>
struct Ring {
  uint8_t* bytes;
  uint32_t address;

  __device__ __forceinline__ Ring() {
    uint8_t* shared = SharedMemory<uint8_t>();
    const uint32_t unaligned = SharedAddress(shared);
    address = (unaligned + kSwizzleBytes - 1) / kSwizzleBytes * kSwizzleBytes;
    bytes = shared + (address - unaligned);
  }
  __device__ __forceinline__ uint32_t Stage(int slot) const {
    return address + static_cast<uint32_t>(slot * T::kStageBytes);
  }
  __device__ __forceinline__ uint32_t Full(int slot) const {
    return address + static_cast<uint32_t>(T::kRingBytes + T::kBehindBytes + slot * kBarrierBytes);
  }
  __device__ __forceinline__ uint32_t Empty(int slot) const { return Full(slot) + 8; }
  __device__ __forceinline__ float* Staged(int group) const {
    return reinterpret_cast<float*>(bytes + T::kRingBytes) + group * T::kStagedFloats;
  }
};

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

/// Sums of packed output `output` on become eight values of y.
struct Eight {
  float v[8];
};
__device__ __forceinline__ Eight Scaled(const Output& out, const float* sums, int output) {
  Eight e;
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    e.v[i] = sums[i];
    if (out.scales != nullptr) e.v[i] = __fmul_rn(e.v[i], out.scales[output + i]);
    if (out.bias != nullptr) e.v[i] += out.bias[output + i];
  }
  return e;
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
  const bool adds = out.epilogue == Epilogue::kAdd;
  if (out.is_f32) {
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
  auto* y = reinterpret_cast<uint4*>(static_cast<bf16*>(out.y) + at);
  bf16 values[8];
  uint4 piece{};
  if (adds) piece = *y;
  memcpy(values, &piece, sizeof(values));
#pragma unroll
  for (int i = 0; i < 8; ++i) {
    values[i] = FromFloat<bf16>(adds ? ToFloat(values[i]) + e.v[i] : e.v[i]);
  }
  memcpy(&piece, values, sizeof(piece));
  *y = piece;
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

/// A warpgroup's sums, through shared memory, so that neighbours in y are stored at once.
template <typename T>
__device__ __forceinline__ void StoreTile(const Output& out, const float (&sums)[T::kSums],
                                          float* staged, int group, int output, int first_row,
                                          const Sm90Arguments& a) {
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  const int lane = thread % kWarpThreads;
  const int warp = thread / kWarpThreads;
  const bool gated = out.epilogue == Epilogue::kSiluGated || out.epilogue == Epilogue::kGeluGated;
  const int piece_outputs = gated ? kTileOutputs : kTileOutputs / 2;
  const int pieces = T::kOwned / piece_outputs;
#pragma unroll
  for (int part = 0; part < T::kRows / T::kStagedRows; ++part) {
    const int part_row = first_row + part * T::kStagedRows;
    if (part_row < a.rows) {
      if (warp < T::kOwned / kTileOutputs) {
#pragma unroll
        for (int i = 0; i < T::kStagedRows * 2 / 4; ++i) {
          const int row = i / 4 * 8 + 2 * (lane % 4) + i % 2;
          staged[row * kStagedStride + kTileOutputs * warp + lane / 4 + i / 2 % 2 * 8] =
              sums[part * T::kStagedRows / 2 + i];
        }
      }
      SyncThreads<kGroupThreads>(1 + group);
      for (int i = thread; i < T::kStagedRows * pieces; i += kGroupThreads) {
        const int row = i / pieces;
        const int at = i % pieces * piece_outputs;
        if (part_row + row < a.rows && output + at < a.packed_outputs) {
          FinishPiece(out, staged + row * kStagedStride + at, part_row + row, output + at, gated,
                      a.wide_stores);
        }
      }
      SyncThreads<kGroupThreads>(1 + group);
    }
  }
}

template <int kCount>
__device__ __forceinline__ void AddSlice(float (&totals)[kCount], const float (&sums)[kCount],
                                         bool first) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) totals[i] = first ? sums[i] : totals[i] + sums[i];
}

/// A warpgroup that multiplies.
template <typename T>
__device__ __forceinline__ void Consume(const Ring<T>& ring, const Output& out,
                                        const Sm90Arguments& a) {
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  // From lane 0, so that the compiler knows it to be the same in all lanes.
  const int group = __shfl_sync(kFullMask, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  const auto group_bytes = static_cast<uint32_t>(group * T::kOwned * kChunkBytes);
  const int rounds = (a.chunks + T::kStages - 1) / T::kStages;
  const auto release = [&](int slot) {
    if (lane == 0) Arrive(ring.Empty(slot));
  };
  WaitForPredecessor();
  uint32_t parity = 0;
  for (int tile = static_cast<int>(blockIdx.x); tile < a.tiles;
       tile += static_cast<int>(gridDim.x)) {
    float sums[T::kSums];
    float totals[T::kSlices > 1 ? T::kSums : 1];
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
          if constexpr (T::kSlices > 1) AddSlice(totals, sums, slice == 0);
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
    }
    WaitForProducts<0>();
    Pin(sums);
    release(T::kStages - 1);
    const int output = tile / a.row_tiles * T::kOutputs + group * T::kOwned;
    const int row = tile % a.row_tiles * T::kRows;
    if constexpr (T::kSlices > 1) {
      StoreTile<T>(out, totals, ring.Staged(group), group, output, row, a);
    } else {
      StoreTile<T>(out, sums, ring.Staged(group), group, output, row, a);
    }
  }
}

template <typename T>
__device__ __forceinline__ void InitRing(const Ring<T>& ring) {
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < T::kStages; ++slot) {
      InitBarrier(ring.Full(slot), 1);
      InitBarrier(ring.Empty(slot), T::kGroups * kGroupThreads / kWarpThreads);
    }
    PublishBarriers();
  }
  __syncthreads();
}

template <typename T>
__global__ void __launch_bounds__(T::kThreads, 1)
    Sm90Kernel(Output out, Sm90Arguments a, const __grid_constant__ CUtensorMap w,
               const __grid_constant__ CUtensorMap x) {
  ReleaseSuccessor();
  const Ring<T> ring;
  InitRing(ring);
  constexpr int kFeeder = T::kGroups * kGroupThreads;
  if (threadIdx.x >= kFeeder) {
    if constexpr (T::kMovesRegisters) GiveRegisters<40>();
    if (threadIdx.x == kFeeder) Feed<T>(ring, w, x, a);
  } else {
    if constexpr (T::kMovesRegisters) TakeRegisters<232>();
    Consume<T>(ring, out, a);
  }
}

}  // namespace neurogrid::kernels
