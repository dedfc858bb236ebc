// Up to 16 rows of weights with few outputs: the eight warps of a block take a slice of K each.
#include <type_traits>

#include "kernels/matmul_convolution.cuh"
#include "kernels/matmul_few_rows.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = kFewRowsWarps * kWarpThreads;
constexpr int kPartStride = 20;  // floats between the sums of two rows: no bank conflicts

/// Activations travel with the weights, so any number of inputs fits; where a block makes them
/// first they are there as a whole.
enum class Origin { kGiven, kNormed, kConvolved };
struct Nothing {
  __device__ __forceinline__ explicit Nothing(const FewRowsOperands&) {}
};

template <WeightFormat kFormat, int kRows, bool kWhole>
struct SlicedStage {
  static constexpr int kN = (kRows + 7) / 8;
  static constexpr int kXBytes = kParts<kFormat> * kRows * kChunkBytes;
  static constexpr int kBytes = kStageWeightBytes + (kWhole ? 0 : kXBytes);

  __host__ __device__ static constexpr int PartBytes(int rows) {
    return 2 * kFewRowsWarps * rows * kPartStride * 4;
  }
  __host__ __device__ static constexpr int SharedBytes(int stages, int rows, int padded) {
    return kFewRowsWarps * stages * kBytes + PartBytes(rows) +
           (kWhole ? kNormBytes + rows * XStride(padded) : 0);
  }
};

/// A lane's part in copying activations into the stages of its warp.
template <WeightFormat kFormat, int kRows>
class ActivationStream {
  static constexpr int kRowPieces = 8 * kParts<kFormat>;       // of 16 bytes, in a row
  static constexpr int kCopyRows = kWarpThreads / kRowPieces;  // rows of one copy of all lanes

 public:
  static constexpr int kCopies = (kRows + kCopyRows - 1) / kCopyRows;

  __device__ __forceinline__ ActivationStream(const FewRowsOperands& a, int lane)
      : rows_(a.rows - lane / kRowPieces),
        inputs_(a.inputs),
        column_(lane % kRowPieces * 8),
        from_(a.x + static_cast<int64_t>(lane / kRowPieces) * a.inputs + column_) {
    const int row = lane / kRowPieces;
    const int piece = lane % kRowPieces;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      to_[i] = kStageWeightBytes + piece / 8 * kRows * kChunkBytes +
               Swizzled(row + i * kCopyRows, piece % 8);
    }
  }

  __device__ __forceinline__ void Copy(uint8_t* stage, int chunk) const {
    const int column = chunk * kChunkInputs<kFormat>;
    const bool live = column + column_ < inputs_;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if (i * kCopyRows < rows_) CopyAsync16(stage + to_[i], From(i, live ? column : 0), live);
    }
  }
  /// The same through registers, so that nothing waits for the copies under way.
  __device__ __forceinline__ void Load(uint4 (&values)[kCopies], int chunk) const {
    const int column = chunk * kChunkInputs<kFormat>;
    const bool live = column + column_ < inputs_;
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      values[i] = uint4{0, 0, 0, 0};
      if (live && i * kCopyRows < rows_) {
        values[i] = __ldcg(reinterpret_cast<const uint4*>(From(i, column)));
      }
    }
  }
  __device__ __forceinline__ void Store(uint8_t* stage, const uint4 (&values)[kCopies]) const {
#pragma unroll
    for (int i = 0; i < kCopies; ++i) {
      if (i * kCopyRows < rows_) *reinterpret_cast<uint4*>(stage + to_[i]) = values[i];
    }
  }

 private:
  __device__ __forceinline__ const bf16* From(int copy, int column) const {
    return from_ + static_cast<int64_t>(copy * kCopyRows) * inputs_ + column;
  }

  int rows_;  // from this lane's first on
  int inputs_;
  int column_;
  const bf16* from_;
  int to_[kCopies];
};

/// A warp's sums of one slice, to where they are added.
template <int kN>
__device__ __forceinline__ void KeepSlice(float* part, const float (&sums)[kN][4], int rows,
                                          int lane) {
#pragma unroll
  for (int n = 0; n < kN; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int row = 8 * n + 2 * (lane % 4) + i % 2;
      if (row < rows) part[row * kPartStride + lane / 4 + i / 2 * 8] = sums[n][i];
    }
  }
}

/// What one thread adds and stores of a tile: outputs g and g + 8 of a row.
struct PairOfTile {
  int row;
  int g;
  Channels channels;
  float old_low;
  float old_high;

  __device__ __forceinline__ PairOfTile(const Output& out, int rows, int tile)
      : row(static_cast<int>(threadIdx.x) / 8), g(static_cast<int>(threadIdx.x) % 8) {
    if (row >= rows) return;
    channels = LoadChannels(out, tile, g);
    old_low = LoadOld(out, row, kTileOutputs * tile + g);
    old_high = LoadOld(out, row, kTileOutputs * tile + g + kTileOutputs / 2);
  }
  /// Slices from the first to the last.
  __device__ __forceinline__ void Add(const Output& out, const float* parts, int rows, int tile) {
    if (row >= rows) return;
    const float* part = parts + row * kPartStride + g;
    float low = part[0];
    float high = part[8];
#pragma unroll
    for (int slice = 1; slice < kFewRowsWarps; ++slice) {
      part += rows * kPartStride;
      low += part[0];
      high += part[8];
    }
    StorePair(out, row, tile, g, low, high, channels, old_low, old_high);
  }
};

/// Starts stages first, ..., last - 1 of a ring. Not unrolled: code that runs once takes longer to
/// fetch than to run.
__device__ __forceinline__ void FillRing(uint8_t* ring, int stage_bytes,
                                         WeightStream<kFewRowsWarps>& weights, int first,
                                         int last) {
#pragma unroll 1
  for (int i = first; i < last; ++i) {
    if (weights.live()) {
      weights.Copy(ring + i * stage_bytes);
      weights.Next();
    }
    CommitCopies();
  }
}

/// The activations of the first stages, once the predecessor has ended.
template <WeightFormat kFormat, int kRows, int kStages>
__device__ __forceinline__ void FillActivations(
    uint8_t* ring, int chunks, const ActivationStream<kFormat, kRows>& activations) {
  using Stage = SlicedStage<kFormat, kRows, false>;
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  uint4 values[kStages][ActivationStream<kFormat, kRows>::kCopies];
#pragma unroll
  for (int i = 0, chunk = warp; i < kStages; ++i) {
    activations.Load(values[i], chunk);
    chunk = chunk + kFewRowsWarps < chunks ? chunk + kFewRowsWarps : warp;
  }
#pragma unroll
  for (int i = 0; i < kStages; ++i) activations.Store(ring + i * Stage::kBytes, values[i]);
}

/// Where a lane finds its rows of activations in shared memory. It reads the first in place of rows
/// that are not there: the sums of one row do not depend on the others', and theirs are not kept.
template <int kN>
struct PresentRows {
  int at[kN];

  template <typename Place>
  __device__ __forceinline__ PresentRows(int rows, int lane, const Place& place) {
#pragma unroll
    for (int n = 0; n < kN; ++n) at[n] = place(8 * n + lane % 8 < rows ? 8 * n + lane % 8 : 0);
  }
};

/// Activations to the first stages or as wholes to `rows`. Up to here the rings are on their way.
template <Origin kOrigin, WeightFormat kFormat, int kRows, int kStages, typename Convolution,
          typename Fill>
__device__ __forceinline__ void BringActivations(
    uint8_t* ring, int chunks, const ActivationStream<kFormat, kRows>& activations, uint8_t* rows,
    uint8_t* sums, Convolution& convolution, const FewRowsOperands& a, const Fill& fill) {
  if constexpr (kOrigin == Origin::kNormed) {
    CopyActivations<true, kThreads>(rows, sums, a, fill);
  } else if constexpr (kOrigin == Origin::kConvolved) {
    fill();
    WaitForPredecessor();
    convolution.Apply(rows, a);
  } else {
    fill();
    WaitForPredecessor();
    FillActivations<kFormat, kRows, kStages>(ring, chunks, activations);
  }
}

template <WeightFormat kFormat, int kRows, int kStages, Origin kOrigin>
__global__ void __launch_bounds__(kThreads, 2) SlicedKernel(Output out, FewRowsOperands a) {
  constexpr bool kWhole = kOrigin != Origin::kGiven;
  using Stage = SlicedStage<kFormat, kRows, kWhole>;
  constexpr int kRingBytes = kStages * Stage::kBytes;
  constexpr int kNorm = kFewRowsWarps * kRingBytes;
  if (a.left_at_release < 0) ReleaseSuccessor();
  uint8_t* shared = SharedMemory<uint8_t>();
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int first_tile = static_cast<int>(blockIdx.x);
  const int tile_step = static_cast<int>(gridDim.x);
  const int chunks = a.padded / kChunkInputs<kFormat>;
  const int ring = warp * kRingBytes;
  const int parts_at = kNorm + (kWhole ? kNormBytes : 0);
  float* parts = reinterpret_cast<float*>(shared + parts_at);
  const int rows_at = parts_at + Stage::PartBytes(a.rows);

  WeightStream<kFewRowsWarps> weights(a, kFormat, first_tile, tile_step, warp, chunks, lane);
  const ActivationStream<kFormat, kRows> activations(a, lane);
  const int early = EarlyStages<kStages>(a);
  FillRing(shared + ring, Stage::kBytes, weights, 0, early);
  const auto fill = [&] {
    FillRing(shared + ring, Stage::kBytes, weights, early, kStages);
    if (warp == 0 && weights.left() <= a.left_at_release) ReleaseSuccessor();
  };
  std::conditional_t<kOrigin == Origin::kConvolved, RowConvolution<kThreads>, Nothing> convolution(
      a);
  BringActivations<kOrigin, kFormat, kRows, kStages>(
      shared + ring, chunks, activations, shared + rows_at, shared + kNorm, convolution, a, fill);

  const PresentRows<Stage::kN> rows(a.rows, lane, [&](int row) {
    return kWhole ? rows_at + row * XStride(a.padded) + lane / 8 * 16
                  : ring + kStageWeightBytes + Swizzled(row, lane / 8);
  });
  const int lane_weights = ring + LaneOfWeights(lane);
  int slot = 0;
  int buffer = 0;
  for (int tile = first_tile; tile < a.tiles; tile += tile_step) {
    PairOfTile pair(out, a.rows, tile);
    float sums[Stage::kN][4] = {};
    for (int chunk = warp; chunk < chunks; chunk += kFewRowsWarps) {
      TakeStage<kFormat, Stage::kN, kStages>(
          sums, shared, lane_weights + slot,
          [&](int n, int i) {
            return kWhole ? rows.at[n] + chunk * 2 * kChunkInputs<kFormat> + 64 * i
                          : ((rows.at[n] + slot) ^ (i % 2 << 6)) + i / 2 * kRows * kChunkBytes;
          },
          [&] {
            if (!weights.live()) return;
            weights.Copy(shared + ring + slot);
            if (!kWhole) activations.Copy(shared + ring + slot, weights.chunk());
            weights.Next();
            if (warp == 0 && weights.left() == a.left_at_release) ReleaseSuccessor();
          });
      slot = slot + Stage::kBytes == kRingBytes ? 0 : slot + Stage::kBytes;
    }
    float* tile_parts = parts + buffer * kFewRowsWarps * a.rows * kPartStride;
    KeepSlice(tile_parts + warp * a.rows * kPartStride, sums, a.rows, lane);
    __syncthreads();
    pair.Add(out, tile_parts, a.rows, tile);
    buffer ^= 1;  // the next tile's sums go elsewhere, so one barrier a tile is enough
  }
  if constexpr (kOrigin == Origin::kConvolved) convolution.Keep(a);
}

/// How many stages a ring has where shared memory is plenty: some 80 KiB of weights of a block for
/// one or two rows, and fewer as activations take their part.
template <WeightFormat kFormat, int kRows>
struct Rings {
  static constexpr bool kWide = kFormat == WeightFormat::kBf16;
  static constexpr int kDeep = kRows == 2 ? 5 : kRows == 8 ? (kWide ? 4 : 3) : (kWide ? 3 : 2);
  static constexpr int kShort = kRows == 16 ? 1 : 2;
  static constexpr int kLeast = kRows == 2 || (kRows == 8 && kWide) ? 2 : 1;  // sm_75

  static constexpr int LeastBytes(int rows) {
    return SlicedStage<kFormat, kRows, false>::SharedBytes(kLeast, rows, 0);
  }
};

template <WeightFormat kFormat, int kRows, int kStages, Origin kOrigin>
cudaError_t StartStages(int shared_min, const MatMulOperands& operands, const Weights& w,
                        const GpuLimits& gpu, cudaStream_t stream) {
  using Stage = SlicedStage<kFormat, kRows, kOrigin != Origin::kGiven>;
  const int tiles = w.packed_outputs() / kTileOutputs;
  const int blocks = tiles < gpu.multiprocessors ? tiles : gpu.multiprocessors;
  const int shared = Stage::SharedBytes(kStages, operands.rows, w.stride());
  return StartFewRows("MatMul, few rows, slices", SlicedKernel<kFormat, kRows, kStages, kOrigin>,
                      blocks, kFewRowsWarps, AtLeast(shared_min, shared), operands, w, stream);
}

template <WeightFormat kFormat, int kRows, Origin kOrigin>
cudaError_t Start(const MatMulOperands& operands, const Weights& w, const GpuLimits& gpu,
                  cudaStream_t stream) {
  using Stage = SlicedStage<kFormat, kRows, kOrigin != Origin::kGiven>;
  constexpr int kDeep = Rings<kFormat, kRows>::kDeep;
  constexpr int kShort = Rings<kFormat, kRows>::kShort;
  // Where a block is busy with one long tile, none of its kind should join it.
  constexpr int kLong = 12;  // chunks of a slice
  const bool alone = kRows == 2 && w.stride() / kChunkInputs<kFormat> >= kLong * kFewRowsWarps;
  const int shared_min = alone ? SharedOfOne(gpu) : 0;
  if (Stage::SharedBytes(kDeep, operands.rows, w.stride()) <= gpu.shared_max) {
    return StartStages<kFormat, kRows, kDeep, kOrigin>(shared_min, operands, w, gpu, stream);
  }
  constexpr bool kWhole = kOrigin != Origin::kGiven;
  constexpr int kLeast = kWhole ? kShort : Rings<kFormat, kRows>::kLeast;  // SlicesNorm: no less
  if (Stage::SharedBytes(kShort, operands.rows, w.stride()) <= gpu.shared_max) {
    return StartStages<kFormat, kRows, kShort, kOrigin>(0, operands, w, gpu, stream);
  }
  return StartStages<kFormat, kRows, kLeast, kOrigin>(0, operands, w, gpu, stream);
}

template <WeightFormat kFormat>
cudaError_t StartFormat(const MatMulOperands& operands, const Weights& w, const GpuLimits& gpu,
                        cudaStream_t stream) {
  if (operands.norm.parameters.weight != nullptr) {
    return Start<kFormat, kNormedRowsMax, Origin::kNormed>(operands, w, gpu, stream);
  }
  if (operands.convolution.operands.out != nullptr) {
    return Start<kFormat, kNormedRowsMax, Origin::kConvolved>(operands, w, gpu, stream);
  }
  constexpr Origin kGiven = Origin::kGiven;
  return operands.rows <= 2   ? Start<kFormat, 2, kGiven>(operands, w, gpu, stream)
         : operands.rows <= 8 ? Start<kFormat, 8, kGiven>(operands, w, gpu, stream)
                              : Start<kFormat, kFewRowsMax, kGiven>(operands, w, gpu, stream);
}

template <WeightFormat kFormat>
int LeastBytes(int rows) {
  return rows <= 2   ? Rings<kFormat, 2>::LeastBytes(rows)
         : rows <= 8 ? Rings<kFormat, 8>::LeastBytes(rows)
                     : Rings<kFormat, kFewRowsMax>::LeastBytes(rows);
}

}  // namespace

bool SlicesFit(const Weights& w, int rows, const GpuLimits& gpu) {
  const int bytes = w.format == WeightFormat::kInt8 ? LeastBytes<WeightFormat::kInt8>(rows)
                                                    : LeastBytes<WeightFormat::kBf16>(rows);
  return rows <= kFewRowsMax && bytes <= gpu.shared_max;
}

bool SlicesNorm(const Weights& w, int rows, const GpuLimits& gpu) {
  constexpr WeightFormat kLargest = WeightFormat::kInt8;
  constexpr int kStages = Rings<kLargest, kNormedRowsMax>::kShort;
  using Stage = SlicedStage<kLargest, kNormedRowsMax, true>;
  return rows <= kNormedRowsMax && w.inputs <= kNormedInputsMax &&
         Stage::SharedBytes(kStages, rows, w.stride()) <= gpu.shared_max;
}

bool SlicesConvolve(const Weights& w, int rows, int taps, const GpuLimits& gpu) {
  return taps == kConvolvedTaps && w.inputs <= RowConvolution<kThreads>::kColumnsMax &&
         w.stride() <= RowConvolution<kThreads>::kColumnsMax && SlicesNorm(w, rows, gpu);
}

cudaError_t MatMulSlices(const MatMulOperands& operands, const Weights& w, const GpuLimits& gpu,
                         cudaStream_t stream) {
  return w.format == WeightFormat::kInt8
             ? StartFormat<WeightFormat::kInt8>(operands, w, gpu, stream)
             : StartFormat<WeightFormat::kBf16>(operands, w, gpu, stream);
}

}  // namespace neurogrid::kernels
