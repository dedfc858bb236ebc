// More rows times weights in rows of 128-byte chunks.
#include "kernels/matmul_tiles.cuh"

namespace neurogrid::kernels {
namespace {

struct RowsOfTile {
  ChunkOfTile chunk;

  __device__ __forceinline__ const uint8_t* Piece(int row, int column) const {
    return chunk.Eight(row, column);
  }
};

template <WeightFormat kFormat, int kOutputsOf, int kSlicesUsed>
struct RowTile {
  static constexpr int kOutputs = kOutputsOf;
  static constexpr int kChunkInputs = kernels::kChunkInputs<kFormat>;
  static constexpr int kSlices = kSlicesUsed;
  static constexpr int kWarpsDown = kOutputs == 128 ? 4 : 2;
  static constexpr int kWeightBytes = kOutputs * kChunkBytes;
  static constexpr float kSumScale = 1;

  __device__ __forceinline__ static void CopyWeights(uint8_t* stage, const TileArguments& a,
                                                     int chunk) {
    const int64_t row_bytes = a.tile_bytes / kTileOutputs;
    const int first = static_cast<int>(blockIdx.x) * kOutputs;
    for (int i = static_cast<int>(threadIdx.x); i < kOutputs * 8; i += kTileThreads) {
      const bool live = first + i / 8 < a.tiles * kTileOutputs;
      const int64_t row = live ? first + i / 8 : first;
      CopyAsync16(stage + Swizzled(i / 8, i % 8),
                  a.weights + row * row_bytes + chunk * kChunkBytes + i % 8 * 16, live);
    }
  }
  template <int kM, int kN>
  __device__ __forceinline__ static void Multiply(float (&sums)[kM][kN][4], const uint8_t* stage,
                                                  const ChunkOfTile& x, int down, int lane) {
    MultiplyChunk<kFormat, kM, kN>(sums, stage + down * kM * kTileOutputs * kChunkBytes,
                                   RowsOfTile{x}, lane);
  }
};

template <WeightFormat kFormat>
cudaError_t LaunchFormat(bool wide, const MatMulOperands& operands, const Weights& w,
                         cudaStream_t stream) {
  constexpr const char* kName = "MatMul, tiles";
  const int chunks = w.stride() / kChunkInputs<kFormat>;
  wide = wide && TilesFit<RowTile<kFormat, 128, 1>>();
  if (SlicesOf(w.packed_outputs()) == 1) {
    return wide ? LaunchTiles<RowTile<kFormat, 128, 1>>(kName, operands, w, chunks, stream)
                : LaunchTiles<RowTile<kFormat, 32, 1>>(kName, operands, w, chunks, stream);
  }
  return wide ? LaunchTiles<RowTile<kFormat, 128, 8>>(kName, operands, w, chunks, stream)
              : LaunchTiles<RowTile<kFormat, 32, 8>>(kName, operands, w, chunks, stream);
}

}  // namespace

cudaError_t MatMulTiles(bool wide, const MatMulOperands& operands, const Weights& w,
                        cudaStream_t stream) {
  return w.format == WeightFormat::kInt8
             ? LaunchFormat<WeightFormat::kInt8>(wide, operands, w, stream)
             : LaunchFormat<WeightFormat::kBf16>(wide, operands, w, stream);
}

}  // namespace neurogrid::kernels
