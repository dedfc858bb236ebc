// The kernel for few rows: which of the two depends on the weights' order over K.
#include "kernels/device_limits.h"
#include "kernels/matmul_blocks.cuh"
#include "kernels/matmul_few_rows.cuh"

namespace neurogrid::kernels {

GpuLimits LimitsOfGpu() { return {MultiprocessorCount(), SharedBytesMax()}; }

bool FewRowsFit(const Weights& w, int rows, const GpuLimits& gpu) {
  if (w.format == WeightFormat::kBlocks) return FewRowsOfBlocksFit(w);
  return SlicesOf(w.packed_outputs()) == 1 ? ChainFits(w, rows, gpu) : SlicesFit(w, rows, gpu);
}

bool FewRowsNorm(const Weights& w, int rows, const GpuLimits& gpu) {
  if (w.format != WeightFormat::kBf16 && w.format != WeightFormat::kInt8) return false;
  return SlicesOf(w.packed_outputs()) == 1 ? ChainNorms(w, rows, gpu) : SlicesNorm(w, rows, gpu);
}

bool FewRowsConvolve(const Weights& w, int rows, int taps, const GpuLimits& gpu) {
  if (w.format != WeightFormat::kBf16 && w.format != WeightFormat::kInt8) return false;
  return SlicesOf(w.packed_outputs()) != 1 && SlicesConvolve(w, rows, taps, gpu);
}

cudaError_t MatMulFewRows(const MatMulOperands& operands, const Weights& w, const GpuLimits& gpu,
                          cudaStream_t stream) {
  return SlicesOf(w.packed_outputs()) == 1 ? MatMulChain(operands, w, gpu, stream)
                                           : MatMulSlices(operands, w, gpu, stream);
}

}  // namespace neurogrid::kernels
