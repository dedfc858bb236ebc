// What the two kernels for few rows share. A warp streams weights of 16 outputs at a time through a
// ring of its own in shared memory, which fills before the predecessor has ended.
#pragma once

#include "kernels/launch.h"
#include "kernels/matmul.cuh"
#include "kernels/norm.cuh"

namespace neurogrid::kernels {

inline constexpr int kFewRowsMax = 16;
/// So few rows are bound by the weights' bytes alone: what is on a multiprocessor is chosen for
/// that.
inline constexpr int kStreamedRowsMax = 2;
inline constexpr int kNormedRowsMax = 2;  // more take longer in every block than in a kernel before
inline constexpr int kFewRowsWarps = 8;   // of a block, if tiles are enough
inline constexpr int kStageWeightBytes = kTileOutputs * kChunkBytes;

struct FewRowsOperands {
  const uint8_t* weights;
  const bf16* x;
  int rows;
  int inputs;
  int padded;  // inputs of a row of weights
  int tiles;
  MatMulNorm norm;
  MatMulConvolution convolution;
  int left_at_release;  // stages of a block's first warp; below 0: released from the start
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
        tile_(first_tile),
        tile_step_(tile_step),
        chunk_(first_chunk),
        first_chunk_(first_chunk),
        chunks_(chunks),
        left_(first_chunk < chunks && first_tile < a.tiles
                  ? ((a.tiles - first_tile - 1) / tile_step + 1) *
                        ((chunks - first_chunk - 1) / kChunkStep + 1)
                  : 0),
        low_(Swizzled(lane / 8, lane % 8)) {
    Seek();
  }

  __device__ __forceinline__ bool live() const { return left_ > 0; }
  __device__ __forceinline__ int left() const { return left_; }
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
    --left_;
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
  int tile_step_;
  int chunk_;
  int first_chunk_;
  int chunks_;
  int left_;
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

/// Bytes between two rows of x in shared memory; the padding keeps loads free of bank conflicts.
__host__ __device__ constexpr int XStride(int padded) { return 2 * padded + 16; }

/// All activations, zeros behind the last input; many loads under way at once.
template <int kThreads>
__device__ __forceinline__ void CopyRows(uint8_t* shared, const FewRowsOperands& a) {
  constexpr int kAtOnce = 8;
  const int pieces = a.padded / 8;
  const int all = a.rows * pieces;
  for (int first = static_cast<int>(threadIdx.x); first < all; first += kAtOnce * kThreads) {
    uint4 values[kAtOnce];
    int to[kAtOnce];
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      const int at = first + i * kThreads;
      const int row = at / pieces;
      const int column = at % pieces * 8;
      values[i] = uint4{0, 0, 0, 0};
      to[i] = row * XStride(a.padded) + 2 * column;
      if (at < all && column < a.inputs) {
        values[i] = __ldcg(
            reinterpret_cast<const uint4*>(a.x + static_cast<int64_t>(row) * a.inputs + column));
      }
    }
#pragma unroll
    for (int i = 0; i < kAtOnce; ++i) {
      if (first + i * kThreads < all) *reinterpret_cast<uint4*>(shared + to[i]) = values[i];
    }
  }
}

/// Shared memory that norming takes.
inline constexpr int kNormBytes = kNormedRowsMax * kNormWarpsMax * 4;
/// What the registers of a block hold of a row.
inline constexpr int kNormedInputsMax = 4096;

/// Norms rows on their way to shared memory. Until the first product begins memory has nothing to
/// do, so little is left to do between the predecessor's end and then: addresses and weights of the
/// norm are there before, and values stay in registers from their load on.
template <int kThreads>
class RowNorm {
  using Piece = Vec<bf16>;
  static constexpr int kHeld = kNormedInputsMax / Piece::kCount / kThreads;  // of a row
  static constexpr int kWarps = kThreads / kWarpThreads;
  static_assert(NormThreads<bf16>(kNormedInputsMax) == kHeld * kThreads);

 public:
  __device__ __forceinline__ explicit RowNorm(const FewRowsOperands& a) : a_(a) {
#pragma unroll
    for (int row = 0; row < kNormedRowsMax; ++row) {
      const int64_t source = row < a.rows && a.norm.sources != nullptr ? a.norm.sources[row] : row;
      from_[row] = a.x + source * a.inputs + ColumnOf(0);
    }
#pragma unroll
    for (int i = 0; i < kHeld; ++i) {
      if (ColumnOf(i) >= a.inputs) continue;
#pragma unroll
      for (int j = 0; j < Piece::kCount; j += Vec<float>::kCount) {
        const Vec<float> some = LoadVec(a.norm.parameters.weight + ColumnOf(i) + j);
#pragma unroll
        for (int k = 0; k < Vec<float>::kCount; ++k) weights_[i][j + k] = some.at[k];
      }
    }
  }

  /// All threads of the block call it, once the predecessor has ended; rows are there for all of
  /// them behind it. `loaded` is called when the loads of the rows are under way.
  template <typename Loaded>
  __device__ __forceinline__ void Apply(uint8_t* shared, float* sums, const Loaded& loaded) const {
    Piece x[kNormedRowsMax][kHeld];
#pragma unroll
    for (int row = 0; row < kNormedRowsMax; ++row) {
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        x[row][i] = Piece{};
        if (row < a_.rows && ColumnOf(i) < a_.inputs) {
          const uint4 bits =
              __ldcg(reinterpret_cast<const uint4*>(from_[row] + i * kThreads * Piece::kCount));
          memcpy(&x[row][i], &bits, sizeof(bits));
        }
      }
    }
    loaded();
    // A warp's i-th pieces are those of warp i kWarps + warp of the norm's order.
    const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
#pragma unroll
    for (int row = 0; row < kNormedRowsMax; ++row) {
      if (row >= a_.rows) continue;
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        const float squares = WarpSum(AddSquares(0.0f, x[row][i]));
        if (threadIdx.x % kWarpThreads == 0)
          sums[row * kNormWarpsMax + i * kWarps + warp] = squares;
      }
    }
    __syncthreads();
#pragma unroll
    for (int row = 0; row < kNormedRowsMax; ++row) {
      if (row >= a_.rows) continue;
      const float factor = FactorOf(sums + row * kNormWarpsMax);
#pragma unroll
      for (int i = 0; i < kHeld; ++i) {
        if (ColumnOf(i) < a_.padded) Store(shared, row, i, factor, x[row][i]);
      }
    }
    __syncthreads();
  }

 private:
  __device__ __forceinline__ static int ColumnOf(int i) {
    return (static_cast<int>(threadIdx.x) + i * kThreads) * Piece::kCount;
  }
  __device__ __forceinline__ float FactorOf(const float* parts) const {
    constexpr int kParts = kHeld * kWarps;
    const int warps = NormThreads<bf16>(a_.inputs) / kWarpThreads;
    float squares = 0;
#pragma unroll
    for (int first = 0; first < kParts; first += Vec<float>::kCount) {
      const Vec<float> some = LoadVec(parts + first);
#pragma unroll
      for (int i = 0; i < Vec<float>::kCount; ++i) {
        if (first + i < warps) squares += some.at[i];
      }
    }
    return NormFactor(squares, a_.inputs, a_.norm.parameters.epsilon);
  }
  __device__ __forceinline__ void Store(uint8_t* shared, int row, int i, float factor,
                                        Piece piece) const {
    auto* to = reinterpret_cast<bf16*>(shared + row * XStride(a_.padded)) + ColumnOf(i);
    if (ColumnOf(i) >= a_.inputs) return StoreVec(to, Piece{});
#pragma unroll
    for (int j = 0; j < Piece::kCount; ++j) {
      piece.at[j] =
          Normed(piece.at[j], factor, weights_[i][j], a_.norm.parameters.rounds_before_weight);
    }
    StoreVec(to, piece);
    if (blockIdx.x == 0) {
      StoreVec(
          static_cast<bf16*>(a_.norm.normed) + static_cast<int64_t>(row) * a_.inputs + ColumnOf(i),
          piece);
    }
  }

  const FewRowsOperands& a_;
  const bf16* from_[kNormedRowsMax];
  float weights_[kHeld][Piece::kCount];
};

/// How many of a ring's stages are asked for before the predecessor has ended if rows are normed
/// behind that: loads of rows would wait behind more of them, in queues that all multiprocessors
/// fill at once. The others follow those loads.
template <int kStages>
__device__ __forceinline__ int EarlyStages(const FewRowsOperands& a) {
  return a.norm.parameters.weight != nullptr ? kStages / 2 : kStages;
}

/// Rows of activations as wholes in shared memory, normed where that is wanted. Up to here a part
/// of the ring is on its way; fill() asks for the rest.
template <bool kMayNorm, int kThreads, typename Fill>
__device__ __forceinline__ void CopyActivations(uint8_t* rows, uint8_t* sums,
                                                const FewRowsOperands& a, const Fill& fill) {
  if (kMayNorm && a.norm.parameters.weight != nullptr) {
    const RowNorm<kThreads> norm(a);
    WaitForPredecessor();
    norm.Apply(rows, reinterpret_cast<float*>(sums), fill);
  } else {
    fill();
    WaitForPredecessor();
    CopyRows<kThreads>(rows, a);
    __syncthreads();
  }
}

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

/// A successor whose rings fill long before they are of use takes bytes from its predecessor. A
/// little before the end they fill while the memory would have nothing to do, and what it reads
/// beside them (weights of norms, states of convolutions) comes in time. int8 multiplies as long as
/// it copies, so less is left to do then.
inline int LeftAtRelease(int rows, const Weights& w) {
  if (rows > kStreamedRowsMax) return -1;
  const bool is_chain = SlicesOf(w.packed_outputs()) == 1;
  return w.format == WeightFormat::kInt8 ? (is_chain ? 6 : 2) : (is_chain ? 16 : 6);
}

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
                          w.packed_outputs() / kTileOutputs,
                          operands.norm,
                          operands.convolution,
                          LeftAtRelease(operands.rows, w)};
  return Launch(shape, kernel, Output(operands, w), a);
}

/// Weights of 8 slices: eight warps share a tile, activations travel with the weights.
bool SlicesFit(const Weights& w, int rows, const GpuLimits& gpu);
cudaError_t MatMulSlices(const MatMulOperands& operands, const Weights& w, const GpuLimits& gpu,
                         cudaStream_t stream);
bool SlicesNorm(const Weights& w, int rows, const GpuLimits& gpu);
bool SlicesConvolve(const Weights& w, int rows, int taps, const GpuLimits& gpu);
/// Weights of one chain: a warp has a tile for itself, activations are there as a whole.
bool ChainFits(const Weights& w, int rows, const GpuLimits& gpu);
bool ChainNorms(const Weights& w, int rows, const GpuLimits& gpu);
cudaError_t MatMulChain(const MatMulOperands& operands, const Weights& w, const GpuLimits& gpu,
                        cudaStream_t stream);

}  // namespace neurogrid::kernels
