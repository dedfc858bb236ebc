// Up to 16 rows: every warp streams its slice of 16 outputs at a time, the weights pass once.
#include "kernels/launch.h"
#include "kernels/matmul.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kWarps = 8;
constexpr int kThreads = kWarps * kWarpThreads;
constexpr int kRowsMax = 16;
constexpr int kStages = 4;  // of a warp's ring
constexpr int kStageBytes = kTileOutputs * kChunkBytes;
constexpr int kRingBytes = kWarps * kStages * kStageBytes;
constexpr int kPartStride = 20;  // floats between the sums of two rows: no bank conflicts
constexpr int kBlocksPerMultiprocessor = 2;

/// Bytes between two rows of x in shared memory; the padding keeps loads free of bank conflicts.
__host__ __device__ constexpr int XStride(int padded_inputs) { return 2 * padded_inputs + 16; }

int SharedBytes(const Weights& w, int rows) {
  const int parts = SlicesOf(w.packed_outputs()) == 1 ? 0 : 2 * kWarps * rows * kPartStride * 4;
  return kRingBytes + rows * XStride(w.stride()) + kChunkBytes + parts;
}

/// Activations in whole rows, from `column` on; rows that are not there are zeros.
struct WholeRows {
  const uint8_t* x;
  const uint8_t* zeros;  // 128 bytes
  int stride;
  int rows;

  __device__ __forceinline__ const bf16* Piece(int row, int column) const {
    const uint8_t* p = row < rows ? x + row * stride + 2 * column : zeros;
    return reinterpret_cast<const bf16*>(p);
  }
};

/// A warp's way through its tiles and the chunks of its slice.
template <int kSlices>
struct Cursor {
  int tile;
  int chunk;

  __device__ __forceinline__ void Next(int chunks, int slice, int tile_step) {
    chunk += kSlices;
    if (chunk >= chunks) {
      chunk = slice;
      tile += tile_step;
    }
  }
};

__device__ __forceinline__ void CopyStage(uint8_t* stage, const uint8_t* rows, int64_t row_bytes,
                                          int lane) {
#pragma unroll
  for (int i = 0; i < kTileOutputs / 4; ++i) {
    const int row = 4 * i + lane / 8;
    const int piece = lane % 8;
    CopyAsync16(stage + Swizzled(row, piece), rows + row * row_bytes + 16 * piece, true);
  }
}

/// Columns from `inputs` to `padded` become zeros.
__device__ __forceinline__ void CopyRows(uint8_t* shared, int stride, const bf16* x, int rows,
                                         int inputs, int padded) {
  const int pieces = padded / 8;
  for (int i = static_cast<int>(threadIdx.x); i < rows * pieces; i += kThreads) {
    const int row = i / pieces;
    const int column = i % pieces * 8;
    const bool live = column < inputs;
    CopyAsync16(shared + row * stride + 2 * column,
                x + static_cast<int64_t>(row) * inputs + (live ? column : 0), live);
  }
}

/// The sums of eight slices, added from the first to the last, and stored.
__device__ __forceinline__ void AddSlices(const Output& out, const float* parts, int rows,
                                          int tile) {
  for (int i = static_cast<int>(threadIdx.x); i < rows * 8; i += kThreads) {
    const int row = i / 8;
    const int g = i % 8;
    const float* part = parts + row * kPartStride + g;
    float low = part[0];
    float high = part[8];
#pragma unroll
    for (int slice = 1; slice < kWarps; ++slice) {
      part += rows * kPartStride;
      low += part[0];
      high += part[8];
    }
    StorePair(out, row, tile, g, low, high);
  }
}

/// A warp's sums of a whole chain.
template <int kN>
__device__ __forceinline__ void StoreChain(const Output& out, const float (&sums)[1][kN][4],
                                           int tile, int rows, int lane) {
#pragma unroll
  for (int n = 0; n < kN; ++n) {
    const int row = 8 * n + 2 * (lane % 4);
    if (row < rows) StorePair(out, row, tile, lane / 4, sums[0][n][0], sums[0][n][2]);
    if (row + 1 < rows) StorePair(out, row + 1, tile, lane / 4, sums[0][n][1], sums[0][n][3]);
  }
}

/// A warp's sums of one slice, to where AddSlices finds them.
template <int kN>
__device__ __forceinline__ void KeepSlice(float* part, const float (&sums)[1][kN][4], int rows,
                                          int lane) {
#pragma unroll
  for (int n = 0; n < kN; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = 8 * n + 2 * (lane % 4) + i % 2;
      if (row < rows) part[row * kPartStride + lane / 4 + i / 2 * 8] = sums[0][n][i];
    }
  }
}

/// kSlices warps share a tile of 16 outputs.
template <WeightFormat kFormat, int kN, int kSlices>
__global__ void __launch_bounds__(kThreads)
    FewRowsKernel(Output out, const uint8_t* weights, int padded, int tiles, const bf16* x,
                  int rows, int inputs) {
  ReleaseSuccessor();
  uint8_t* shared = SharedMemory<uint8_t>();
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int slice = warp % kSlices;
  constexpr int kTilesAtOnce = kWarps / kSlices;
  const int tile_step = static_cast<int>(gridDim.x) * kTilesAtOnce;
  const int first_tile = static_cast<int>(blockIdx.x) * kTilesAtOnce + warp / kSlices;
  const int chunks = padded / kChunkInputs<kFormat>;
  const int64_t row_bytes = static_cast<int64_t>(padded) * Weights::ElementBytes(kFormat);
  const bool has_chunks = slice < chunks;

  uint8_t* ring = shared + warp * kStages * kStageBytes;
  Cursor<kSlices> next{has_chunks ? first_tile : tiles, slice};
  int issued = 0;
  const auto issue = [&] {
    if (next.tile < tiles) {
      CopyStage(ring + issued % kStages * kStageBytes,
                weights + next.tile * kTileOutputs * row_bytes + next.chunk * kChunkBytes,
                row_bytes, lane);
      next.Next(chunks, slice, tile_step);
    }
    ++issued;
    CommitCopies();
  };
  for (int i = 0; i < kStages - 1; ++i) issue();

  uint8_t* x_rows = shared + kRingBytes;
  const int stride = XStride(padded);
  uint8_t* zeros = x_rows + rows * stride;
  float* parts = reinterpret_cast<float*>(zeros + kChunkBytes);
  if (threadIdx.x < kChunkBytes / 4) reinterpret_cast<uint32_t*>(zeros)[threadIdx.x] = 0;
  WaitForPredecessor();
  CopyRows(x_rows, stride, x, rows, inputs, padded);
  CommitCopies();
  WaitForCopies<0>();
  __syncthreads();

  int used = 0;
  int buffer = 0;
  // All warps of a block that share tiles take the same number of turns.
  for (int tile = first_tile; tile - warp / kSlices < tiles; tile += tile_step) {
    float sums[1][kN][4] = {};
    for (int chunk = slice; chunk < chunks && tile < tiles; chunk += kSlices) {
      WaitForCopies<kStages - 2>();
      __syncwarp();
      issue();
      const WholeRows activations{x_rows + 2 * chunk * kChunkInputs<kFormat>, zeros, stride, rows};
      MultiplyChunk<kFormat, 1, kN>(sums, ring + used % kStages * kStageBytes, activations, lane);
      ++used;
    }
    if constexpr (kSlices == 1) {
      if (tile < tiles) StoreChain(out, sums, tile, rows, lane);
    } else {
      float* tile_parts = parts + buffer * kWarps * rows * kPartStride;
      KeepSlice(tile_parts + slice * rows * kPartStride, sums, rows, lane);
      __syncthreads();
      AddSlices(out, tile_parts, rows, tile);
      buffer ^= 1;  // the next tile's sums go elsewhere, so one barrier a tile is enough
    }
  }
  WaitForCopies<0>();
}

int Multiprocessors() {
  static const int count = [] {
    int value = 0;
    cudaDeviceGetAttribute(&value, cudaDevAttrMultiProcessorCount, 0);
    return value > 0 ? value : 1;
  }();
  return count;
}

int SharedMax() {
  static const int bytes = [] {
    int value = 0;
    cudaDeviceGetAttribute(&value, cudaDevAttrMaxSharedMemoryPerBlockOptin, 0);
    return value;
  }();
  return bytes;
}

template <WeightFormat kFormat, int kN, int kSlices>
cudaError_t LaunchFewRows(const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  const int tiles = w.packed_outputs() / kTileOutputs;
  constexpr int kTilesAtOnce = kWarps / kSlices;
  const int blocks = (tiles + kTilesAtOnce - 1) / kTilesAtOnce;
  const int blocks_max = kBlocksPerMultiprocessor * Multiprocessors();
  const LaunchShape shape{
      "MatMul, few rows", dim3(static_cast<unsigned>(blocks < blocks_max ? blocks : blocks_max)),
      dim3(kThreads), static_cast<size_t>(SharedBytes(w, operands.rows)), stream};
  return Launch(shape, FewRowsKernel<kFormat, kN, kSlices>, Output(operands, w),
                static_cast<const uint8_t*>(w.data), w.stride(), tiles,
                static_cast<const bf16*>(operands.x), operands.rows, w.inputs);
}

template <WeightFormat kFormat>
cudaError_t LaunchFormat(const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  const bool sliced = SlicesOf(w.packed_outputs()) == kWarps;
  if (operands.rows <= 8) {
    return sliced ? LaunchFewRows<kFormat, 1, kWarps>(operands, w, stream)
                  : LaunchFewRows<kFormat, 1, 1>(operands, w, stream);
  }
  return sliced ? LaunchFewRows<kFormat, 2, kWarps>(operands, w, stream)
                : LaunchFewRows<kFormat, 2, 1>(operands, w, stream);
}

}  // namespace

bool FewRowsFit(const Weights& w, int rows) {
  if (rows > kRowsMax) return false;
  return SharedBytes(w, rows) <= SharedMax();
}

cudaError_t MatMulFewRows(const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  return w.format == WeightFormat::kInt8 ? LaunchFormat<WeightFormat::kInt8>(operands, w, stream)
                                         : LaunchFormat<WeightFormat::kBf16>(operands, w, stream);
}

}  // namespace neurogrid::kernels
