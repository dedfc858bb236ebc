#include <cuda.h>

#include <algorithm>

#include "kernels/device_limits.h"
#include "kernels/launch.h"
#include "kernels/matmul_blocks.cuh"
#include "kernels/matmul_blocks_sm90.h"
#include "kernels/matmul_sm90.cuh"
#include "kernels/tensor_map.h"

namespace neurogrid::kernels {
namespace {

constexpr int kMultipliers = 2;  // warpgroups
constexpr int kOutputs = kMultipliers * kGroupOutputs;
constexpr int kTilesOfGroup = kGroupOutputs / kTileOutputs;
constexpr int kSumWarps = 3;
constexpr int kSumLanes = 4;  // that write sums
constexpr int kThreads = (kMultipliers + 1) * kGroupThreads;
constexpr int kBlocksBarriers = kBarriers + 1;   // of a stage
constexpr int kXParts = kBlockChunkInputs / 64;  // 64 inputs are 128 bytes

/// kMultipliers warpgroups of 64 outputs by kRows rows; a ring of kStages chunks of activations.
template <BlockType kTypeOf, int kRowsOf, int kStagesOf>
struct BlocksTile {
  static constexpr BlockType kType = kTypeOf;
  using B = Blocks<kType>;
  static constexpr int kRows = kRowsOf;
  static constexpr int kStages = kStagesOf;
  static constexpr int kPartBytes = kRows * kChunkBytes;
  static constexpr int kStageBytes = kXParts * kPartBytes;
  static constexpr int kRingBytes = kStages * kStageBytes;
  static constexpr int kSumsOfStage = B::kHasMinimum ? B::kGroups * kRows : 0;
  static constexpr int kTotalsFloats = kRows * kStagedStride;  // of a warpgroup
  static constexpr int kSumsAt = kRingBytes;
  static constexpr int kTotalsAt = kSumsAt + kStages * kSumsOfStage * 4;
  static constexpr int kBarriersAt = kTotalsAt + kMultipliers * kTotalsFloats * 4;
  static constexpr int kSharedBytes =
      kSwizzleBytes + kBarriersAt + kStages * kBlocksBarriers * kBarrierBytes;
  static constexpr int kSums = kRows / 2;  // of a thread
};

struct BlocksArguments {
  const uint8_t* weights;
  int64_t tile_bytes;
  int weight_tiles;
  int packed_outputs;
  int rows;
  int row_tiles;
  int tiles;
  int chunks;
  bool wide_stores;  // eight elements of y are 16-byte aligned
};

/// A ring of activations, and their sums.
template <typename T>
struct BlocksRing : StageRing<T::kStageBytes, T::kBarriersAt, kBlocksBarriers> {
  __device__ __forceinline__ float* SumsOf(int slot) const {
    return reinterpret_cast<float*>(this->bytes + T::kSumsAt) + slot * T::kSumsOfStage;
  }
  __device__ __forceinline__ float* Totals(int group) const {
    return reinterpret_cast<float*>(this->bytes + T::kTotalsAt) + group * T::kTotalsFloats;
  }
  /// The sums are there.
  __device__ __forceinline__ uint32_t Summed(int slot) const {
    return this->Empty(slot) + kBarrierBytes;
  }
};

template <typename T>
__device__ __forceinline__ int RoundsOf(const BlocksArguments& a) {
  return (a.chunks + T::kStages - 1) / T::kStages;
}

/// The thread that copies activations: every stage of every tile of the block; behind the last
/// chunk of a tile zeros from outside of the matrix.
template <typename T>
__device__ __forceinline__ void FeedRows(const BlocksRing<T>& ring, const CUtensorMap& x,
                                         const BlocksArguments& a) {
  const int stages = RoundsOf<T>(a) * T::kStages;
  uint32_t parity = 1;
  int slot = 0;
  for (int tile = static_cast<int>(blockIdx.x); tile < a.tiles;
       tile += static_cast<int>(gridDim.x)) {
    ChunkOrder<kBlockSlices> order;
    for (int i = 0; i < stages; ++i) {
      WaitBarrier(ring.Empty(slot), parity);
      const int chunk = order.Take(a.chunks);
      ArriveExpecting(ring.Full(slot), T::kStageBytes);
#pragma unroll
      for (int part = 0; part < kXParts; ++part) {
        CopyBox(ring.Stage(slot) + static_cast<uint32_t>(part * T::kPartBytes), x,
                chunk * kBlockChunkInputs + part * 64, tile % a.row_tiles * T::kRows,
                ring.Full(slot), kEvictNormal);
      }
      if (++slot == T::kStages) {
        slot = 0;
        parity ^= 1;
      }
    }
  }
}

/// A warp that sums activations for the minimums, eight rows at a time.
template <typename T>
__device__ __forceinline__ void SumActivations(const BlocksRing<T>& ring, const BlocksArguments& a,
                                               int warp) {
  using B = Blocks<T::kType>;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int stages = RoundsOf<T>(a) * T::kStages;
  uint32_t parity = 0;
  int slot = 0;
  for (int tile = static_cast<int>(blockIdx.x); tile < a.tiles;
       tile += static_cast<int>(gridDim.x)) {
    for (int i = 0; i < stages; ++i) {
      WaitBarrier(ring.Full(slot), parity);
      const uint8_t* x = ring.bytes + slot * T::kStageBytes;
      for (int first = 8 * warp; first < T::kRows; first += 8 * kSumWarps) {
#pragma unroll
        for (int piece = 0; piece < 4; ++piece) {
          uint32_t b[4];
          LdMatrix(b, x + piece / 2 * T::kPartBytes +
                          Swizzled(first + lane % 8, piece % 2 * 4 + lane / 8));
          constexpr int kGroupsOfPiece = 32 / B::kGroupInputs;
#pragma unroll
          for (int j = 0; j < kGroupsOfPiece; ++j) {
            const int group = piece * kGroupsOfPiece + j;
            const float2 sum = SumOfGroup<T::kType>(b, group * B::kStepsOfGroup);
            if (lane < kSumLanes) {
              *reinterpret_cast<float2*>(ring.SumsOf(slot) + group * T::kRows + first + 2 * lane) =
                  sum;
            }
          }
        }
      }
      __syncwarp();
      if (lane < kSumLanes) Arrive(ring.Summed(slot));  // each for what it wrote
      if (++slot == T::kStages) {
        slot = 0;
        parity ^= 1;
      }
    }
  }
}

/// What a warp multiplies next: its tile's chunks in their order, one of them loaded ahead.
template <BlockType kType>
struct BlockReader {
  const uint8_t* tile;
  ChunkOrder<kBlockSlices> order;

  __device__ __forceinline__ void Load(BlockOperand<kType>& w, int chunks, int lane) {
    using B = Blocks<kType>;
    constexpr int kChunksOfUnit = B::kFormat.chunks_per_unit();
    int chunk = order.Take(chunks);
    if (chunk == chunks) chunk = 0;  // beside zeros
    const uint8_t* unit =
        tile + static_cast<int64_t>(chunk / kChunksOfUnit) * B::kFormat.unit_bytes();
    w.Load(unit, unit + B::kHeaderBytes + chunk % kChunksOfUnit * B::kFormat.chunk_bytes(), lane);
  }
};

template <BlockType kType>
using Operands = uint32_t[Blocks<kType>::kStepsOfGroup][4];

template <int kGroup, BlockType kType>
__device__ __forceinline__ void WidenGroup(Operands<kType>& a, const BlockOperand<kType>& w) {
  constexpr int kFirst = kGroup * Blocks<kType>::kStepsOfGroup;
  w.codes.template Widen<kFirst>(a[0]);
  if constexpr (Blocks<kType>::kStepsOfGroup == 2) w.codes.template Widen<kFirst + 1>(a[1]);
}

/// sums += group kGroup and all behind it; a: the widened group, in the end the next chunk's first.
template <typename T, int kGroup, typename LoadNext>
__device__ __forceinline__ void MultiplyGroups(float (&sums)[T::kSums], Operands<T::kType>& a,
                                               const BlockOperand<T::kType>& w,
                                               BlockOperand<T::kType>& next, uint64_t b,
                                               const float* x_sums, const LoadNext& load_next) {
  using B = Blocks<T::kType>;
  constexpr int kFirst = kGroup * B::kStepsOfGroup;
  constexpr uint64_t kPartDescriptor = T::kPartBytes >> 4;
  float chain[T::kSums];
  BeginProducts();
#pragma unroll
  for (int i = 0; i < B::kStepsOfGroup; ++i) {
    const int step = kFirst + i;
    Wgmma<T::kRows>::Run(chain, a[i], b + step / 4 * kPartDescriptor + step % 4 * kStepDescriptor,
                         i > 0);
  }
  CommitProducts();
  // Meanwhile: what does not depend on the products.
  Operands<T::kType> widened;
  if constexpr (kGroup + 1 < B::kGroups) {
    WidenGroup<kGroup + 1>(widened, w);
  } else {
    WidenGroup<0>(widened, next);
  }
  if constexpr (kGroup == B::kGroups / 2) load_next(next);
  const float2 scale = w.scales.Of(kGroup);
  if constexpr (B::kHasMinimum) {
    const float2 minimum = w.minimums.Of(kGroup);
#pragma unroll
    for (int i = 0; i < T::kRows / 8; ++i) {
      const float2 x_sum = *reinterpret_cast<const float2*>(x_sums + kGroup * T::kRows + 8 * i);
      sums[4 * i] = fmaf(minimum.x, x_sum.x, sums[4 * i]);
      sums[4 * i + 1] = fmaf(minimum.x, x_sum.y, sums[4 * i + 1]);
      sums[4 * i + 2] = fmaf(minimum.y, x_sum.x, sums[4 * i + 2]);
      sums[4 * i + 3] = fmaf(minimum.y, x_sum.y, sums[4 * i + 3]);
    }
  }
  WaitForProducts<0>();
  Pin(chain);
#pragma unroll
  for (int i = 0; i < T::kSums; ++i) {
    sums[i] = fmaf(i / 2 % 2 == 0 ? scale.x : scale.y, chain[i], sums[i]);
  }
#pragma unroll
  for (int i = 0; i < B::kStepsOfGroup; ++i) {
#pragma unroll
    for (int r = 0; r < 4; ++r) a[i][r] = widened[i][r];
  }
  if constexpr (kGroup + 1 < B::kGroups) {
    MultiplyGroups<T, kGroup + 1>(sums, a, w, next, b, x_sums, load_next);
  }
}

/// A slice's sums go to this thread's part of the totals of all slices; then begin anew.
template <typename T>
__device__ __forceinline__ void EndSlice(float4* totals, float (&sums)[T::kSums], bool first) {
#pragma unroll
  for (int i = 0; i < T::kSums / 4; ++i) {
    float4 four = make_float4(sums[4 * i], sums[4 * i + 1], sums[4 * i + 2], sums[4 * i + 3]);
    float4& total = totals[i * kGroupThreads];
    const float4 old = total;
    if (!first) four = make_float4(old.x + four.x, old.y + four.y, old.z + four.z, old.w + four.w);
    total = four;
#pragma unroll
    for (int j = 0; j < 4; ++j) sums[4 * i + j] = 0;
  }
}

/// From each thread's part to rows of outputs, in the same memory.
template <typename T>
__device__ __forceinline__ void StageTotals(float* totals, int group) {
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  const int lane = thread % kWarpThreads;
  float4 own[T::kSums / 4];
#pragma unroll
  for (int i = 0; i < T::kSums / 4; ++i) {
    own[i] = reinterpret_cast<const float4*>(totals)[thread + i * kGroupThreads];
  }
  SyncThreads<kGroupThreads>(1 + group);
  constexpr float kScale = Blocks<T::kType>::kSumScale;
  float* to =
      totals + 2 * (lane % 4) * kStagedStride + thread / kWarpThreads * kTileOutputs + lane / 4;
#pragma unroll
  for (int i = 0; i < T::kSums / 4; ++i) {
    to[8 * i * kStagedStride] = __fmul_rn(own[i].x, kScale);
    to[(8 * i + 1) * kStagedStride] = __fmul_rn(own[i].y, kScale);
    to[8 * i * kStagedStride + 8] = __fmul_rn(own[i].z, kScale);
    to[(8 * i + 1) * kStagedStride + 8] = __fmul_rn(own[i].w, kScale);
  }
  SyncThreads<kGroupThreads>(1 + group);
}

/// A warpgroup that multiplies.
template <typename T>
__device__ __forceinline__ void ConsumeBlocks(const BlocksRing<T>& ring, const Output& out,
                                              const BlocksArguments& a) {
  using B = Blocks<T::kType>;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) % kGroupThreads / kWarpThreads;
  // From lane 0, so that the compiler knows it to be the same in all lanes.
  const int group = __shfl_sync(kFullMask, static_cast<int>(threadIdx.x) / kGroupThreads, 0);
  const int rounds = RoundsOf<T>(a);
  const int slices = a.chunks < kBlockSlices ? a.chunks : kBlockSlices;
  float* totals = ring.Totals(group);
  float4* own_totals = reinterpret_cast<float4*>(totals) + threadIdx.x % kGroupThreads;
  const auto weights_of = [&](int tile) {
    const int own = tile / a.row_tiles * (kOutputs / kTileOutputs) + group * kTilesOfGroup + warp;
    return a.weights + (own < a.weight_tiles ? own : 0) * a.tile_bytes;
  };
  BlockOperand<T::kType> w;
  BlockOperand<T::kType> next;
  Operands<T::kType> widened;
  uint32_t parity = 0;
  bool waits = true;
  for (int tile = static_cast<int>(blockIdx.x); tile < a.tiles;
       tile += static_cast<int>(gridDim.x)) {
    BlockReader<T::kType> stream{weights_of(tile), {}};
    stream.Load(next, a.chunks, lane);
    if (waits) WaitForPredecessor();
    waits = false;
    WidenGroup<0>(widened, next);
    float sums[T::kSums] = {};
    int slice = 0;
    int left = (a.chunks + kBlockSlices - 1) / kBlockSlices;  // chunks of the slice
    for (int round = 0; round < rounds; ++round) {
      // Slots are constants, so that descriptors lie in uniform registers.
#pragma unroll
      for (int slot = 0; slot < T::kStages; ++slot) {
        w = next;
        if constexpr (B::kHasMinimum) WaitBarrier(ring.Summed(slot), parity);
        WaitBarrier(ring.Full(slot), parity);
        MultiplyGroups<T, 0>(
            sums, widened, w, next, RowsDescriptor(ring.Stage(slot)),
            ring.SumsOf(slot) + 2 * (lane % 4),
            [&](BlockOperand<T::kType>& operand) { stream.Load(operand, a.chunks, lane); });
        if constexpr (B::kHasMinimum) __syncwarp();  // every lane has read its sums
        if (lane == 0) Arrive(ring.Empty(slot));
        if (--left == 0) {
          EndSlice<T>(own_totals, sums, slice == 0);
          ++slice;
          left = slice < slices ? (a.chunks - slice + kBlockSlices - 1) / kBlockSlices : 0;
        }
      }
      parity ^= 1;
    }
    StageTotals<T>(totals, group);
    StorePieces<T::kRows, kGroupOutputs>(out, totals,
                                         tile / a.row_tiles * kOutputs + group * kGroupOutputs,
                                         tile % a.row_tiles * T::kRows, a);
    SyncThreads<kGroupThreads>(1 + group);
  }
  if (waits) WaitForPredecessor();
}

template <typename T>
__global__ void __launch_bounds__(kThreads, 1)
    BlocksSm90Kernel(Output out, BlocksArguments a, const __grid_constant__ CUtensorMap x) {
  ReleaseSuccessor();
  const BlocksRing<T> ring;
  if (threadIdx.x == 0) {
    for (int slot = 0; slot < T::kStages; ++slot) {
      InitBarrier(ring.Full(slot), 1);
      InitBarrier(ring.Empty(slot), kMultipliers * kGroupThreads / kWarpThreads);
      InitBarrier(ring.Summed(slot), kSumWarps * kSumLanes);
    }
    PublishBarriers();
  }
  __syncthreads();
  constexpr int kFeeder = kMultipliers * kGroupThreads;
  if (threadIdx.x >= kFeeder) {
    GiveRegisters<40>();
    WaitForPredecessor();
    const int warp = (static_cast<int>(threadIdx.x) - kFeeder) / kWarpThreads;
    if (threadIdx.x == kFeeder) FeedRows<T>(ring, x, a);
    if (Blocks<T::kType>::kHasMinimum && warp > 0) SumActivations<T>(ring, a, warp - 1);
  } else {
    TakeRegisters<232>();
    ConsumeBlocks<T>(ring, out, a);
  }
}

int Ceil(int a, int b) { return (a + b - 1) / b; }
bool Aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

template <typename T>
cudaError_t LaunchBlocks(const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  constexpr BlockFormat kFormat = Blocks<T::kType>::kFormat;
  CUtensorMap x_map;
  const cudaError_t error =
      EncodeTensorMap({operands.x, false, operands.rows, w.inputs}, T::kRows, x_map);
  if (error != cudaSuccess) return error;
  const Output out(operands, w);
  const int row_tiles = Ceil(operands.rows, T::kRows);
  const int tiles = Ceil(w.packed_outputs(), kOutputs) * row_tiles;
  const BlocksArguments arguments{static_cast<const uint8_t*>(w.data),
                                  w.tile_bytes(),
                                  w.packed_outputs() / kTileOutputs,
                                  w.packed_outputs(),
                                  operands.rows,
                                  row_tiles,
                                  tiles,
                                  Ceil(w.inputs, kFormat.unit_inputs()) * kFormat.chunks_per_unit(),
                                  Aligned(out.y) && out.stride % 8 == 0};
  const int blocks = std::min(tiles, MultiprocessorCount());
  const LaunchShape shape{"MatMul, blocks, sm_90", dim3(static_cast<unsigned>(blocks)),
                          dim3(kThreads), T::kSharedBytes, stream};
  return Launch(shape, BlocksSm90Kernel<T>, out, arguments, x_map);
}

}  // namespace

bool BlocksSm90Takes(const MatMulOperands& operands, const Weights& w) {
  static const bool has = RunsSm90() && TensorMapEncoder() != nullptr;
  return has && w.format == WeightFormat::kBlocks && w.block_type != BlockType::kWide &&
         w.inputs % 8 == 0 && Aligned(operands.x);
}

cudaError_t MatMulBlocksSm90By(bool tall, const MatMulOperands& operands, const Weights& w,
                               cudaStream_t stream) {
  return ForBlockType(w.block_type, [&](auto type) {
    constexpr BlockType kType = decltype(type)::kValue;
    if constexpr (kType == BlockType::kWide) {
      return cudaErrorInvalidValue;
    } else {
      return tall ? LaunchBlocks<BlocksTile<kType, 128, 4>>(operands, w, stream)
                  : LaunchBlocks<BlocksTile<kType, 64, 4>>(operands, w, stream);
    }
  });
}

cudaError_t MatMulBlocksSm90(const MatMulOperands& operands, const Weights& w,
                             cudaStream_t stream) {
  const auto rounds = [&](int rows) {
    return Ceil(Ceil(w.packed_outputs(), kOutputs) * Ceil(operands.rows, rows),
                MultiprocessorCount());
  };
  // A tile of 128 rows takes 1.7 times as long as one of 64.
  return MatMulBlocksSm90By(17 * rounds(128) <= 10 * rounds(64), operands, w, stream);
}

}  // namespace neurogrid::kernels
