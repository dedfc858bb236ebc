#include "kernels/launch.h"
#include "kernels/matmul_pieces.cuh"
#include "kernels/norm.cuh"
#include "kernels/sum_slices.h"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 128;
constexpr int kSlices = 8;
constexpr int kEight = kTileOutputs / 2;

struct Sums {
  const float* slices;
  int64_t slice_floats;
  int packed_outputs;
  int pieces;  // of a row
  int64_t pieces_in_all;
  bool wide_stores;
};

/// The sums of kOutputs neighbours over all slices, `from` pointing to the first slice's.
template <int kOutputs>
__device__ __forceinline__ void AddSlices(const float* from, int64_t slice_floats,
                                          float (&sums)[kOutputs]) {
  Vec<float> parts[kSlices][kOutputs / 4];
#pragma unroll
  for (int slice = 0; slice < kSlices; ++slice) {
#pragma unroll
    for (int four = 0; four < kOutputs / 4; ++four) {
      parts[slice][four] = LoadVec(from + slice * slice_floats + 4 * four);
    }
  }
#pragma unroll
  for (int i = 0; i < kOutputs; ++i) {
    sums[i] = parts[0][i / 4].at[i % 4];
#pragma unroll
    for (int slice = 1; slice < kSlices; ++slice) sums[i] += parts[slice][i / 4].at[i % 4];
  }
}

template <bool kGated>
__global__ void __launch_bounds__(kThreads) SumSlicesKernel(Output out, Sums s) {
  constexpr int kOutputs = kGated ? kTileOutputs : kEight;  // of a piece
  ReleaseSuccessor();
  const int64_t piece = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (piece >= s.pieces_in_all) return WaitForPredecessor();
  const int64_t row = piece / s.pieces;
  const int output = static_cast<int>(piece % s.pieces) * kOutputs;
  WaitForPredecessor();
  float sums[kOutputs];
  AddSlices(s.slices + row * s.packed_outputs + output, s.slice_floats, sums);
  FinishPiece(out, sums, row, output, kGated, s.wide_stores);
}

struct NormShared {
  BlockScratch<float> scratch;
};

/// A block a row, a piece a thread: y, then its norm in the order of rms_norm.cu.
template <int kNormThreads>
__global__ void __launch_bounds__(kNormThreads)
    SumSlicesAndNormKernel(Output out, Sums s, NormParameters norm, bf16* normed) {
  ReleaseSuccessor();
  const int first = static_cast<int>(threadIdx.x) * kEight;
  const bool live = first < out.columns;
  const int64_t row = blockIdx.x;
  bf16* y = static_cast<bf16*>(out.y) + row * out.columns + first;
  Vec<float> weight[2] = {};
  if (live) {
    weight[0] = LoadVec(norm.weight + first);
    weight[1] = LoadVec(norm.weight + first + 4);
  }
  WaitForPredecessor();
  Vec<bf16> piece{};
  float squares = 0;
  if (live) {
    const Vec<bf16> old = OldEight(out, y);  // on its way with the slices
    float sums[kEight];
    AddSlices(s.slices + row * s.packed_outputs + first, s.slice_floats, sums);
    piece = RoundedEight(out, Scaled(out, sums, first), old);
    StoreVec(y, piece);
    squares = AddSquares(squares, piece);
  }
  BlockScratch<float>& scratch = SharedObject<NormShared>().scratch;
  const float factor =
      NormFactor(BlockSum<kNormThreads>(squares, scratch), out.columns, norm.epsilon);
  if (!live) return;
#pragma unroll
  for (int i = 0; i < kEight; ++i) {
    piece.at[i] = Normed(piece.at[i], factor, weight[i / 4].at[i % 4], norm.rounds_before_weight);
  }
  StoreVec(normed + row * out.columns + first, piece);
}

cudaError_t SumAndNorm(const MatMulOperands& operands, const Output& out, const Sums& sums,
                       cudaStream_t stream) {
  const auto launch = [&](auto threads) {
    constexpr int kNormThreads = decltype(threads)::value;
    static_assert(kSlicedOutputsMax <= 512 * kEight, "a piece a thread, whatever the row");
    const LaunchShape shape{"MatMul, slices, then norm", dim3(static_cast<unsigned>(operands.rows)),
                            dim3(kNormThreads), 0, stream};
    return Launch(shape, SumSlicesAndNormKernel<kNormThreads>, out, sums, operands.next.parameters,
                  static_cast<bf16*>(operands.next.normed));
  };
  return ForNormThreads<bf16>(out.columns, launch);
}

}  // namespace

bool SumSlicesNorms(const MatMulOperands& operands, const Weights& w) {
  const Output out(operands, w);
  return !w.gated && !out.is_f32 && out.stride == out.columns && HasWideStores(out);
}

cudaError_t SumSlices(const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  if (SlicesOf(w.packed_outputs()) != kSlices) return cudaErrorInvalidValue;
  const Output out(operands, w);
  const int pieces = w.packed_outputs() / (w.gated ? kTileOutputs : kEight);
  const Sums sums{operands.slices,
                  int64_t{operands.rows} * w.packed_outputs(),
                  w.packed_outputs(),
                  pieces,
                  int64_t{operands.rows} * pieces,
                  HasWideStores(out)};
  if (operands.next.parameters.weight != nullptr) {
    if (!SumSlicesNorms(operands, w)) return cudaErrorInvalidValue;
    return SumAndNorm(operands, out, sums, stream);
  }
  const auto blocks = static_cast<unsigned>((sums.pieces_in_all + kThreads - 1) / kThreads);
  const LaunchShape shape{"MatMul, slices", dim3(blocks), dim3(kThreads), 0, stream};
  return w.gated ? Launch(shape, SumSlicesKernel<true>, out, sums)
                 : Launch(shape, SumSlicesKernel<false>, out, sums);
}

}  // namespace neurogrid::kernels
