#include "kernels/launch.h"
#include "kernels/matmul_pieces.cuh"
#include "kernels/sum_slices.h"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kSlices = 8;

struct Sums {
  const float* slices;
  int64_t slice_floats;
  int packed_outputs;
  int pieces;  // of a row
  int64_t pieces_in_all;
  bool wide_stores;
};

template <bool kGated>
__global__ void __launch_bounds__(kThreads) SumSlicesKernel(Output out, Sums s) {
  constexpr int kOutputs = kGated ? kTileOutputs : kTileOutputs / 2;  // of a piece
  ReleaseSuccessor();
  const int64_t piece = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (piece >= s.pieces_in_all) return WaitForPredecessor();
  const int64_t row = piece / s.pieces;
  const int output = static_cast<int>(piece % s.pieces) * kOutputs;
  const float* from = s.slices + row * s.packed_outputs + output;
  WaitForPredecessor();
  Vec<float> parts[kSlices][kOutputs / 4];
#pragma unroll
  for (int slice = 0; slice < kSlices; ++slice) {
#pragma unroll
    for (int four = 0; four < kOutputs / 4; ++four) {
      parts[slice][four] = LoadVec(from + slice * s.slice_floats + 4 * four);
    }
  }
  float sums[kOutputs];
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    sums[i] = parts[0][i / 4].at[i % 4];
#pragma unroll
    for (int slice = 1; slice < kSlices; ++slice) sums[i] += parts[slice][i / 4].at[i % 4];
  }
  FinishPiece(out, sums, row, output, kGated, s.wide_stores);
}

}  // namespace

cudaError_t SumSlices(const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  if (SlicesOf(w.packed_outputs()) != kSlices) return cudaErrorInvalidValue;
  const Output out(operands, w);
  const int pieces = w.packed_outputs() / (w.gated ? kTileOutputs : kTileOutputs / 2);
  const Sums sums{operands.slices,
                  int64_t{operands.rows} * w.packed_outputs(),
                  w.packed_outputs(),
                  pieces,
                  int64_t{operands.rows} * pieces,
                  HasWideStores(out)};
  const auto blocks = static_cast<unsigned>((sums.pieces_in_all + kThreads - 1) / kThreads);
  const LaunchShape shape{"MatMul, slices", dim3(blocks), dim3(kThreads), 0, stream};
  return w.gated ? Launch(shape, SumSlicesKernel<true>, out, sums)
                 : Launch(shape, SumSlicesKernel<false>, out, sums);
}

}  // namespace neurogrid::kernels
