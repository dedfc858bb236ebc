// More rows times blocks: a block multiplies kOutputs outputs by 64 rows, chunk after chunk through
// shared memory, in the order of the slices. Codes widen in registers; no matrix ever lies in
// memory in another form.
#include "kernels/launch.h"
#include "kernels/matmul_blocks.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kRows = 64;
constexpr int kStages = 3;
constexpr int kPartBytes = 128;  // 64 inputs of a row of x
constexpr int kXBytes = 2 * kRows * kPartBytes;

template <BlockType kType, int kOutputs>
struct TileShape {
  static constexpr int kTiles = kOutputs / kTileOutputs;
  static constexpr int kWarpsDown = kOutputs == 128 ? 4 : 2;  // along outputs
  static constexpr int kWarpsAcross = 8 / kWarpsDown;         // along rows
  static constexpr int kM = kTiles / kWarpsDown;
  static constexpr int kN = kRows / 8 / kWarpsAcross;
  static constexpr int kWeightBytes = kTiles * Blocks<kType>::kStageBytes;
  static constexpr int kXAt = (kWeightBytes + 127) / 128 * 128;
  static constexpr int kStageBytes = kXAt + kXBytes;
};

/// This lane's places in one chunk of x: two parts of 64 inputs, each in swizzled rows.
struct ChunkOfTile {
  const uint8_t* x;
  int first;  // row
  int lane;

  __device__ __forceinline__ const uint8_t* Piece(int n, int piece) const {
    return x + piece / 2 * kRows * kPartBytes +
           Swizzled(first + 8 * n + lane % 8, piece % 2 * 4 + lane / 8);
  }
  template <BlockType kType>
  __device__ __forceinline__ float2 SumOf(int, int group, const uint32_t (&b)[4]) const {
    return SumOfGroup<kType>(b, group * Blocks<kType>::kStepsOfGroup);
  }
};

/// The chunks in the order in which they are summed.
struct Order {
  int slice = 0;
  int chunk = 0;

  /// True when a slice ends.
  __device__ __forceinline__ bool Next(int chunks) {
    chunk += kBlockSlices;
    if (chunk < chunks) return false;
    chunk = ++slice;
    return true;
  }
};

struct TileArguments {
  const uint8_t* weights;
  int64_t tile_bytes;
  int tiles;
  int chunks;
  const bf16* x;
  int rows;
  int inputs;
};

template <BlockType kType, int kOutputs>
__device__ __forceinline__ void CopyWeights(uint8_t* stage, const TileArguments& a, int chunk) {
  using Shape = TileShape<kType, kOutputs>;
  constexpr int kThreadsOfTile = kThreads / Shape::kTiles;
  const int slot = static_cast<int>(threadIdx.x) / kThreadsOfTile;
  const int tile = static_cast<int>(blockIdx.x) * Shape::kTiles + slot;
  const bool live = tile < a.tiles;
  CopyBlocks<kType>(stage + slot * Blocks<kType>::kStageBytes,
                    a.weights + (live ? tile : 0) * a.tile_bytes, chunk, live,
                    static_cast<int>(threadIdx.x) % kThreadsOfTile, kThreadsOfTile);
}

__device__ __forceinline__ void CopyActivations(uint8_t* x, const TileArguments& a, int chunk) {
  const int first = static_cast<int>(blockIdx.y) * kRows;
#pragma unroll
  for (int i = static_cast<int>(threadIdx.x); i < 2 * kRows * 8; i += kThreads) {
    const int part = i / (kRows * 8);
    const int row = i / 8 % kRows;
    const int column = chunk * kBlockChunkInputs + part * 64 + i % 8 * 8;
    const bool live = first + row < a.rows && column < a.inputs;
    const bf16* from = live ? a.x + static_cast<int64_t>(first + row) * a.inputs + column : a.x;
    CopyAsync16(x + part * kRows * kPartBytes + Swizzled(row, i % 8), from, live);
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

template <BlockType kType, int kOutputs>
__global__ void __launch_bounds__(kThreads) TilesOfBlocksKernel(Output out, TileArguments a) {
  using Shape = TileShape<kType, kOutputs>;
  ReleaseSuccessor();
  uint8_t* shared = SharedMemory<uint8_t>();
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int down = warp / Shape::kWarpsAcross;
  const int across = warp % Shape::kWarpsAcross;

  Order next;
  int issued = 0;
  for (; issued < kStages - 1 && issued < a.chunks; ++issued) {
    CopyWeights<kType, kOutputs>(shared + issued * Shape::kStageBytes, a, next.chunk);
    next.Next(a.chunks);
  }
  WaitForPredecessor();
  next = {};
  for (int i = 0; i < kStages - 1; ++i) {
    if (i < a.chunks) {
      CopyActivations(shared + i * Shape::kStageBytes + Shape::kXAt, a, next.chunk);
      next.Next(a.chunks);
    }
    CommitCopies();
  }

  float sums[Shape::kM][Shape::kN][4] = {};
  float totals[Shape::kM][Shape::kN][4] = {};
  Order order;
  for (int i = 0; i < a.chunks; ++i) {
    WaitForCopies<kStages - 2>();
    __syncthreads();
    if (issued < a.chunks) {
      uint8_t* stage = shared + issued % kStages * Shape::kStageBytes;
      CopyWeights<kType, kOutputs>(stage, a, next.chunk);
      CopyActivations(stage + Shape::kXAt, a, next.chunk);
      next.Next(a.chunks);
      ++issued;
    }
    CommitCopies();
    const uint8_t* stage = shared + i % kStages * Shape::kStageBytes;
    const ChunkOfTile x{stage + Shape::kXAt, across * Shape::kN * 8, lane};
    BlockOperand<kType> w[Shape::kM];
#pragma unroll
    for (int m = 0; m < Shape::kM; ++m) {
      w[m].Load(stage + (down * Shape::kM + m) * Blocks<kType>::kStageBytes, lane);
    }
    MultiplyBlocks<kType, Shape::kM, Shape::kN>(sums, w, x);
    const int slice = order.slice;
    if (order.Next(a.chunks)) AddSums(totals, sums, slice == 0);
  }
  if (a.chunks < kBlockSlices) AddSums(totals, sums, false);  // the slices without chunks: zeros
  const int tile = static_cast<int>(blockIdx.x) * Shape::kTiles + down * Shape::kM;
  const int row = static_cast<int>(blockIdx.y) * kRows + across * Shape::kN * 8;
  StoreSums(out, totals, Blocks<kType>::kSumScale, tile, a.tiles, row, a.rows, lane);
}

template <BlockType kType, int kOutputs>
cudaError_t LaunchTiles(const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  using Shape = TileShape<kType, kOutputs>;
  constexpr int kUnit = Blocks<kType>::kFormat.unit_inputs();
  const int tiles = w.packed_outputs() / kTileOutputs;
  const auto blocks = static_cast<unsigned>((tiles + Shape::kTiles - 1) / Shape::kTiles);
  const auto row_blocks = static_cast<unsigned>((operands.rows + kRows - 1) / kRows);
  const LaunchShape shape{"MatMul, tiles of blocks", dim3(blocks, row_blocks), dim3(kThreads),
                          kStages * Shape::kStageBytes, stream};
  const TileArguments arguments{
      static_cast<const uint8_t*>(w.data),
      w.tile_bytes(),
      tiles,
      (w.inputs + kUnit - 1) / kUnit * Blocks<kType>::kFormat.chunks_per_unit(),
      static_cast<const bf16*>(operands.x),
      operands.rows,
      w.inputs};
  return Launch(shape, TilesOfBlocksKernel<kType, kOutputs>, Output(operands, w), arguments);
}

}  // namespace

cudaError_t MatMulTilesOfBlocks(bool wide, const MatMulOperands& operands, const Weights& w,
                                cudaStream_t stream) {
  return ForBlockType(w.block_type, [&](auto type) {
    constexpr BlockType kType = decltype(type)::kValue;
    return wide ? LaunchTiles<kType, 128>(operands, w, stream)
                : LaunchTiles<kType, 32>(operands, w, stream);
  });
}

}  // namespace neurogrid::kernels
