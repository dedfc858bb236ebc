// What kernels for sm_90 answer where they are not compiled: nothing asks them on a device that
// says it is of another kind.
#include "kernels/attention_ways.h"
#include "kernels/matmul_blocks_sm90.h"
#include "kernels/matmul_convolving.h"
#include "kernels/matmul_sm90.h"

namespace neurogrid::kernels {

bool Sm90Takes(const MatMulOperands&, const Weights&) { return false; }
bool Sm90NormsNext(const MatMulOperands&, const Weights&) { return false; }
bool MatMulConvolves(const ConvolvingOperands&, const Weights&) { return false; }
cudaError_t ConvolvingMatMul(const ConvolvingOperands&, const Weights&, cudaStream_t) {
  return cudaErrorInvalidValue;
}
int64_t SliceFloatsMaxSm90(int) { return 0; }
cudaError_t MatMulSm90(const MatMulOperands&, const Weights&, cudaStream_t) {
  return cudaErrorInvalidValue;
}
bool BlocksSm90Takes(const MatMulOperands&, const Weights&) { return false; }
cudaError_t MatMulBlocksSm90(const MatMulOperands&, const Weights&, cudaStream_t) {
  return cudaErrorInvalidValue;
}
cudaError_t AttendTilesSm90(const AttentionOperands<__nv_bfloat16>&, const AttentionWorkView&,
                            cudaStream_t) {
  return cudaErrorInvalidValue;
}

}  // namespace neurogrid::kernels
