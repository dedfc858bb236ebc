// Up to 16 rows of weights with many outputs: a warp has a tile for itself and sums all of K in one
// chain.
#include "kernels/matmul_few_rows.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kZeroBytes = 256;

int SharedBytes(int ring_stages, const Weights& w, int rows) {
  return ring_stages * kStageWeightBytes + kZeroBytes + kNormBytes + rows * XStride(w.stride());
}

template <int kN>
__device__ __forceinline__ void StoreChain(const Output& out, const float (&sums)[kN][4],
                                           const Channels& channels, int tile, int rows, int lane) {
  const int column = kTileOutputs * tile + lane / 4;
  const auto store = [&](int n, int i) {
    const int row = 8 * n + 2 * (lane % 4) + i;
    if (row >= rows) return;
    StorePair(out, row, tile, lane / 4, sums[n][i], sums[n][i + 2], channels,
              LoadOld(out, row, column), LoadOld(out, row, column + kTileOutputs / 2));
  };
  // As loops the compiler makes one of each for every epilogue: ten times its time.
  store(0, 0);
  store(0, 1);
  if constexpr (kN == 2) {
    store(1, 0);
    store(1, 1);
  }
}

template <WeightFormat kFormat, int kN, int kWarps, int kStages>
__global__ void __launch_bounds__(kWarps* kWarpThreads, 2)
    ChainKernel(Output out, FewRowsOperands a) {
  constexpr int kRingBytes = kStages * kStageWeightBytes;
  constexpr int kZeros = kWarps * kRingBytes;
  constexpr int kNorm = kZeros + kZeroBytes;
  constexpr int kX = kNorm + kNormBytes;
  if (a.left_at_release < 0) ReleaseSuccessor();
  uint8_t* shared = SharedMemory<uint8_t>();
  const int warp = static_cast<int>(threadIdx.x) / kWarpThreads;
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  // Neighbouring tiles go to different blocks: a few tiles keep all multiprocessors busy.
  const int tile_step = static_cast<int>(gridDim.x) * kWarps;
  const int first_tile = warp * static_cast<int>(gridDim.x) + static_cast<int>(blockIdx.x);
  const int chunks = a.padded / kChunkInputs<kFormat>;
  const int ring = warp * kRingBytes;

  WeightStream<1> weights(a, kFormat, first_tile, tile_step, 0, chunks, lane);
  const int early = EarlyStages<kStages>(a);
  // Not unrolled: code that runs once takes longer to fetch than to run.
  const auto fill = [&](int first, int last) {
#pragma unroll 1
    for (int i = first; i < last; ++i) {
      if (weights.live()) {
        weights.Copy(shared + ring + i * kStageWeightBytes);
        weights.Next();
      }
      CommitCopies();
    }
  };
  fill(0, early);
  if (threadIdx.x < kZeroBytes / 16) {
    reinterpret_cast<uint4*>(shared + kZeros)[threadIdx.x] = uint4{0, 0, 0, 0};
  }
  CopyActivations<kN == 1, kWarps * kWarpThreads>(shared + kX, shared + kNorm, a, [&] {
    fill(early, kStages);
    if (warp == 0 && weights.left() <= a.left_at_release) ReleaseSuccessor();
  });

  const LaneRows<kN> rows(a.rows, kZeros, lane,
                          [&](int row) { return kX + row * XStride(a.padded) + lane / 8 * 16; });
  const int lane_weights = ring + LaneOfWeights(lane);
  int slot = 0;
  for (int tile = first_tile; tile < a.tiles; tile += tile_step) {
    const Channels channels = LoadChannels(out, tile, lane / 4);
    float sums[kN][4] = {};
    for (int chunk = 0; chunk < chunks; ++chunk) {
      TakeStage<kFormat, kN, kStages>(
          sums, shared, lane_weights + slot,
          [&](int n, int i) { return rows.From(n, chunk * 2 * kChunkInputs<kFormat>) + 64 * i; },
          [&] {
            if (!weights.live()) return;
            weights.Copy(shared + ring + slot);
            weights.Next();
            if (warp == 0 && weights.left() == a.left_at_release) ReleaseSuccessor();
          });
      slot = slot + kStageWeightBytes == kRingBytes ? 0 : slot + kStageWeightBytes;
    }
    StoreChain(out, sums, channels, tile, a.rows, lane);
  }
}

constexpr int kStagesMin = 3;
constexpr int kStagesAlone = 7;  // so many leave no room for another such block

/// Stages of the rings of eight warps. One or two rows take a multiprocessor for themselves. For a
/// few more a block's successor should fit beside it and fill its rings meanwhile; yet more keep
/// the multiprocessor busy and want the deepest rings there are. Seen on an H200, as all such
/// numbers here.
int Stages(const Weights& w, int rows, const GpuLimits& gpu) {
  constexpr int kReserved = 1024;  // of every block
  constexpr int kEnough = 100 * 1024;
  const int half = (gpu.shared_max + kReserved) / 2 - kReserved;
  if (rows <= kStreamedRowsMax && w.format == WeightFormat::kBf16 &&
      SharedBytes(kFewRowsWarps * kStagesAlone, w, rows) <= gpu.shared_max) {
    return kStagesAlone;
  }
  for (const int shared : {rows <= 8 && half >= kEnough ? half : gpu.shared_max, gpu.shared_max}) {
    for (const int stages : {rows > 8 && w.format == WeightFormat::kInt8 ? 5 : 6, 5, kStagesMin}) {
      if (SharedBytes(kFewRowsWarps * stages, w, rows) <= shared) return stages;
    }
  }
  return 0;
}

template <WeightFormat kFormat, int kN, int kStages>
cudaError_t Start(const MatMulOperands& operands, const Weights& w, const GpuLimits& gpu,
                  cudaStream_t stream) {
  constexpr int kWarps = kFewRowsWarps;
  constexpr int kManyTiles = 24;  // for a multiprocessor
  const int tiles = w.packed_outputs() / kTileOutputs;
  // int8 multiplies as long as it copies: two blocks of a kind on one multiprocessor, beside one
  // without, would end late, so they ask for more than half of the shared memory.
  constexpr bool kAlone = kFormat == WeightFormat::kInt8 || kStages == kStagesAlone;
  const int shared_min = kAlone ? SharedOfOne(gpu) : 0;
  const int many = tiles >= kManyTiles * gpu.multiprocessors && !kAlone ? 2 : 1;
  const int blocks = tiles < gpu.multiprocessors ? tiles : many * gpu.multiprocessors;
  // So few tiles: half the warps, each with twice the ring, or nearly.
  if (tiles <= blocks * kWarps / 2) {
    constexpr int kHalfStages = kStages == 6 ? 10 : 2 * kStages;
    return StartFewRows(
        "MatMul, few rows, chain", ChainKernel<kFormat, kN, kWarps / 2, kHalfStages>, blocks,
        kWarps / 2, AtLeast(shared_min, SharedBytes(kWarps / 2 * kHalfStages, w, operands.rows)),
        operands, w, stream);
  }
  return StartFewRows("MatMul, few rows, chain", ChainKernel<kFormat, kN, kWarps, kStages>, blocks,
                      kWarps, AtLeast(shared_min, SharedBytes(kWarps * kStages, w, operands.rows)),
                      operands, w, stream);
}

template <WeightFormat kFormat, int kN>
cudaError_t StartRows(const MatMulOperands& operands, const Weights& w, const GpuLimits& gpu,
                      cudaStream_t stream) {
  const int stages = Stages(w, operands.rows, gpu);
  if constexpr (kFormat == WeightFormat::kBf16 && kN == 1) {
    if (stages == kStagesAlone) {
      return Start<kFormat, kN, kStagesAlone>(operands, w, gpu, stream);
    }
  }
  return stages == 6   ? Start<kFormat, kN, 6>(operands, w, gpu, stream)
         : stages == 5 ? Start<kFormat, kN, 5>(operands, w, gpu, stream)
                       : Start<kFormat, kN, kStagesMin>(operands, w, gpu, stream);
}

template <WeightFormat kFormat>
cudaError_t StartFormat(const MatMulOperands& operands, const Weights& w, const GpuLimits& gpu,
                        cudaStream_t stream) {
  return operands.rows <= 8 ? StartRows<kFormat, 1>(operands, w, gpu, stream)
                            : StartRows<kFormat, 2>(operands, w, gpu, stream);
}

}  // namespace

bool ChainFits(const Weights& w, int rows, const GpuLimits& gpu) {
  return rows <= kFewRowsMax && Stages(w, rows, gpu) > 0;
}

bool ChainNorms(const Weights& w, int rows, const GpuLimits& gpu) {
  return rows <= kNormedRowsMax && w.inputs <= kNormedInputsMax && ChainFits(w, rows, gpu);
}

cudaError_t MatMulChain(const MatMulOperands& operands, const Weights& w, const GpuLimits& gpu,
                        cudaStream_t stream) {
  return w.format == WeightFormat::kInt8
             ? StartFormat<WeightFormat::kInt8>(operands, w, gpu, stream)
             : StartFormat<WeightFormat::kBf16>(operands, w, gpu, stream);
}

}  // namespace neurogrid::kernels
