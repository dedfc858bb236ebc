// The shape of a block's work on sm_90a, its shared memory, and how its sums become y.
#pragma once

#include <algorithm>

#include "kernels/matmul_pieces.cuh"
#include "kernels/wgmma.cuh"

namespace neurogrid::kernels {

inline constexpr int kGroupThreads = 128;
inline constexpr int kGroupOutputs = 64;                 // of one wgmma
inline constexpr int kStagedStride = kGroupOutputs + 4;  // floats: no bank conflicts
inline constexpr int kBarriers = 2;                      // of a stage: full, empty
inline constexpr int kBoxBytes = 16 * 1024;              // of y, for each warpgroup

/// A block's shared memory: a ring of stages from the first place for swizzled rows on, and
/// kBarriersOfStage barriers for each.
template <int kStageBytes, int kBarriersAt, int kBarriersOfStage>
struct StageRing {
  uint8_t* bytes = SwizzleAligned(SharedMemory<uint8_t>());
  uint32_t address = SharedAddress(bytes);

  __device__ __forceinline__ uint32_t Stage(int slot) const {
    return address + static_cast<uint32_t>(slot * kStageBytes);
  }
  /// What was copied is there; it is no longer needed.
  __device__ __forceinline__ uint32_t Full(int slot) const {
    return address + static_cast<uint32_t>(kBarriersAt + slot * kBarriersOfStage * kBarrierBytes);
  }
  __device__ __forceinline__ uint32_t Empty(int slot) const { return Full(slot) + kBarrierBytes; }
};

/// kGroups warpgroups of kOwned outputs by kRows rows; a ring of kStages chunks. kSplit: a block
/// has one slice.
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
  // Whether a bf16 y leaves by map (matmul_sm90_boxes.cuh).
  static constexpr bool kBoxes = !kSplit && kGroups == 2 && kOwned == kGroupOutputs && kRows >= 64;
  // Widened weights, or 128 sums, need more registers than nine warps may have, three of them in a
  // quarter of the file: a whole warpgroup copies and gives up its own.
  static constexpr bool kMovesRegisters =
      kGroups == 2 &&
      (kFormat == WeightFormat::kInt8 || (!kSplit && kRows * (kSlices > 1 ? 2 : 1) >= 256));
  static constexpr int kThreads =
      kGroups * kGroupThreads + (kMovesRegisters ? kGroupThreads : kWarpThreads);
  static constexpr int kParts = kChunkInputs<kFormat> / 64;  // of x: 64 inputs are 128 bytes
  static constexpr int kWeightBytes = kOutputs * kChunkBytes;
  static constexpr int kPartBytes = kRows * kChunkBytes;
  static constexpr int kStageBytes = kWeightBytes + kParts * kPartBytes;
  static constexpr int kRingBytes = kStages * kStageBytes;
  static constexpr int kStagedRows = kRows < 32 ? kRows : 32;  // of y at once
  static constexpr int kStagedFloats = kStagedRows * kStagedStride;
  // Products of outputs that are not owned read behind the weights, at last behind the ring.
  static constexpr int kBehindBytes =
      std::max<int>(kSplit ? 0 : kGroups * (kBoxes ? kBoxBytes : kStagedFloats * 4),
                    ((kGroups - 1) * kOwned + kGroupOutputs) * kChunkBytes - kStageBytes);
  static constexpr int kSharedBytes =
      kSwizzleBytes + kRingBytes + kBehindBytes +
      (kStages * kBarriers + (kBoxes ? kGroups : 0)) * kBarrierBytes;
  static constexpr int kSums = kRows / 2;  // of a thread

  static_assert(kOwned % kTileOutputs == 0 && kOwned <= kGroupOutputs);
  static_assert(kPartBytes % kSwizzleBytes == 0 && kBehindBytes % 16 == 0);
  static_assert(kStagedFloats * 4 <= kBoxBytes);
};

struct Sm90Arguments {
  int packed_outputs;
  int rows;
  int row_tiles;
  int tiles;
  int chunks;
  uint64_t weights_policy;
  bool wide_stores;  // eight elements of y are 16-byte aligned
  bool boxes;        // y leaves by map
};

template <typename T>
struct Ring : StageRing<T::kStageBytes, T::kRingBytes + T::kBehindBytes, kBarriers> {
  __device__ __forceinline__ float* Staged(int group) const {
    return reinterpret_cast<float*>(this->bytes + T::kRingBytes) + group * T::kStagedFloats;
  }
  __device__ __forceinline__ uint32_t Box(int group) const {
    return this->address + static_cast<uint32_t>(T::kRingBytes + group * kBoxBytes);
  }
  /// What y held is there.
  __device__ __forceinline__ uint32_t Old(int group) const {
    return this->Full(T::kStages) + static_cast<uint32_t>(group * kBarrierBytes);
  }
};

inline constexpr int kPicked = 16;  // sums of a thread that one pass through an epilogue takes

template <int kFirst, int kCount>
__device__ __forceinline__ void CopySome(const float (&sums)[kCount], float (&some)[kPicked]) {
  if constexpr (kFirst < kCount) {
#pragma unroll
    for (int i = 0; i < kPicked; ++i) some[i] = sums[kFirst + i];
  }
}

/// Sums [kPicked part, kPicked (part + 1)). A copy, so that there is one epilogue and not one for
/// each part: a block passes through it a few times, and code that is in no cache takes longer to
/// fetch than to run.
template <int kCount>
__device__ __forceinline__ void Pick(const float (&sums)[kCount], int part,
                                     float (&some)[kPicked]) {
  static_assert(kCount % kPicked == 0 && kCount <= 8 * kPicked);
  switch (part) {
    case 0:
      return CopySome<0>(sums, some);
    case 1:
      return CopySome<kPicked>(sums, some);
    case 2:
      return CopySome<2 * kPicked>(sums, some);
    case 3:
      return CopySome<3 * kPicked>(sums, some);
    case 4:
      return CopySome<4 * kPicked>(sums, some);
    case 5:
      return CopySome<5 * kPicked>(sums, some);
    case 6:
      return CopySome<6 * kPicked>(sums, some);
    default:
      return CopySome<7 * kPicked>(sums, some);
  }
}

/// kRows rows of kOwned staged sums become y from row `row` and output `output` on; each thread of
/// a warpgroup takes pieces.
template <int kRows, int kOwned, typename Arguments>
__device__ __forceinline__ void StorePieces(const Output& out, const float* staged, int output,
                                            int row, const Arguments& a) {
  const bool gated = out.epilogue == Epilogue::kSiluGated || out.epilogue == Epilogue::kGeluGated;
  const int piece_outputs = gated ? kTileOutputs : kTileOutputs / 2;
  const int pieces = kOwned / piece_outputs;
#pragma unroll 1
  for (int i = static_cast<int>(threadIdx.x) % kGroupThreads; i < kRows * pieces;
       i += kGroupThreads) {
    const int own_row = i / pieces;
    const int at = i % pieces * piece_outputs;
    if (row + own_row < a.rows && output + at < a.packed_outputs) {
      FinishPiece(out, staged + own_row * kStagedStride + at, row + own_row, output + at, gated,
                  a.wide_stores);
    }
  }
}

/// A warpgroup's sums, through shared memory, so that neighbours in y are stored at once.
template <typename T>
__device__ __forceinline__ void StoreTile(const Output& out, const float (&sums)[T::kSums],
                                          float* staged, int group, int output, int first_row,
                                          const Sm90Arguments& a) {
  const int thread = static_cast<int>(threadIdx.x) % kGroupThreads;
  const int lane = thread % kWarpThreads;
  const int warp = thread / kWarpThreads;
  static_assert(T::kStagedRows == 2 * kPicked);
#pragma unroll 1
  for (int part = 0; part < T::kRows / T::kStagedRows; ++part) {
    const int part_row = first_row + part * T::kStagedRows;
    if (part_row >= a.rows) break;
    float some[kPicked];
    Pick(sums, part, some);
    if (warp < T::kOwned / kTileOutputs) {
#pragma unroll
      for (int i = 0; i < kPicked; ++i) {
        const int row = i / 4 * 8 + 2 * (lane % 4) + i % 2;
        staged[row * kStagedStride + kTileOutputs * warp + lane / 4 + i / 2 % 2 * 8] = some[i];
      }
    }
    SyncThreads<kGroupThreads>(1 + group);
    StorePieces<T::kStagedRows, T::kOwned>(out, staged, output, part_row, a);
    SyncThreads<kGroupThreads>(1 + group);
  }
}

}  // namespace neurogrid::kernels
