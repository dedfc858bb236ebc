// What the two kernels for few rows share. A warp streams weights of 16 outputs at a time through a
// ring of its own in shared memory, which fills before the predecessor has ended.
#pragma once

#include "kernels/launch.h"
#include "kernels/matmul.cuh"

namespace neurogrid::kernels {

inline constexpr int kFewRowsMax = 16;
inline constexpr int kFewRowsWarps = 8;  // of a block, if tiles are enough
inline constexpr int kStageWeightBytes = kTileOutputs * kChunkBytes;

struct FewRowsOperands {
  const uint8_t* weights;
  const bf16* x;
  int rows;
  int inputs;
  int padded;  // inputs of a row of weights
  int tiles;
};

template <WeightFormat kFormat>
inline constexpr int kParts = kChunkInputs<kFormat> / 64;  // of x: 64 inputs are 128 bytes

/// What one stage brings to the registers of a lane.
template <WeightFormat kFormat, int kN>
struct Fragments {
  uint32_t w[4][4];
  uint32_t x[2 * kParts<kFormat>][kN][4];  // of 32 inputs each
};

template <WeightFormat kFormat, int kN>
__device__ __forceinline__ void Multiply(float (&sums)[kN][4],
                                         const Fragments<kFormat, kN>& fragments) {
#pragma unroll
  for (int piece = 0; piece < 4; ++piece) {
    if constexpr (kFormat == WeightFormat::kInt8) {
      const uint32_t(&r)[4] = fragments.w[piece];
#pragma unroll
      for (int step = 0; step < 2; ++step) {
        uint32_t a[4];
        WidenStep(a, r[2 * step], r[2 * step + 1]);
#pragma unroll
        for (int n = 0; n < kN; ++n) {
          const uint32_t(&b)[4] = fragments.x[piece][n];
          Mma(sums[n], a, b[2 * step], b[2 * step + 1]);
        }
      }
    } else {
#pragma unroll
      for (int n = 0; n < kN; ++n) {
        const uint32_t(&b)[4] = fragments.x[piece / 2][n];
        Mma(sums[n], fragments.w[piece], b[2 * (piece % 2)], b[2 * (piece % 2) + 1]);
      }
    }
  }
}

/// Where a lane reads the weights of a stage: the four pieces lie at this offset ^ 32 i.
__device__ __forceinline__ int LaneOfWeights(int lane) { return Swizzled(lane % 16, lane / 16); }

__device__ __forceinline__ void LoadWeights(uint32_t (&w)[4][4], const uint8_t* shared, int at) {
#pragma unroll
  for (int i = 0; i < 4; ++i) LdMatrix(w[i], shared + (at ^ (i << 5)));
}

/// A warp's way through its tiles and the chunks of each, copying weights.
template <int kChunkStep>
class WeightStream {
 public:
  __device__ __forceinline__ WeightStream(const FewRowsOperands& a, WeightFormat format,
                                          int first_tile, int tile_step, int first_chunk,
                                          int chunks, int lane)
      : row_bytes_(int64_t{a.padded} * Weights::ElementBytes(format)),
        lane_(a.weights + lane / 8 * row_bytes_ + 16 * (lane % 8)),
        tile_(first_chunk < chunks ? first_tile : a.tiles),
        tiles_(a.tiles),
        tile_step_(tile_step),
        chunk_(first_chunk),
        first_chunk_(first_chunk),
        chunks_(chunks),
        low_(Swizzled(lane / 8, lane % 8)) {
    Seek();
  }

  __device__ __forceinline__ bool live() const { return tile_ < tiles_; }
  __device__ __forceinline__ int chunk() const { return chunk_; }
  __device__ __forceinline__ void Copy(uint8_t* stage) const {
    // Rows 4 i + lane / 8: the swizzle of odd i differs in one bit.
    const uint8_t* from = from_;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      CopyAsync16(stage + ((low_ ^ (i % 2 << 6)) + i * 4 * kChunkBytes), from, true);
      from += 4 * row_bytes_;
    }
  }
  __device__ __forceinline__ void Next() {
    chunk_ += kChunkStep;
    from_ += kChunkStep * kChunkBytes;
    if (chunk_ >= chunks_) {
      chunk_ = first_chunk_;
      tile_ += tile_step_;
      Seek();
    }
  }

 private:
  __device__ __forceinline__ void Seek() {
    from_ = lane_ + tile_ * kTileOutputs * row_bytes_ + chunk_ * kChunkBytes;
  }

  int64_t row_bytes_;
  const uint8_t* lane_;
  const uint8_t* from_;
  int tile_;
  int tiles_;
  int tile_step_;
  int chunk_;
  int first_chunk_;
  int chunks_;
  int low_;
};

/// Where a lane finds its rows of activations in shared memory. Rows that are not there are zeros
/// that lie elsewhere and do not move from stage to stage.
template <int kN>
struct LaneRows {
  int at[kN];
  int mask[kN];  // all bits where the row is there

  template <typename Place>
  __device__ __forceinline__ LaneRows(int rows, int zeros, int lane, const Place& place) {
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const int row = 8 * n + lane % 8;
      mask[n] = row < rows ? -1 : 0;
      at[n] = row < rows ? place(row) : zeros;
    }
  }
  __device__ __forceinline__ int From(int n, int offset) const {
    return at[n] + (offset & mask[n]);
  }
};

/// A warp's sums += the stage at `weights`, the oldest of kStages under way; `refill` starts the
/// next copies to its place. x(n, i): 32 i inputs behind the first of this lane's row 8 n + ...
template <WeightFormat kFormat, int kN, int kStages, typename X, typename Refill>
__device__ __forceinline__ void TakeStage(float (&sums)[kN][4], const uint8_t* shared, int weights,
                                          const X& x, const Refill& refill) {
  WaitForCopies<kStages - 1>();
  __syncwarp();
  Fragments<kFormat, kN> fragments;
  LoadWeights(fragments.w, shared, weights);
#pragma unroll
  for (int n = 0; n < kN; ++n) {
#pragma unroll
    for (int i = 0; i < 2 * kParts<kFormat>; ++i) LdMatrix(fragments.x[i][n], shared + x(n, i));
  }
  __syncwarp();
  refill();
  CommitCopies();
  Multiply<kFormat, kN>(sums, fragments);
}

/// So much shared memory that a multiprocessor holds one such block.
inline int SharedOfOne(const GpuLimits& gpu) { return gpu.shared_max / 2 + 2048; }
inline int AtLeast(int least, int bytes) { return bytes < least ? least : bytes; }

template <typename Kernel>
cudaError_t StartFewRows(const char* name, Kernel kernel, int blocks, int warps, int shared,
                         const MatMulOperands& operands, const Weights& w, cudaStream_t stream) {
  const LaunchShape shape{name, dim3(static_cast<unsigned>(blocks)),
                          dim3(static_cast<unsigned>(warps * kWarpThreads)),
                          static_cast<size_t>(shared), stream};
  const FewRowsOperands a{static_cast<const uint8_t*>(w.data),
                          static_cast<const bf16*>(operands.x),
                          operands.rows,
                          w.inputs,
                          w.stride(),
                          w.packed_outputs() / kTileOutputs};
  return Launch(shape, kernel, Output(operands, w), a);
}

/// Weights of 8 slices: eight warps share a tile, activations travel with the weights.
bool SlicesFit(const Weights& w, int rows, const GpuLimits& gpu);
cudaError_t MatMulSlices(const MatMulOperands& operands, const Weights& w, const GpuLimits& gpu,
                         cudaStream_t stream);
/// Weights of one chain: a warp has a tile for itself, activations are there as a whole.
bool ChainFits(const Weights& w, int rows, const GpuLimits& gpu);
cudaError_t MatMulChain(const MatMulOperands& operands, const Weights& w, const GpuLimits& gpu,
                        cudaStream_t stream);

}  // namespace neurogrid::kernels
