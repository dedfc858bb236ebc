// More rows: a block multiplies kOutputs outputs by 64 rows, chunk after chunk through shared
// memory, in the order of the slices.
#include "kernels/launch.h"
#include "kernels/matmul.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kRows = 64;
constexpr int kStages = 3;

template <WeightFormat kFormat, int kOutputs>
struct TileShape {
  static constexpr int kWarpsDown = kOutputs == 128 ? 4 : 2;  // along outputs
  static constexpr int kWarpsAcross = 8 / kWarpsDown;         // along rows
  static constexpr int kM = kOutputs / kTileOutputs / kWarpsDown;
  static constexpr int kN = kRows / 8 / kWarpsAcross;
  static constexpr int kWeightBytes = kOutputs * kChunkBytes;
  static constexpr int kParts = kChunkInputs<kFormat> / 64;  // of x: 64 inputs are 128 bytes
  static constexpr int kStageBytes = kWeightBytes + kParts * kRows * kChunkBytes;
};

/// Activations of one chunk, from row `first` of the tile on.
struct TileRows {
  const uint8_t* x;
  int first;

  __device__ __forceinline__ const bf16* Piece(int row, int column) const {
    const uint8_t* part = x + column / 64 * kRows * kChunkBytes;
    return reinterpret_cast<const bf16*>(part + Swizzled(first + row, column % 64 / 8));
  }
};

/// The chunks in the order in which they are summed.
template <int kSlices>
struct Order {
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

struct TileArguments {
  const uint8_t* weights;
  int packed_outputs;
  int padded;  // inputs of a row of weights
  const bf16* x;
  int rows;
  int inputs;
};

template <WeightFormat kFormat, int kOutputs>
__device__ __forceinline__ void CopyWeights(uint8_t* stage, const TileArguments& a, int chunk) {
  const int64_t row_bytes = static_cast<int64_t>(a.padded) * Weights::ElementBytes(kFormat);
  const int first = static_cast<int>(blockIdx.x) * kOutputs;
  for (int i = static_cast<int>(threadIdx.x); i < kOutputs * 8; i += kThreads) {
    const bool live = first + i / 8 < a.packed_outputs;
    const int64_t row = live ? first + i / 8 : first;
    CopyAsync16(stage + Swizzled(i / 8, i % 8),
                a.weights + row * row_bytes + chunk * kChunkBytes + i % 8 * 16, live);
  }
}

template <WeightFormat kFormat, int kOutputs>
__device__ __forceinline__ void CopyActivations(uint8_t* stage, const TileArguments& a, int chunk) {
  using Shape = TileShape<kFormat, kOutputs>;
  uint8_t* x = stage + Shape::kWeightBytes;
  const int first = static_cast<int>(blockIdx.y) * kRows;
  for (int i = static_cast<int>(threadIdx.x); i < Shape::kParts * kRows * 8; i += kThreads) {
    const int part = i / (kRows * 8);
    const int row = i / 8 % kRows;
    const int column = chunk * kChunkInputs<kFormat> + part * 64 + i % 8 * 8;
    const bool live = first + row < a.rows && column < a.inputs;
    const bf16* from = live ? a.x + static_cast<int64_t>(first + row) * a.inputs + column : a.x;
    CopyAsync16(x + part * kRows * kChunkBytes + Swizzled(row, i % 8), from, live);
  }
}

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
__device__ __forceinline__ void StoreSums(const Output& out, const float (&totals)[kM][kN][4],
                                          int tile, int tiles, int row, int rows, int lane) {
#pragma unroll
  for (int m = 0; m < kM; ++m) {
    if (tile + m >= tiles) continue;
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const int r = row + 8 * n + 2 * (lane % 4);
      if (r < rows) StorePair(out, r, tile + m, lane / 4, totals[m][n][0], totals[m][n][2]);
      if (r + 1 < rows) StorePair(out, r + 1, tile + m, lane / 4, totals[m][n][1], totals[m][n][3]);
    }
  }
}

template <WeightFormat kFormat, int kOutputs, int kSlices>
__global__ void __launch_bounds__(kThreads) TilesKernel(Output out, TileArguments a) {
  using Shape = TileShape<kFormat, kOutputs>;
  ReleaseSuccessor();
  uint8_t* shared = SharedMemory<uint8_t>();
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int down = warp / Shape::kWarpsAcross;
  const int across = warp % Shape::kWarpsAcross;
  const int chunks = a.padded / kChunkInputs<kFormat>;

  Order<kSlices> next;
  int issued = 0;
  for (; issued < kStages - 1 && issued < chunks; ++issued) {
    CopyWeights<kFormat, kOutputs>(shared + issued * Shape::kStageBytes, a, next.chunk);
    next.Next(chunks);
  }
  WaitForPredecessor();
  next = {};
  for (int i = 0; i < kStages - 1; ++i) {
    if (i < chunks) {
      CopyActivations<kFormat, kOutputs>(shared + i * Shape::kStageBytes, a, next.chunk);
      next.Next(chunks);
    }
    CommitCopies();
  }

  float sums[Shape::kM][Shape::kN][4] = {};
  float totals[Shape::kM][Shape::kN][4] = {};
  Order<kSlices> order;
  for (int i = 0; i < chunks; ++i) {
    WaitForCopies<kStages - 2>();
    __syncthreads();
    if (issued < chunks) {
      uint8_t* stage = shared + issued % kStages * Shape::kStageBytes;
      CopyWeights<kFormat, kOutputs>(stage, a, next.chunk);
      CopyActivations<kFormat, kOutputs>(stage, a, next.chunk);
      next.Next(chunks);
      ++issued;
    }
    CommitCopies();
    const uint8_t* stage = shared + i % kStages * Shape::kStageBytes;
    const TileRows activations{stage + Shape::kWeightBytes, across * Shape::kN * 8};
    MultiplyChunk<kFormat, Shape::kM, Shape::kN>(
        sums, stage + down * Shape::kM * kTileOutputs * kChunkBytes, activations, lane);
    const int slice = order.slice;
    if (order.Next(chunks)) AddSums(totals, sums, slice == 0);
  }
  if (chunks < kSlices) AddSums(totals, sums, false);  // the slices without chunks: zeros
  const int tile = static_cast<int>(blockIdx.x) * kOutputs / kTileOutputs + down * Shape::kM;
  const int row = static_cast<int>(blockIdx.y) * kRows + across * Shape::kN * 8;
  StoreSums(out, totals, tile, a.packed_outputs / kTileOutputs, row, a.rows, lane);
}

template <WeightFormat kFormat, int kOutputs, int kSlices>
cudaError_t LaunchTiles(const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  const int packed = w.packed_outputs();
  const auto blocks = static_cast<unsigned>((packed + kOutputs - 1) / kOutputs);
  const auto row_blocks = static_cast<unsigned>((operands.rows + kRows - 1) / kRows);
  const LaunchShape shape{"MatMul, tiles", dim3(blocks, row_blocks), dim3(kThreads),
                          kStages * TileShape<kFormat, kOutputs>::kStageBytes, stream};
  const TileArguments arguments{static_cast<const uint8_t*>(w.data),  packed,        w.stride(),
                                static_cast<const bf16*>(operands.x), operands.rows, w.inputs};
  return Launch(shape, TilesKernel<kFormat, kOutputs, kSlices>, Output(operands, w), arguments);
}

template <WeightFormat kFormat>
cudaError_t LaunchFormat(bool wide, const MatMulOperands& operands, const Weights& w,
                         cudaStream_t stream) {
  if (SlicesOf(w.packed_outputs()) == 1) {
    return wide ? LaunchTiles<kFormat, 128, 1>(operands, w, stream)
                : LaunchTiles<kFormat, 32, 1>(operands, w, stream);
  }
  return wide ? LaunchTiles<kFormat, 128, 8>(operands, w, stream)
              : LaunchTiles<kFormat, 32, 8>(operands, w, stream);
}

}  // namespace

cudaError_t MatMulTiles(bool wide, const MatMulOperands& operands, const Weights& w,
                        cudaStream_t stream) {
  return w.format == WeightFormat::kInt8
             ? LaunchFormat<WeightFormat::kInt8>(wide, operands, w, stream)
             : LaunchFormat<WeightFormat::kBf16>(wide, operands, w, stream);
}

}  // namespace neurogrid::kernels
