// More rows: a block multiplies outputs by 64 rows, chunk after chunk through shared memory, in the
// order of the slices. What lies in a chunk of weights is the business of a Tile:
//
//   kOutputs, kChunkInputs, kSlices    of the matrix, as a block sees it
//   kWarpsDown                         warps along outputs; the others along rows
//   kWeightBytes                       of a stage, a multiple of 128
//   kSumScale                          what sums are multiplied with
//   CopyWeights(stage, a, chunk)       by all threads
//   Multiply(sums, stage, x, down, lane)
#pragma once

#include "kernels/device_limits.h"
#include "kernels/launch.h"
#include "kernels/matmul.cuh"

namespace neurogrid::kernels {

inline constexpr int kTileThreads = 256;
inline constexpr int kTileRows = 64;
inline constexpr int kNarrowTileBytesMax = 64 * 1024;  // narrow tiles fit on any GPU

struct TileArguments {
  const uint8_t* weights;
  int64_t tile_bytes;  // from 16 outputs to the next
  int tiles;           // of 16 outputs
  int chunks;
  const bf16* x;
  int rows;
  int inputs;
};

template <typename Tile>
struct TileShape {
  static constexpr int kWarpsAcross = kTileThreads / kWarpThreads / Tile::kWarpsDown;
  static constexpr int kM = Tile::kOutputs / kTileOutputs / Tile::kWarpsDown;
  static constexpr int kN = kTileRows / 8 / kWarpsAcross;
  static constexpr int kParts = Tile::kChunkInputs / 64;  // of x: 64 inputs are 128 bytes
  static constexpr int kPartBytes = kTileRows * kChunkBytes;
  static constexpr int kStageBytes = Tile::kWeightBytes + kParts * kPartBytes;
  static constexpr bool kShort = Tile::kOutputs == 32 && 3 * kStageBytes > kNarrowTileBytesMax;
  static constexpr int kStages = kShort ? 2 : 3;
  static constexpr int kBytes = kStages * kStageBytes;
  static_assert(Tile::kWeightBytes % 128 == 0);
};

/// Activations of one chunk, from row `first` of the tile on: parts of 64 inputs in swizzled rows.
struct ChunkOfTile {
  const uint8_t* x;
  int first;

  /// Eight inputs of a row.
  __device__ __forceinline__ const uint8_t* Eight(int row, int column) const {
    return x + column / 64 * kTileRows * kChunkBytes + Swizzled(first + row, column % 64 / 8);
  }
};

/// The chunks in the order in which they are summed.
template <int kSlices>
struct TileOrder {
  int slice = 0;
  int chunk = 0;

  /// True when a slice ends.
  __device__ __forceinline__ bool Next(int chunks) {
    chunk += kSlices;
    if (chunk < chunks) return false;
    chunk = ++slice;
    return true;
  }
};

template <typename Tile>
__device__ __forceinline__ void CopyActivations(uint8_t* stage, const TileArguments& a, int chunk) {
  uint8_t* x = stage + Tile::kWeightBytes;
  const int first = static_cast<int>(blockIdx.y) * kTileRows;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < TileShape<Tile>::kParts * kTileRows * 8;
       i += kTileThreads) {
    const int part = i / (kTileRows * 8);
    const int row = i / 8 % kTileRows;
    const int column = chunk * Tile::kChunkInputs + part * 64 + i % 8 * 8;
    const bool live = first + row < a.rows && column < a.inputs;
    const bf16* from = live ? a.x + static_cast<int64_t>(first + row) * a.inputs + column : a.x;
    CopyAsync16(x + part * TileShape<Tile>::kPartBytes + Swizzled(row, i % 8), from, live);
  }
}

/// totals += sums, which begin anew.
template <int kM, int kN>
__device__ __forceinline__ void AddSums(float (&totals)[kM][kN][4], float (&sums)[kM][kN][4],
                                        bool first) {
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        totals[m][n][i] = first ? sums[m][n][i] : totals[m][n][i] + sums[m][n][i];
        sums[m][n][i] = 0;
      }
    }
  }
}

template <int kM, int kN>
__device__ __forceinline__ void StoreSums(const Output& out, float (&totals)[kM][kN][4],
                                          float scale, int tile, int tiles, int row, int rows,
                                          int lane) {
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    if (tile + m >= tiles) continue;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
#pragma unroll
      for (float& total : totals[m][n]) total = __fmul_rn(total, scale);
      const int r = row + 8 * n + 2 * (lane % 4);
      if (r < rows) StorePair(out, r, tile + m, lane / 4, totals[m][n][0], totals[m][n][2]);
      if (r + 1 < rows) StorePair(out, r + 1, tile + m, lane / 4, totals[m][n][1], totals[m][n][3]);
    }
  }
}

template <typename Tile>
__global__ void __launch_bounds__(kTileThreads) TilesKernel(Output out, TileArguments a) {
  using Shape = TileShape<Tile>;
  ReleaseSuccessor();
  uint8_t* shared = SharedMemory<uint8_t>();
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int down = warp / Shape::kWarpsAcross;
  const int across = warp % Shape::kWarpsAcross;

  TileOrder<Tile::kSlices> next;
  int issued = 0;
  for (; issued < Shape::kStages - 1 && issued < a.chunks; ++issued) {
    Tile::CopyWeights(shared + issued * Shape::kStageBytes, a, next.chunk);
    next.Next(a.chunks);
  }
  WaitForPredecessor();
  next = {};
  for (int i = 0; i < Shape::kStages - 1; ++i) {
    if (i < a.chunks) {
      CopyActivations<Tile>(shared + i * Shape::kStageBytes, a, next.chunk);
      next.Next(a.chunks);
    }
    CommitCopies();
  }

  float sums[Shape::kM][Shape::kN][4] = {};
  float totals[Shape::kM][Shape::kN][4] = {};
  TileOrder<Tile::kSlices> order;
  for (int i = 0; i < a.chunks; ++i) {
    WaitForCopies<Shape::kStages - 2>();
    __syncthreads();
    if (issued < a.chunks) {
      uint8_t* stage = shared + issued % Shape::kStages * Shape::kStageBytes;
      Tile::CopyWeights(stage, a, next.chunk);
      CopyActivations<Tile>(stage, a, next.chunk);
      next.Next(a.chunks);
      ++issued;
    }
    CommitCopies();
    const uint8_t* stage = shared + i % Shape::kStages * Shape::kStageBytes;
    const ChunkOfTile x{stage + Tile::kWeightBytes, across * Shape::kN * 8};
    Tile::Multiply(sums, stage, x, down, lane);
    const int slice = order.slice;
    if (order.Next(a.chunks)) AddSums(totals, sums, slice == 0);
  }
  if (a.chunks < Tile::kSlices) AddSums(totals, sums, false);  // the slices without chunks: zeros
  const int tile = static_cast<int>(blockIdx.x) * Tile::kOutputs / kTileOutputs + down * Shape::kM;
  const int row = static_cast<int>(blockIdx.y) * kTileRows + across * Shape::kN * 8;
  StoreSums(out, totals, Tile::kSumScale, tile, a.tiles, row, a.rows, lane);
}

/// Wide tiles do not fit on sm_75.
template <typename Tile>
bool TilesFit() {
  return TileShape<Tile>::kBytes <= SharedBytesMax();
}

template <typename Tile>
cudaError_t LaunchTiles(const char* name, const MatMulOperands& operands, const Weights& w,
                        int chunks, cudaStream_t stream) {
  const int packed = w.packed_outputs();
  const auto blocks = static_cast<unsigned>((packed + Tile::kOutputs - 1) / Tile::kOutputs);
  const auto row_blocks = static_cast<unsigned>((operands.rows + kTileRows - 1) / kTileRows);
  const LaunchShape shape{name, dim3(blocks, row_blocks), dim3(kTileThreads),
                          TileShape<Tile>::kBytes, stream};
  const TileArguments arguments{static_cast<const uint8_t*>(w.data),
                                w.tile_bytes(),
                                packed / kTileOutputs,
                                chunks,
                                static_cast<const bf16*>(operands.x),
                                operands.rows,
                                w.inputs};
  return Launch(shape, TilesKernel<Tile>, Output(operands, w), arguments);
}

}  // namespace neurogrid::kernels
