// Chooses the kernel for blocks: a matter of speed alone, since all give the same bits.
#include "kernels/device_limits.h"
#include "kernels/matmul_blocks.cuh"
#include "kernels/matmul_blocks_sm90.h"

namespace neurogrid::kernels {

cudaError_t MatMulBlocksBy(MatMulKernel kernel, const MatMulOperands& operands, const Weights& w,
                           cudaStream_t stream) {
  switch (kernel) {
    case MatMulKernel::kFewRows:
      if (!FewRowsOfBlocksFit(w)) return cudaErrorInvalidValue;
      return MatMulFewRowsOfBlocks(operands, w, stream);
    case MatMulKernel::kWideTiles:
      return MatMulTilesOfBlocks(/*wide=*/true, operands, w, stream);
    case MatMulKernel::kNarrowTiles:
      return MatMulTilesOfBlocks(/*wide=*/false, operands, w, stream);
  }
  return cudaErrorInvalidValue;
}

cudaError_t MatMulBlocks(const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  constexpr int kFewRowsMax = 32;
  if (operands.rows <= kFewRowsMax && FewRowsOfBlocksFit(w)) {
    return MatMulFewRowsOfBlocks(operands, w, stream);
  }
  if (BlocksSm90Takes(operands, w)) return MatMulBlocksSm90(operands, w, stream);
  constexpr int kWideOutputs = 128;
  constexpr int kTileRows = 64;
  const int wide_tiles = (w.packed_outputs() + kWideOutputs - 1) / kWideOutputs *
                         ((operands.rows + kTileRows - 1) / kTileRows);
  // Fewer leave multiprocessors without work.
  return MatMulTilesOfBlocks(/*wide=*/4 * wide_tiles >= 3 * MultiprocessorCount(), operands, w,
                             stream);
}

}  // namespace neurogrid::kernels
