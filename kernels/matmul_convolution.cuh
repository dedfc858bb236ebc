// A product's activations as a short convolution makes them: each block convolves all columns for
// itself, in the bits of ShortConvolution.
#pragma once

#include "kernels/matmul_few_rows.cuh"
#include "kernels/short_convolution.cuh"

namespace neurogrid::kernels {

inline constexpr int kConvolvedTaps = 3;  // of every published LFM2

/// A thread has the same eight columns of every row. Taps and the products of earlier steps are
/// there before the predecessor has ended.
template <int kThreads>
class RowConvolution {
  using Piece = Vec<bf16>;
  static constexpr int kRows = kNormedRowsMax;
  static constexpr int kKept = kConvolvedTaps - 1;

 public:
  static constexpr int kColumnsMax = kThreads * Piece::kCount;
  static_assert(kThreads / kWarpThreads <= kArrivals);

  __device__ __forceinline__ explicit RowConvolution(const FewRowsOperands& a)
      : column_(static_cast<int>(threadIdx.x) * Piece::kCount) {
    if (column_ >= a.inputs) return;
    const ConvolutionOperands<bf16>& o = a.convolution.operands;
#pragma unroll
    for (int j = 0; j < kConvolvedTaps; ++j) LoadFloats(taps_[j], o.taps + j * o.columns);
    if (o.bias != nullptr) LoadFloats(bias_, o.bias);
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      if (row >= a.rows) continue;
      const int source = a.convolution.chunks[row].source;
      if (source < 0) continue;
      const bf16* state = o.state + source * o.slot_stride + column_;
#pragma unroll
      for (int i = 0; i < kKept; ++i) products_[row][i] = LoadVec(state + i * o.columns);
    }
  }

  /// All threads of the block call it, once the predecessor has ended; rows are there for all of
  /// them behind it.
  __device__ __forceinline__ void Apply(uint8_t* shared, const FewRowsOperands& a) {
    const ConvolutionOperands<bf16>& o = a.convolution.operands;
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      if (row >= a.rows || column_ >= a.padded) continue;
      Piece x{};
      if (column_ < a.inputs) {
        const bf16* bcu = o.bcu + static_cast<int64_t>(row) * 3 * o.columns + column_;
        x = Convolve(products_[row], LoadNew(bcu), LoadNew(bcu + o.columns),
                     LoadNew(bcu + 2 * o.columns));
        if (blockIdx.x == 0) StoreVec(o.out + static_cast<int64_t>(row) * o.columns + column_, x);
      }
      StoreVec(reinterpret_cast<bf16*>(shared + row * XStride(a.padded)) + column_, x);
    }
    __syncthreads();
    if (threadIdx.x % kWarpThreads == 0) arrived_ = atomicAdd(Arrivals(a), 1u);
  }

  /// The last block to have read a warp's columns writes what is kept of them: no other reads them
  /// any more, since what is read is used before it is counted.
  __device__ __forceinline__ void Keep(const FewRowsOperands& a) const {
    const ConvolutionOperands<bf16>& o = a.convolution.operands;
    if (__shfl_sync(kFullMask, arrived_, 0) != gridDim.x - 1) return;
    if (threadIdx.x % kWarpThreads == 0) *Arrivals(a) = 0;
    if (column_ >= a.inputs) return;
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      if (row >= a.rows) continue;
      const int slot = a.convolution.chunks[row].slot;
      if (slot < 0) continue;
      bf16* state = o.state + slot * o.slot_stride + column_;
#pragma unroll
      for (int i = 0; i < kKept; ++i) StoreVec(state + i * o.columns, products_[row][i + 1]);
    }
  }

 private:
  __device__ __forceinline__ void LoadFloats(float (&to)[Piece::kCount], const float* from) const {
#pragma unroll
    for (int i = 0; i < Piece::kCount; i += Vec<float>::kCount) {
      const Vec<float> some = LoadVec(from + column_ + i);
#pragma unroll
      for (int j = 0; j < Vec<float>::kCount; ++j) to[i + j] = some.at[j];
    }
  }
  /// Of the predecessor, so not from the first level of the cache.
  __device__ __forceinline__ static Piece LoadNew(const bf16* from) {
    const uint4 bits = __ldcg(reinterpret_cast<const uint4*>(from));
    Piece piece;
    memcpy(&piece, &bits, sizeof(piece));
    return piece;
  }
  /// The newest product joins the others.
  __device__ __forceinline__ Piece Convolve(Piece (&products)[kConvolvedTaps], const Piece& b,
                                            const Piece& c, const Piece& u) const {
    Piece x;
#pragma unroll
    for (int i = 0; i < Piece::kCount; ++i) {
      products[kKept].at[i] = GatedProduct(b.at[i], u.at[i]);
      float z = bias_[i];
#pragma unroll
      for (int j = 0; j < kConvolvedTaps; ++j) z = AddTap(z, taps_[j][i], products[j].at[i]);
      x.at[i] = Gated(c.at[i], z);
    }
    return x;
  }
  __device__ __forceinline__ static uint32_t* Arrivals(const FewRowsOperands& a) {
    return a.convolution.arrivals + threadIdx.x / kWarpThreads;
  }
  int column_;
  unsigned arrived_ = 0;
  float taps_[kConvolvedTaps][Piece::kCount];
  float bias_[Piece::kCount] = {};
  Piece products_[kRows][kConvolvedTaps] = {};
};

}  // namespace neurogrid::kernels
