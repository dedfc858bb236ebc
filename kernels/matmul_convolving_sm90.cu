// Products that convolve what they have summed, on sm_90a.
#include <cuda.h>

#include "kernels/launch.h"
#include "kernels/matmul_convolving.h"
#include "kernels/matmul_sm90.h"
#include "kernels/matmul_sm90_split.cuh"
#include "kernels/short_convolution.cuh"
#include "kernels/tensor_map.h"

namespace neurogrid::kernels {
namespace {

constexpr int kTaps = 3;       // of every published LFM2
constexpr int kThirds = 3;     // B, C, U
constexpr int kChannels = 16;  // of a block
constexpr int kPiece = Vec<bf16>::kCount;
constexpr int kSumsStride = kThirds * kChannels + 4;  // floats: no bank conflicts

// A chunk of int8 is 128 inputs, so its stages of 64 rows are larger.
template <WeightFormat kFormat, int kRows>
using ConvolvingTile = Tile<kFormat, 1, kThirds * kChannels, kRows,
                            kFormat == WeightFormat::kInt8 && kRows == 64 ? 4 : 8, 1>;

template <typename T>
__device__ __forceinline__ void CopyStageOfThirds(const Ring<T>& ring, const CUtensorMap& w,
                                                  int slot, int chunk, int columns,
                                                  uint64_t policy) {
  ArriveExpecting(ring.Full(slot), T::kStageBytes);
#pragma unroll
  for (int third = 0; third < kThirds; ++third) {
    CopyBox(ring.Stage(slot) + static_cast<uint32_t>(third * kChannels * kChunkBytes), w,
            chunk * kChunkInputs<T::kFormat>,
            third * columns + static_cast<int>(blockIdx.x) * kChannels, ring.Full(slot), policy);
  }
}

/// The thread that copies.
template <typename T>
__device__ __forceinline__ void FeedThirds(const Ring<T>& ring, const CUtensorMap& w,
                                           const CUtensorMap& x, const Sm90Arguments& a,
                                           int columns, int rounds) {
  for (int slot = 0; slot < T::kStages; ++slot) {
    CopyStageOfThirds(ring, w, slot, slot, columns, a.weights_policy);
  }
  WaitForPredecessor();
  for (int slot = 0; slot < T::kStages; ++slot) CopyStageOfRows(ring, x, slot, slot, 0);
  for (int round = 1; round < rounds; ++round) {
    for (int slot = 0; slot < T::kStages; ++slot) {
      WaitBarrier(ring.Empty(slot), static_cast<uint32_t>(round - 1) & 1);
      const int chunk = round * T::kStages + slot;
      CopyStageOfThirds(ring, w, slot, chunk, columns, a.weights_policy);
      CopyStageOfRows(ring, x, slot, chunk, 0);
    }
  }
}

/// Eight channels of a row. What earlier steps left of it is there before the predecessor has
/// ended.
class RowOfChannels {
  using Piece = Vec<bf16>;

 public:
  __device__ __forceinline__ RowOfChannels(const ConvolutionOperands<bf16>& o,
                                           const ConvolutionChunk* chunks, int rows)
      : row_(static_cast<int>(threadIdx.x) / (kChannels / kPiece)),
        place_(static_cast<int>(threadIdx.x) % (kChannels / kPiece) * kPiece),
        channel_(static_cast<int>(blockIdx.x) * kChannels + place_),
        live_(row_ < rows) {
    if (!live_) return;
#pragma unroll
    for (int tap = 0; tap < kTaps; ++tap) Load(taps_[tap], o.taps + tap * o.columns + channel_);
    if (o.bias != nullptr) Load(bias_, o.bias + channel_);
    slot_ = chunks[row_].slot;
    const int source = chunks[row_].source;
    if (source < 0) return;
    const bf16* state = o.state + source * o.slot_stride + channel_;
#pragma unroll
    for (int i = 0; i < kTaps - 1; ++i) products_[i] = LoadVec(state + i * o.columns);
  }

  /// `sums`: of the block's rows, B, C and U side by side.
  __device__ __forceinline__ void Finish(const float* sums, const Output& out,
                                         const ConvolutionOperands<bf16>& o) {
    if (!live_) return;
    const Piece b = Third(0, sums, out);
    const Piece c = Third(1, sums, out);
    const Piece u = Third(2, sums, out);
    Piece convolved;
#pragma unroll
    for (int i = 0; i < kPiece; ++i) {
      products_[kTaps - 1].at[i] = GatedProduct(b.at[i], u.at[i]);
      float z = bias_[i];
#pragma unroll
      for (int tap = 0; tap < kTaps; ++tap) z = AddTap(z, taps_[tap][i], products_[tap].at[i]);
      convolved.at[i] = Gated(c.at[i], z);
    }
    StoreVec(o.out + static_cast<int64_t>(row_) * o.columns + channel_, convolved);
    if (slot_ < 0) return;
    bf16* state = o.state + slot_ * o.slot_stride + channel_;
#pragma unroll
    for (int i = 0; i < kTaps - 1; ++i) StoreVec(state + i * o.columns, products_[i + 1]);
  }

 private:
  __device__ __forceinline__ static void Load(float (&to)[kPiece], const float* from) {
#pragma unroll
    for (int i = 0; i < kPiece; i += Vec<float>::kCount) {
      const Vec<float> some = LoadVec(from + i);
#pragma unroll
      for (int j = 0; j < Vec<float>::kCount; ++j) to[i + j] = some.at[j];
    }
  }
  /// Rounded and stored as the product alone would.
  __device__ __forceinline__ Piece Third(int third, const float* sums, const Output& out) const {
    const int output = third * (out.columns / kThirds) + channel_;
    const Eight e = Scaled(out, sums + row_ * kSumsStride + third * kChannels + place_, output);
    const Piece piece = RoundedEight(out, e, {});
    StoreVec(static_cast<bf16*>(out.y) + static_cast<int64_t>(row_) * out.stride + output, piece);
    return piece;
  }

  int row_;
  int place_;  // of the first channel in the block's
  int channel_;
  bool live_;
  int slot_ = -1;
  float taps_[kTaps][kPiece];
  float bias_[kPiece] = {};
  Piece products_[kTaps] = {};
};

template <typename T>
__device__ __forceinline__ void SumAndConvolve(const Ring<T>& ring, const Output& out,
                                               const Sm90Arguments& a,
                                               const ConvolutionOperands<bf16>& o,
                                               const ConvolutionChunk* chunks, int rounds) {
  static_assert(T::kRows * (kChannels / kPiece) <= kGroupThreads, "a piece a thread");
  static_assert(T::kRows * kSumsStride * sizeof(float) <= T::kRingBytes);
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  RowOfChannels row(o, chunks, a.rows);
  WaitForPredecessor();
  float sums[T::kSums];
  MultiplyRounds<T>(sums, ring, /*group_bytes=*/0, rounds);
  auto* staged = reinterpret_cast<float*>(ring.bytes);  // no copy is under way any more
  SyncThreads<kGroupThreads>(1);
  if (warp < kThirds) {
#pragma unroll
    for (int i = 0; i < T::kSums; ++i) {
      const int r = i / 4 * 8 + 2 * (lane % 4) + i % 2;
      staged[r * kSumsStride + kChannels * warp + lane / 4 + i / 2 % 2 * 8] = sums[i];
    }
  }
  SyncThreads<kGroupThreads>(1);
  row.Finish(staged, out, o);
}

template <typename T>
__global__ void __launch_bounds__(T::kThreads, 1)
    Sm90ConvolvingKernel(Output out, Sm90Arguments a, ConvolutionOperands<bf16> o,
                         const ConvolutionChunk* chunks, const __grid_constant__ CUtensorMap w,
                         const __grid_constant__ CUtensorMap x) {
  ReleaseSuccessor();
  const Ring<T> ring;
  InitRing(ring);
  const int rounds = (a.chunks + T::kStages - 1) / T::kStages;
  if (threadIdx.x >= kGroupThreads) {
    if (threadIdx.x == kGroupThreads) FeedThirds<T>(ring, w, x, a, o.columns, rounds);
  } else {
    SumAndConvolve<T>(ring, out, a, o, chunks, rounds);
  }
}

constexpr int kFewRows = 32;
constexpr int kRowsMax = 64;

template <typename T>
cudaError_t LaunchConvolving(const ConvolvingOperands& operands, const Weights& w,
                             cudaStream_t stream) {
  const MatMulOperands& product = operands.product;
  CUtensorMap w_map;
  CUtensorMap x_map;
  const bool is_int8 = T::kFormat == WeightFormat::kInt8;
  cudaError_t error =
      EncodeTensorMap({w.data, is_int8, w.packed_outputs(), w.stride()}, kChannels, w_map);
  if (error != cudaSuccess) return error;
  error = EncodeTensorMap({product.x, false, product.rows, w.inputs}, T::kRows, x_map);
  if (error != cudaSuccess) return error;
  const Sm90Arguments arguments{w.packed_outputs(),
                                product.rows,
                                /*row_tiles=*/1,
                                operands.next.columns / kChannels,
                                w.stride() / kChunkInputs<T::kFormat>,
                                kEvictFirst,
                                /*wide_stores=*/true,
                                /*boxes=*/false};
  const LaunchShape shape{"MatMul and ShortConvolution",
                          dim3(static_cast<unsigned>(arguments.tiles)), dim3(T::kThreads),
                          T::kSharedBytes, stream};
  return Launch(shape, Sm90ConvolvingKernel<T>, Output(product, w), arguments, operands.next,
                operands.chunks, w_map, x_map);
}

template <int kRows>
cudaError_t LaunchConvolvingOf(const ConvolvingOperands& operands, const Weights& w,
                               cudaStream_t stream) {
  return w.format == WeightFormat::kInt8
             ? LaunchConvolving<ConvolvingTile<WeightFormat::kInt8, kRows>>(operands, w, stream)
             : LaunchConvolving<ConvolvingTile<WeightFormat::kBf16, kRows>>(operands, w, stream);
}

}  // namespace

bool MatMulConvolves(const ConvolvingOperands& operands, const Weights& w) {
  const MatMulOperands& product = operands.product;
  const ConvolutionOperands<bf16>& next = operands.next;
  const Output out(product, w);
  return product.rows <= kRowsMax && Sm90Takes(product, w) &&
         !FewRowsFit(w, product.rows, LimitsOfGpu()) && SlicesOf(w.packed_outputs()) == 1 &&
         !w.gated && w.outputs == kThirds * next.columns && next.columns % kChannels == 0 &&
         next.taps_count == kTaps && !out.is_f32 && out.epilogue == Epilogue::kStore &&
         HasWideStores(out) && product.norm.parameters.weight == nullptr &&
         product.next.parameters.weight == nullptr;
}

cudaError_t ConvolvingMatMul(const ConvolvingOperands& operands, const Weights& w,
                             cudaStream_t stream) {
  if (!MatMulConvolves(operands, w)) return cudaErrorInvalidValue;
  return operands.product.rows <= kFewRows ? LaunchConvolvingOf<kFewRows>(operands, w, stream)
                                           : LaunchConvolvingOf<kRowsMax>(operands, w, stream);
}

}  // namespace neurogrid::kernels
