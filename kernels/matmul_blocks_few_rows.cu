// Up to 16 rows times blocks: the eight warps of a block are the eight slices of a tile of 16
// outputs, each with a ring of stages and the activations of its own chunks, so the weights pass
// once and no warp waits for another before the sums.
#include "kernels/device_limits.h"
#include "kernels/launch.h"
#include "kernels/matmul_blocks.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kWarps = kBlockSlices;
constexpr int kThreads = kWarps * kWarpThreads;
constexpr int kRowsMax = 16;
constexpr int kRingBytes = 9216;  // of a warp: two blocks keep a multiprocessor's reads in flight
constexpr int kPartStride = 20;   // floats between the sums of two rows: no bank conflicts
constexpr int kBlocksPerMultiprocessor = 2;
constexpr int kXChunkBytes = 2 * kBlockChunkInputs;

template <BlockType kType>
constexpr int kStages = kRingBytes / Blocks<kType>::kStageBytes;

struct FewRowsArguments {
  const uint8_t* weights;
  int64_t tile_bytes;
  int tiles;
  int chunks;
  const bf16* x;
  int rows;
  int inputs;

  /// Bytes between two rows of a warp's x; the padding keeps ldmatrix free of bank conflicts.
  __host__ __device__ int x_stride() const {
    return (chunks + kWarps - 1) / kWarps * kXChunkBytes + 16;
  }
  /// A warp's x, and zeros in place of the rows that are not there.
  __host__ __device__ int x_bytes() const { return rows * x_stride() + kXChunkBytes; }
  __host__ __device__ int part_floats() const { return rows * kPartStride; }
};

template <BlockType kType>
int SharedBytes(const FewRowsArguments& a) {
  return kWarps * (kStages<kType> * Blocks<kType>::kStageBytes + a.x_bytes() +
                   2 * a.part_floats() * static_cast<int>(sizeof(float)));
}

FewRowsArguments ArgumentsOf(const MatMulOperands& operands, const Weights& w) {
  const int unit = FormatOf(w.block_type).unit_inputs();
  return {static_cast<const uint8_t*>(w.data),
          w.tile_bytes(),
          w.packed_outputs() / kTileOutputs,
          (w.inputs + unit - 1) / unit * FormatOf(w.block_type).chunks_per_unit(),
          static_cast<const bf16*>(operands.x),
          operands.rows,
          w.inputs};
}

/// This lane's places in one chunk of x after the other; rows that are not there are zeros.
template <int kN>
struct ChunkOfRows {
  const uint8_t* at[kN];
  int step[kN];

  __device__ __forceinline__ ChunkOfRows(const uint8_t* x_rows, const uint8_t* zeros,
                                         const FewRowsArguments& a, int lane) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const int row = 8 * n + lane % 8;
      const bool live = row < a.rows;
      at[n] = (live ? x_rows + row * a.x_stride() : zeros) + lane / 8 * 16;
      step[n] = live ? kXChunkBytes : 0;
    }
  }
  __device__ __forceinline__ const uint8_t* Piece(int n, int piece) const {
    return at[n] + 64 * piece;
  }
  __device__ __forceinline__ void Next() {
#pragma unroll
    for (int n = 0; n < kN; ++n) at[n] += step[n];
  }
};

/// The columns of this warp's chunks; what is behind the inputs becomes zeros.
__device__ __forceinline__ void CopySliceOfRows(uint8_t* x_rows, const FewRowsArguments& a,
                                                int slice, int lane) {
  constexpr int kPieces = kBlockChunkInputs / 8;
  const int own = (a.chunks - slice + kWarps - 1) / kWarps;
  const int pieces = own * kPieces;
  for (int row = 0; row < a.rows; ++row) {
    const bf16* from = a.x + static_cast<int64_t>(row) * a.inputs;
#pragma unroll 4
    for (int i = lane; i < pieces; i += kWarpThreads) {
      const int column = (slice + i / kPieces * kWarps) * kBlockChunkInputs + i % kPieces * 8;
      uint4 piece = make_uint4(0, 0, 0, 0);
      if (column < a.inputs) piece = *reinterpret_cast<const uint4*>(from + column);
      *reinterpret_cast<uint4*>(x_rows + row * a.x_stride() + 16 * i) = piece;
    }
  }
}

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

/// The slices of a tile, added from the first to the last, and stored; by other warps for each
/// turn, so that none falls behind.
__device__ __forceinline__ void AddSlices(const Output& out, const float* parts,
                                          const FewRowsArguments& a, int tile, int turn) {
  const int thread = static_cast<int>(threadIdx.x + kThreads - kWarpThreads * (turn % kWarps));
  for (int i = thread % kThreads; i < a.rows * 8; i += kThreads) {
    const float* part = parts + i / 8 * kPartStride + i % 8;
    float low = part[0];
    float high = part[8];
#pragma unroll
    for (int slice = 1; slice < kWarps; ++slice) {
      part += a.part_floats();
      low += part[0];
      high += part[8];
    }
    StorePair(out, i / 8, tile, i % 8, low, high);
  }
}

template <BlockType kType, int kN>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    FewRowsOfBlocksKernel(Output out, FewRowsArguments a) {
  using B = Blocks<kType>;
  constexpr int kRing = kStages<kType>;
  ReleaseSuccessor();
  uint8_t* shared = SharedMemory<uint8_t>();
  const int slice = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int tile_step = static_cast<int>(gridDim.x);
  const int first_tile = static_cast<int>(blockIdx.x);

  uint8_t* ring = shared + slice * kRing * B::kStageBytes;
  int next_tile = slice < a.chunks ? first_tile : a.tiles;
  int next_chunk = slice;
  uint8_t* next_stage = ring;
  const auto issue = [&] {
    if (next_tile < a.tiles) {
      CopyBlocks<kType>(next_stage, a.weights + next_tile * a.tile_bytes, next_chunk, true, lane,
                        kWarpThreads);
      next_chunk += kWarps;
      if (next_chunk >= a.chunks) {
        next_chunk = slice;
        next_tile += tile_step;
      }
    }
    next_stage += B::kStageBytes;
    if (next_stage == ring + kRing * B::kStageBytes) next_stage = ring;
    CommitCopies();
  };
  for (int i = 0; i < kRing - 1; ++i) issue();

  uint8_t* x_of_warps = shared + kWarps * kRing * B::kStageBytes;
  uint8_t* x_rows = x_of_warps + slice * a.x_bytes();
  uint8_t* zeros = x_rows + a.rows * a.x_stride();
  float* parts = reinterpret_cast<float*>(x_of_warps + kWarps * a.x_bytes());
  if (lane < kXChunkBytes / 16) reinterpret_cast<uint4*>(zeros)[lane] = make_uint4(0, 0, 0, 0);
  WaitForPredecessor();
  CopySliceOfRows(x_rows, a, slice, lane);
  __syncwarp();

  const uint8_t* stage = ring;
  int turn = 0;
  for (int tile = first_tile; tile < a.tiles; tile += tile_step, ++turn) {
    float sums[1][kN][4] = {};
    ChunkOfRows<kN> x(x_rows, zeros, a, lane);
    for (int chunk = slice; chunk < a.chunks; chunk += kWarps) {
      WaitForCopies<kRing - 2>();
      __syncwarp();
      issue();
      MultiplyBlocks<kType, 1, kN>(sums, stage, x, lane);
      stage += B::kStageBytes;
      if (stage == ring + kRing * B::kStageBytes) stage = ring;
      x.Next();
    }
    // The next tile's sums go elsewhere, so one barrier a tile is enough.
    float* tile_parts = parts + turn % 2 * kWarps * a.part_floats();
    KeepSlice(tile_parts + slice * a.part_floats(), sums, a.rows, lane);
    __syncthreads();
    AddSlices(out, tile_parts, a, tile, turn);
  }
  WaitForCopies<0>();
}

template <BlockType kType, int kN>
cudaError_t LaunchFewRows(const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  const FewRowsArguments a = ArgumentsOf(operands, w);
  const int blocks_max = kBlocksPerMultiprocessor * MultiprocessorCount();
  const LaunchShape shape{"MatMul, few rows of blocks",
                          dim3(static_cast<unsigned>(a.tiles < blocks_max ? a.tiles : blocks_max)),
                          dim3(kThreads), static_cast<size_t>(SharedBytes<kType>(a)), stream};
  return Launch(shape, FewRowsOfBlocksKernel<kType, kN>, Output(operands, w), a);
}

}  // namespace

bool FewRowsOfBlocksFit(const Weights& w, int rows) {
  if (rows > kRowsMax) return false;
  bool fit = false;
  ForBlockType(w.block_type, [&](auto type) {
    const MatMulOperands operands{nullptr, false, nullptr, rows, Epilogue::kStore};
    fit = SharedBytes<decltype(type)::kValue>(ArgumentsOf(operands, w)) <= SharedBytesMax();
    return cudaSuccess;
  });
  return fit;
}

cudaError_t MatMulFewRowsOfBlocks(const MatMulOperands& operands, const Weights& w,
                                  cudaStream_t stream) {
  return ForBlockType(w.block_type, [&](auto type) {
    constexpr BlockType kType = decltype(type)::kValue;
    return operands.rows <= 8 ? LaunchFewRows<kType, 1>(operands, w, stream)
                              : LaunchFewRows<kType, 2>(operands, w, stream);
  });
}

}  // namespace neurogrid::kernels
