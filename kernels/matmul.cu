// Chooses the kernel: a matter of speed alone, since all give the same bits.
#include <utility>

#include "kernels/matmul.cuh"
#include "kernels/matmul.h"
#include "kernels/matmul_sm90.h"

namespace neurogrid::kernels {
namespace {

// Fewer wide tiles than this leave multiprocessors without work.
constexpr int kWideTilesMin = 96;
constexpr int kWideOutputs = 128;
constexpr int kTileRows = 64;

int Ceil(int a, int b) { return (a + b - 1) / b; }

bool Valid(const MatMulOperands& operands, const Weights& w) {
  const bool gates =
      operands.epilogue == Epilogue::kSiluGated || operands.epilogue == Epilogue::kGeluGated;
  return operands.rows > 0 && w.inputs % 8 == 0 && gates == w.gated;
}

/// The product of rows that a kernel of their own has normed.
template <typename T>
cudaError_t NormThenMatMul(MatMulOperands operands, const Weights& w, cudaStream_t stream) {
  const MatMulNorm norm = std::exchange(operands.norm, {});
  const auto* x = static_cast<const T*>(std::exchange(operands.x, norm.normed));
  const cudaError_t error = RmsNorm(static_cast<T*>(norm.normed), x, norm.sources, operands.rows,
                                    w.inputs, norm.parameters, stream);
  return error == cudaSuccess ? MatMul(operands, w, stream) : error;
}

}  // namespace

cudaError_t MatMulBy(MatMulKernel kernel, const MatMulOperands& operands, const Weights& w,
                     cudaStream_t stream) {
  if (!Valid(operands, w) || w.format == WeightFormat::kF32) return cudaErrorInvalidValue;
  if (operands.norm.parameters.weight != nullptr || operands.convolution.operands.out != nullptr) {
    return cudaErrorInvalidValue;
  }
  if (w.format == WeightFormat::kBlocks) return MatMulBlocksBy(kernel, operands, w, stream);
  switch (kernel) {
    case MatMulKernel::kFewRows:
      if (!FewRowsFit(w, operands.rows, LimitsOfGpu())) return cudaErrorInvalidValue;
      return MatMulFewRows(operands, w, LimitsOfGpu(), stream);
    case MatMulKernel::kWideTiles:
      return MatMulTiles(/*wide=*/true, operands, w, stream);
    case MatMulKernel::kNarrowTiles:
      return MatMulTiles(/*wide=*/false, operands, w, stream);
  }
  return cudaErrorInvalidValue;
}

int64_t SliceFloatsMax(int rows) { return SliceFloatsMaxSm90(rows); }

bool MatMulNormsNext(const MatMulOperands& operands, const Weights& w) {
  return Sm90Takes(operands, w) && !FewRowsFit(w, operands.rows, LimitsOfGpu()) &&
         Sm90NormsNext(operands, w);
}

cudaError_t MatMul(const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  if (!Valid(operands, w)) return cudaErrorInvalidValue;
  if (operands.next.parameters.weight != nullptr && !MatMulNormsNext(operands, w)) {
    return cudaErrorInvalidValue;
  }
  const GpuLimits gpu = LimitsOfGpu();
  const ConvolutionOperands<bf16>& convolution = operands.convolution.operands;
  if (convolution.out != nullptr) {
    if (!FewRowsConvolve(w, operands.rows, convolution.taps_count, gpu)) {
      return cudaErrorInvalidValue;
    }
    return MatMulFewRows(operands, w, gpu, stream);
  }
  if (operands.norm.parameters.weight != nullptr && !FewRowsNorm(w, operands.rows, gpu)) {
    return w.format == WeightFormat::kF32 ? NormThenMatMul<float>(operands, w, stream)
                                          : NormThenMatMul<bf16>(operands, w, stream);
  }
  if (w.format == WeightFormat::kF32) return MatMulF32(operands, w, stream);
  if (w.format == WeightFormat::kBlocks) return MatMulBlocks(operands, w, stream);
  // Up to 16 rows this is faster than wgmma too.
  if (FewRowsFit(w, operands.rows, gpu)) return MatMulFewRows(operands, w, gpu, stream);
  if (Sm90Takes(operands, w)) return MatMulSm90(operands, w, stream);
  const int tiles = Ceil(w.packed_outputs(), kWideOutputs) * Ceil(operands.rows, kTileRows);
  return MatMulTiles(/*wide=*/tiles >= kWideTilesMin, operands, w, stream);
}

}  // namespace neurogrid::kernels
