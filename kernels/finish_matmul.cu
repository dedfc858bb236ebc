#include "kernels/finish_matmul.h"
#include "kernels/launch.h"
#include "kernels/matmul.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 256;
constexpr int kPairs = kTileOutputs / 2;

__global__ void __launch_bounds__(kThreads)
    FinishKernel(Output out, const float* sums, int packed_outputs, int64_t pairs) {
  ReleaseSuccessor();
  WaitForPredecessor();
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= pairs) return;
  const int pairs_of_row = packed_outputs / 2;
  const int64_t row = i / pairs_of_row;
  const int pair = static_cast<int>(i % pairs_of_row);
  const int tile = pair / kPairs;
  const int g = pair % kPairs;
  const float* at = sums + row * packed_outputs + kTileOutputs * tile + g;
  StorePair(out, row, tile, g, at[0], at[kPairs]);
}

}  // namespace

cudaError_t FinishMatMul(const MatMulOperands& operands, const Weights& w, const float* sums,
                         cudaStream_t stream) {
  const int64_t pairs = int64_t{operands.rows} * w.packed_outputs() / 2;
  const auto blocks = static_cast<unsigned>((pairs + kThreads - 1) / kThreads);
  const LaunchShape shape{"FinishMatMul", dim3(blocks), dim3(kThreads), 0, stream};
  return Launch(shape, FinishKernel, Output(operands, w), sums, w.packed_outputs(), pairs);
}

}  // namespace neurogrid::kernels
