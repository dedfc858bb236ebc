// More rows times blocks. Codes widen in registers; no matrix ever lies in memory in another form.
#include "kernels/matmul_blocks.cuh"
#include "kernels/matmul_tiles.cuh"

namespace neurogrid::kernels {
namespace {

/// One chunk of x, as MultiplyBlocks reads it.
struct BlocksOfTile {
  ChunkOfTile chunk;
  int lane;

  __device__ __forceinline__ const uint8_t* Piece(int n, int piece) const {
    return chunk.Eight(8 * n + lane % 8, 32 * piece + lane / 8 * 8);
  }
  template <BlockType kType>
  __device__ __forceinline__ float2 SumOf(int, int group, const uint32_t (&b)[4]) const {
    return SumOfGroup<kType>(b, group * Blocks<kType>::kStepsOfGroup);
  }
};

template <BlockType kType, int kOutputsOf>
struct BlockTile {
  using B = Blocks<kType>;
  static constexpr int kOutputs = kOutputsOf;
  static constexpr int kChunkInputs = kBlockChunkInputs;
  static constexpr int kSlices = kBlockSlices;
  static constexpr int kWarpsDown = kOutputs == 128 ? 4 : 2;
  static constexpr int kTiles = kOutputs / kTileOutputs;
  static constexpr int kWeightBytes = (kTiles * B::kStageBytes + 127) / 128 * 128;
  static constexpr float kSumScale = B::kSumScale;

  __device__ __forceinline__ static void CopyWeights(uint8_t* stage, const TileArguments& a,
                                                     int chunk) {
    constexpr int kThreadsOfTile = kTileThreads / kTiles;
    const int slot = static_cast<int>(threadIdx.x) / kThreadsOfTile;
    const int tile = static_cast<int>(blockIdx.x) * kTiles + slot;
    const bool live = tile < a.tiles;
    CopyBlocks<kType>(stage + slot * B::kStageBytes, a.weights + (live ? tile : 0) * a.tile_bytes,
                      chunk, live, static_cast<int>(threadIdx.x) % kThreadsOfTile, kThreadsOfTile);
  }
  template <int kM, int kN>
  __device__ __forceinline__ static void Multiply(float (&sums)[kM][kN][4], const uint8_t* stage,
                                                  const ChunkOfTile& x, int down, int lane) {
    BlockOperand<kType> w[kM];
#pragma unroll
    for (int m = 0; m < kM; ++m) w[m].Load(stage + (down * kM + m) * B::kStageBytes, lane);
    MultiplyBlocks<kType, kM, kN>(sums, w, BlocksOfTile{x, lane});
  }
};

}  // namespace

cudaError_t MatMulTilesOfBlocks(bool wide, const MatMulOperands& operands, const Weights& w,
                                cudaStream_t stream) {
  return ForBlockType(w.block_type, [&](auto type) {
    constexpr BlockType kType = decltype(type)::kValue;
    constexpr BlockFormat kFormat = FormatOf(kType);
    constexpr const char* kName = "MatMul, tiles of blocks";
    const int chunks =
        (w.inputs + kFormat.unit_inputs() - 1) / kFormat.unit_inputs() * kFormat.chunks_per_unit();
    return wide && TilesFit<BlockTile<kType, 128>>()
               ? LaunchTiles<BlockTile<kType, 128>>(kName, operands, w, chunks, stream)
               : LaunchTiles<BlockTile<kType, 32>>(kName, operands, w, chunks, stream);
  });
}

}  // namespace neurogrid::kernels
