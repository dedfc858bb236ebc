// A few rows times blocks: the eight warps of a block are the eight slices of a tile of 16 outputs,
// each with a ring of stages and the activations of its own chunks, so no warp waits for another
// before the sums. Rows beyond a group of 16, or what shared memory holds, are other blocks' that
// find the weights in L2.
#include "kernels/device_limits.h"
#include "kernels/launch.h"
#include "kernels/matmul_blocks.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kWarps = kBlockSlices;
constexpr int kThreads = kWarps * kWarpThreads;
constexpr int kGroupRowsMax = 16;
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
  int group_rows;  // of a block
  int inputs;

  /// Bytes between two rows of a warp's x; the padding keeps ldmatrix free of bank conflicts.
  __host__ __device__ int x_stride() const {
    return (chunks + kWarps - 1) / kWarps * kXChunkBytes + 16;
  }
  /// A warp's x, and zeros in place of the rows that are not there.
  __host__ __device__ int x_bytes() const { return group_rows * x_stride() + kXChunkBytes; }
  __host__ __device__ int part_floats() const { return group_rows * kPartStride; }
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
          0,
          w.inputs};
}

/// As many rows for a block as there are, up to 16 and what fits; zero: not even one fits.
template <BlockType kType>
FewRowsArguments Grouped(FewRowsArguments a) {
  const int bytes_max = SharedBytesMax();
  a.group_rows = a.rows < kGroupRowsMax ? a.rows : kGroupRowsMax;
  while (a.group_rows > 0 && SharedBytes<kType>(a) > bytes_max) a.group_rows /= 2;
  return a;
}

/// This lane's places in one chunk of x after the other; rows that are not there are zeros.
template <int kN>
struct ChunkOfRows {
  const uint8_t* at[kN];
  int step[kN];

  __device__ __forceinline__ ChunkOfRows(const uint8_t* x_rows, int stride, int rows,
                                         const uint8_t* zeros, int lane) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const int row = 8 * n + lane % 8;
      const bool live = row < rows;
      at[n] = (live ? x_rows + row * stride : zeros) + lane / 8 * 16;
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
                                                int first_row, int rows, int slice, int lane) {
  constexpr int kPieces = kBlockChunkInputs / 8;
  const int own = (a.chunks - slice + kWarps - 1) / kWarps;
  const int pieces = own * kPieces;
  for (int row = 0; row < rows; ++row) {
    const bf16* from = a.x + static_cast<int64_t>(first_row + row) * a.inputs;
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

/// One thread's share of a tile: two outputs of a row. Each turn is other warps', so that none
/// falls behind.
struct TilePair {
  int row;  // of the group
  int g;
  bool live;
  Channels channels;
  float old_low;
  float old_high;

  /// Before the sums are there.
  __device__ __forceinline__ void Load(const Output& out, int first_row, int rows, int tile,
                                       int turn) {
    const int thread = static_cast<int>(threadIdx.x) + kWarpThreads * (kWarps - turn % kWarps);
    row = thread % kThreads / 8;
    g = thread % 8;
    live = row < rows;
    if (!live) return;
    const int column = tile * kTileOutputs + g;
    channels = LoadChannels(out, tile, g);
    old_low = LoadOld(out, first_row + row, column);
    old_high = LoadOld(out, first_row + row, column + kTileOutputs / 2);
  }
  /// Adds the slices from the first to the last.
  __device__ __forceinline__ void Store(const Output& out, int first_row, const float* parts,
                                        int part_floats, int tile) const {
    if (!live) return;
    const float* part = parts + row * kPartStride + g;
    float low = part[0];
    float high = part[8];
#pragma unroll
    for (int slice = 1; slice < kWarps; ++slice) {
      part += part_floats;
      low += part[0];
      high += part[8];
    }
    StorePair(out, first_row + row, tile, g, low, high, channels, old_low, old_high);
  }
};
static_assert(kGroupRowsMax * 8 <= kThreads);

template <BlockType kType, int kN>
__global__ void __launch_bounds__(kThreads, kBlocksPerMultiprocessor)
    FewRowsOfBlocksKernel(Output out, FewRowsArguments a) {
  using B = Blocks<kType>;
  constexpr int kRing = kStages<kType>;
  ReleaseSuccessor();
  uint8_t* shared = SharedMemory<uint8_t>();
  const int slice = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  // Blocks of the same tiles are neighbours.
  const int tile_step = static_cast<int>(gridDim.y);
  const int first_tile = static_cast<int>(blockIdx.y);
  const int first_row = static_cast<int>(blockIdx.x) * a.group_rows;
  const int rows = a.rows - first_row < a.group_rows ? a.rows - first_row : a.group_rows;

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
  uint8_t* zeros = x_rows + a.group_rows * a.x_stride();
  float* parts = reinterpret_cast<float*>(x_of_warps + kWarps * a.x_bytes());
  if (lane < kXChunkBytes / 16) reinterpret_cast<uint4*>(zeros)[lane] = make_uint4(0, 0, 0, 0);
  WaitForPredecessor();
  CopySliceOfRows(x_rows, a, first_row, rows, slice, lane);
  __syncwarp();

  const uint8_t* stage = ring;
  int turn = 0;
  for (int tile = first_tile; tile < a.tiles; tile += tile_step, ++turn) {
    float sums[1][kN][4] = {};
    ChunkOfRows<kN> x(x_rows, a.x_stride(), rows, zeros, lane);
    TilePair pair;
    pair.Load(out, first_row, rows, tile, turn);
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
    KeepSlice(tile_parts + slice * a.part_floats(), sums, rows, lane);
    __syncthreads();
    pair.Store(out, first_row, tile_parts, a.part_floats(), tile);
  }
  WaitForCopies<0>();
}

template <BlockType kType, int kN>
cudaError_t LaunchFewRows(const FewRowsArguments& a, const Output& out, cudaStream_t stream) {
  const int blocks_max = kBlocksPerMultiprocessor * MultiprocessorCount();
  const int blocks = a.tiles < blocks_max ? a.tiles : blocks_max;
  const int groups = (a.rows + a.group_rows - 1) / a.group_rows;
  const LaunchShape shape{"MatMul, few rows of blocks",
                          dim3(static_cast<unsigned>(groups), static_cast<unsigned>(blocks)),
                          dim3(kThreads), static_cast<size_t>(SharedBytes<kType>(a)), stream};
  return Launch(shape, FewRowsOfBlocksKernel<kType, kN>, out, a);
}

}  // namespace

bool FewRowsOfBlocksFit(const Weights& w) {
  bool fit = false;
  ForBlockType(w.block_type, [&](auto type) {
    const MatMulOperands operands{nullptr, false, nullptr, 1, Epilogue::kStore};
    fit = Grouped<decltype(type)::kValue>(ArgumentsOf(operands, w)).group_rows > 0;
    return cudaSuccess;
  });
  return fit;
}

cudaError_t MatMulFewRowsOfBlocks(const MatMulOperands& operands, const Weights& w,
                                  cudaStream_t stream) {
  return ForBlockType(w.block_type, [&](auto type) {
    constexpr BlockType kType = decltype(type)::kValue;
    const FewRowsArguments a = Grouped<kType>(ArgumentsOf(operands, w));
    const Output out(operands, w);
    return a.group_rows <= 8 ? LaunchFewRows<kType, 1>(a, out, stream)
                             : LaunchFewRows<kType, 2>(a, out, stream);
  });
}

}  // namespace neurogrid::kernels
