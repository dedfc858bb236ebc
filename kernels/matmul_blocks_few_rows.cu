// A few rows times blocks: the eight warps of a block are the eight slices of a tile of 16 outputs,
// each with a ring of stages that fills before the predecessor has ended, and the activations of
// its own chunks. Slices meet once for several tiles. Rows beyond a group of 16, or what shared
// memory holds, are other blocks' that find the weights in L2.
#include "kernels/device_limits.h"
#include "kernels/launch.h"
#include "kernels/matmul_blocks.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kWarps = kBlockSlices;
constexpr int kThreads = kWarps * kWarpThreads;
constexpr int kGroupRowsMax = 16;
constexpr int kPartStride = 20;  // floats between the sums of two rows: no bank conflicts
constexpr int kXChunkBytes = 2 * kBlockChunkInputs;
constexpr int kPairsOfTile = kTileOutputs / 2;

// Blocks of a multiprocessor. With registers for more, so that a successor's could wait beside
// them, all is slower.
constexpr int kBlocksMax = 2;
constexpr int kBatchTilesMax = 4;

/// Of a warp.
template <BlockType kType>
struct BlockRing {
  static constexpr int kBytesEnough = 4608;
  static constexpr int kStagesMin = 3;
  static constexpr int kFit = kBytesEnough / Blocks<kType>::kStageBytes;
  static constexpr int kStages = kFit < kStagesMin ? kStagesMin : kFit;
  static constexpr int kBytes = kStages * Blocks<kType>::kStageBytes;
};

struct FewRowsArguments {
  const uint8_t* weights;
  int64_t tile_bytes;
  int tiles;
  int chunks;
  const bf16* x;
  int rows;
  int inputs;
  int group_rows;  // of a block
  int x_stride;    // bytes between two rows of a warp's x
  int x_bytes;     // a warp's x
  int row_bits;    // for the numbers of the group's rows
  int batch_tiles;
  int part_floats;  // a slice's sums of a tile
};

int Ceil(int a, int b) { return (a + b - 1) / b; }

void SetGroup(FewRowsArguments& a, int group_rows) {
  a.group_rows = group_rows;
  // The padding keeps ldmatrix free of bank conflicts.
  a.x_stride = Ceil(a.chunks, kWarps) * kXChunkBytes + 16;
  a.x_bytes = group_rows * a.x_stride;
  a.row_bits = 0;
  while (1 << a.row_bits < group_rows) ++a.row_bits;
  a.batch_tiles = kBatchTilesMax >> a.row_bits > 0 ? kBatchTilesMax >> a.row_bits : 1;
  a.part_floats = group_rows * kPartStride;
}

template <BlockType kType>
int SharedBytes(const FewRowsArguments& a) {
  return kWarps * (BlockRing<kType>::kBytes + a.x_bytes) +
         2 * a.batch_tiles * kWarps * a.part_floats * static_cast<int>(sizeof(float));
}

/// As many rows for a block as there are, up to 16 and what fits; zero: not even one fits.
template <BlockType kType>
FewRowsArguments ArgumentsOf(const MatMulOperands& operands, const Weights& w) {
  constexpr BlockFormat kFormat = Blocks<kType>::kFormat;
  FewRowsArguments a{};
  a.weights = static_cast<const uint8_t*>(w.data);
  a.tile_bytes = w.tile_bytes();
  a.tiles = w.packed_outputs() / kTileOutputs;
  a.chunks = Ceil(w.inputs, kFormat.unit_inputs()) * kFormat.chunks_per_unit();
  a.x = static_cast<const bf16*>(operands.x);
  a.rows = operands.rows;
  a.inputs = w.inputs;
  const int bytes_max = SharedBytesMax();
  SetGroup(a, a.rows < kGroupRowsMax ? a.rows : kGroupRowsMax);
  while (a.group_rows > 0 && SharedBytes<kType>(a) > bytes_max) SetGroup(a, a.group_rows / 2);
  return a;
}

/// A warp's way through the chunks of its slice, of one tile after the other.
template <BlockType kType>
class BlockStream {
  using B = Blocks<kType>;
  static constexpr int kChunksOfUnit = B::kFormat.chunks_per_unit();
  static constexpr int kStepBytes = kWarps / kChunksOfUnit * B::kFormat.unit_bytes();
  static_assert(kWarps % kChunksOfUnit == 0);  // a slice's chunks all have one place in their unit

 public:
  __device__ __forceinline__ BlockStream(const FewRowsArguments& a, int first_tile, int tile_step,
                                         int slice, int lane)
      : chunks_((a.chunks - slice + kWarps - 1) / kWarps),
        left_(chunks_),
        tiles_left_(chunks_ > 0 ? (a.tiles - first_tile + tile_step - 1) / tile_step : 0),
        jump_(tile_step * a.tile_bytes - static_cast<int64_t>(chunks_) * kStepBytes) {
    const int skipped = slice % kChunksOfUnit * B::kFormat.chunk_bytes();
    header_back_ = 16 * lane < B::kHeaderBytes ? skipped : 0;
    from_ = a.weights + first_tile * a.tile_bytes +
            slice / kChunksOfUnit * B::kFormat.unit_bytes() + skipped + 16 * lane;
    last_ = lane < B::kStageBytes % kRoundBytes / 16;
  }

  __device__ __forceinline__ int chunks_of_tile() const { return chunks_; }

  /// The next chunk, with the header of its unit before it, if there is one; ends a group of
  /// copies. `stage`: this lane's piece of it.
  __device__ __forceinline__ void Issue(uint8_t* stage) {
    if (tiles_left_ > 0) {
#pragma unroll
      for (int at = 0; at < B::kStageBytes; at += kRoundBytes) {
        const uint8_t* from = from_ + at - (at == 0 ? header_back_ : 0);
        if (at + kRoundBytes <= B::kStageBytes || last_) CopyAsync16(stage + at, from, true);
      }
      from_ += kStepBytes;
      if (--left_ == 0) {
        left_ = chunks_;
        from_ += jump_;
        --tiles_left_;
      }
    }
    CommitCopies();
  }

 private:
  static constexpr int kRoundBytes = 16 * kWarpThreads;

  int chunks_;
  int left_;  // of the tile
  int tiles_left_;
  bool last_;
  int header_back_;
  int64_t jump_;
  const uint8_t* from_;
};

/// This lane's places in one chunk of x after the other: the first row's in place of rows that are
/// not there, whose sums are not kept.
template <int kN>
struct ChunkOfRows {
  const uint8_t* at[kN];

  __device__ __forceinline__ ChunkOfRows(const uint8_t* x_rows, int stride, int rows, int lane) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const int row = 8 * n + lane % 8;
      at[n] = x_rows + (row < rows ? row : 0) * stride + lane / 8 * 16;
    }
  }
  __device__ __forceinline__ const uint8_t* Piece(int n, int piece) const {
    return at[n] + 64 * piece;
  }
  template <BlockType kType>
  __device__ __forceinline__ float2 SumOf(int, int group, const uint32_t (&b)[4]) const {
    return SumOfGroup<kType>(b, group * Blocks<kType>::kStepsOfGroup);
  }
  __device__ __forceinline__ void Next() {
#pragma unroll
    for (int n = 0; n < kN; ++n) at[n] += kXChunkBytes;
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
      *reinterpret_cast<uint4*>(x_rows + row * a.x_stride + 16 * i) = piece;
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

/// One thread's share of a batch of tiles: two outputs of a row. Each turn is other warps', so that
/// none falls behind.
struct PairOfBatch {
  int tile_of_batch;
  int tile;
  int row;  // of the group
  int g;
  bool live;

  __device__ __forceinline__ PairOfBatch(const FewRowsArguments& a, int rows, int first_tile,
                                         int tile_step, int turn) {
    const int thread = static_cast<int>(threadIdx.x) + kWarpThreads * (kWarps - turn % kWarps);
    const int pair = thread % kThreads;
    g = pair % kPairsOfTile;
    row = pair / kPairsOfTile & ((1 << a.row_bits) - 1);
    tile_of_batch = pair / kPairsOfTile >> a.row_bits;
    tile = first_tile + tile_of_batch * tile_step;
    live = tile_of_batch < a.batch_tiles && row < rows && tile < a.tiles;
  }
  /// What is added to, long before the sums are there.
  __device__ __forceinline__ float2 Old(const Output& out, int first_row) const {
    if (!live) return {};
    const int column = tile * kTileOutputs + g;
    return make_float2(LoadOld(out, first_row + row, column),
                       LoadOld(out, first_row + row, column + kTileOutputs / 2));
  }
  /// Adds the slices from the first to the last.
  __device__ __forceinline__ void Store(const Output& out, int first_row, const float* parts,
                                        int part_floats, float scale, float2 old) const {
    if (!live) return;
    const Channels channels = LoadChannels(out, tile, g);
    const float* part = parts + tile_of_batch * kWarps * part_floats + row * kPartStride + g;
    float low = part[0];
    float high = part[8];
#pragma unroll
    for (int slice = 1; slice < kWarps; ++slice) {
      part += part_floats;
      low += part[0];
      high += part[8];
    }
    StorePair(out, first_row + row, tile, g, __fmul_rn(low, scale), __fmul_rn(high, scale),
              channels, old.x, old.y);
  }
};
static_assert(kGroupRowsMax * kPairsOfTile <= kThreads);
static_assert(kBatchTilesMax * kPairsOfTile <= kThreads);

template <BlockType kType, int kN>
__global__ void __launch_bounds__(kThreads, kBlocksMax)
    FewRowsOfBlocksKernel(Output out, FewRowsArguments a) {
  using B = Blocks<kType>;
  constexpr int kStages = BlockRing<kType>::kStages;
  ReleaseSuccessor();
  uint8_t* shared = SharedMemory<uint8_t>();
  const int slice = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  // Blocks of the same tiles are neighbours.
  const int tile_step = static_cast<int>(gridDim.y);
  const int first_tile = static_cast<int>(blockIdx.y);
  const int first_row = static_cast<int>(blockIdx.x) * a.group_rows;
  const int rows = a.rows - first_row < a.group_rows ? a.rows - first_row : a.group_rows;

  uint8_t* ring = shared + slice * BlockRing<kType>::kBytes;
  BlockStream<kType> stream(a, first_tile, tile_step, slice, lane);
#pragma unroll
  for (int i = 0; i < kStages; ++i) stream.Issue(ring + i * B::kStageBytes + 16 * lane);

  uint8_t* x_rows = shared + kWarps * BlockRing<kType>::kBytes + slice * a.x_bytes;
  float* parts =
      reinterpret_cast<float*>(shared + kWarps * BlockRing<kType>::kBytes + kWarps * a.x_bytes);
  const ChunkOfRows<kN> first_x(x_rows, a.x_stride, rows, lane);
  WaitForPredecessor();
  CopySliceOfRows(x_rows, a, first_row, rows, slice, lane);  // the first chunk waits for all lanes

  uint8_t* stage = ring;
  int turn = 0;
  for (int first = first_tile; first < a.tiles; first += a.batch_tiles * tile_step, ++turn) {
    const float2 old = PairOfBatch(a, rows, first, tile_step, turn).Old(out, first_row);
    // The next batch's sums go elsewhere, so one barrier a batch is enough.
    float* batch_parts = parts + turn % 2 * a.batch_tiles * kWarps * a.part_floats;
    float* part = batch_parts + slice * a.part_floats;
    int tile = first;
    for (int i = 0; i < a.batch_tiles && tile < a.tiles; ++i, tile += tile_step) {
      float sums[1][kN][4] = {};
      ChunkOfRows<kN> x = first_x;
      for (int left = stream.chunks_of_tile(); left > 0; --left) {
        WaitForCopies<kStages - 1>();
        __syncwarp();
        BlockOperand<kType> w[1];
        w[0].Load(stage, lane);
        __syncwarp();
        stream.Issue(stage + 16 * lane);
        MultiplyBlocks<kType, 1, kN>(sums, w, x);
        stage += B::kStageBytes;
        if (stage == ring + BlockRing<kType>::kBytes) stage = ring;
        x.Next();
      }
      KeepSlice(part, sums, rows, lane);
      part += kWarps * a.part_floats;
    }
    __syncthreads();
    PairOfBatch(a, rows, first, tile_step, turn)
        .Store(out, first_row, batch_parts, a.part_floats, B::kSumScale, old);
  }
}

/// As many blocks for each multiprocessor as share the tiles most evenly, of those that fit.
int BlocksFor(int tiles, int fit) {
  const int multiprocessors = MultiprocessorCount();
  int best = tiles;
  int best_tiles = tiles;  // of the busiest multiprocessor
  for (int each = fit < kBlocksMax ? fit : kBlocksMax; each > 0; --each) {
    const int blocks = tiles < each * multiprocessors ? tiles : each * multiprocessors;
    const int of_busiest = Ceil(tiles, blocks) * Ceil(blocks, multiprocessors);
    if (of_busiest < best_tiles || best_tiles == tiles) {
      best = blocks;
      best_tiles = of_busiest;
    }
  }
  return best;
}

template <BlockType kType, int kN>
cudaError_t LaunchFewRows(const FewRowsArguments& a, const Output& out, cudaStream_t stream) {
  constexpr int kReserved = 1024;  // of every block
  const int shared = SharedBytes<kType>(a);
  const int blocks = BlocksFor(a.tiles, (SharedBytesMax() + kReserved) / (shared + kReserved));
  const LaunchShape shape{
      "MatMul, few rows of blocks",
      dim3(static_cast<unsigned>(Ceil(a.rows, a.group_rows)), static_cast<unsigned>(blocks)),
      dim3(kThreads), static_cast<size_t>(shared), stream};
  return Launch(shape, FewRowsOfBlocksKernel<kType, kN>, out, a);
}

}  // namespace

bool FewRowsOfBlocksFit(const Weights& w) {
  bool fit = false;
  ForBlockType(w.block_type, [&](auto type) {
    const MatMulOperands operands{nullptr, false, nullptr, 1, Epilogue::kStore};
    fit = ArgumentsOf<decltype(type)::kValue>(operands, w).group_rows > 0;
    return cudaSuccess;
  });
  return fit;
}

cudaError_t MatMulFewRowsOfBlocks(const MatMulOperands& operands, const Weights& w,
                                  cudaStream_t stream) {
  return ForBlockType(w.block_type, [&](auto type) {
    constexpr BlockType kType = decltype(type)::kValue;
    const FewRowsArguments a = ArgumentsOf<kType>(operands, w);
    const Output out(operands, w);
    return a.group_rows <= 8 ? LaunchFewRows<kType, 1>(a, out, stream)
                             : LaunchFewRows<kType, 2>(a, out, stream);
  });
}

}  // namespace neurogrid::kernels
