// The reference in float32: one chain of multiply-adds over k for each sum.
#include "kernels/launch.h"
#include "kernels/matmul.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kPairs = 8;  // of packed rows g and g + 8
constexpr int kRows = 32;  // of x
constexpr int kThreads = kPairs * kRows;
constexpr int kInputs = 32;  // staged at once
constexpr int kStride = kInputs + 1;

struct F32Shared {
  float w[kTileOutputs][kStride];
  float x[kRows][kStride];
};

__global__ void __launch_bounds__(kThreads)
    F32Kernel(Output out, const float* weights, int padded, const float* x, int rows, int inputs) {
  WaitForPredecessor();
  ReleaseSuccessor();
  F32Shared& shared = SharedObject<F32Shared>();
  const int thread = static_cast<int>(threadIdx.x);
  const int g = thread % kPairs;
  const int row = thread / kPairs;
  const int64_t first_weight = static_cast<int64_t>(blockIdx.x) * kTileOutputs;
  const int64_t first_row = static_cast<int64_t>(blockIdx.y) * kRows;
  float low = 0;
  float high = 0;
  for (int k0 = 0; k0 < inputs; k0 += kInputs) {
    for (int i = thread; i < kTileOutputs * kInputs; i += kThreads) {
      shared.w[i / kInputs][i % kInputs] =
          weights[(first_weight + i / kInputs) * padded + k0 + i % kInputs];
    }
    for (int i = thread; i < kRows * kInputs; i += kThreads) {
      const int64_t r = first_row + i / kInputs;
      const int k = k0 + i % kInputs;
      shared.x[i / kInputs][i % kInputs] = r < rows && k < inputs ? x[r * inputs + k] : 0;
    }
    __syncthreads();
#pragma unroll 8
    for (int k = 0; k < (first_row + row < rows ? kInputs : 0); ++k) {
      low = fmaf(shared.x[row][k], shared.w[g][k], low);
      high = fmaf(shared.x[row][k], shared.w[g + kPairs][k], high);
    }
    __syncthreads();
  }
  if (first_row + row < rows) {
    StorePair(out, first_row + row, static_cast<int>(blockIdx.x), g, low, high);
  }
}

}  // namespace

cudaError_t MatMulF32(const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  const auto tiles = static_cast<unsigned>(w.packed_outputs() / kTileOutputs);
  const auto row_blocks = static_cast<unsigned>((operands.rows + kRows - 1) / kRows);
  const LaunchShape shape{"MatMul, f32", dim3(tiles, row_blocks), dim3(kThreads), 0, stream};
  return Launch(shape, F32Kernel, Output(operands, w), static_cast<const float*>(w.data),
                w.stride(), static_cast<const float*>(operands.x), operands.rows, w.inputs);
}

}  // namespace neurogrid::kernels
