// More rows with wgmma at head_dim 256, with or without a soft cap: sm_90a alone, equal bits with
// attention_tiles.cu.
//
// A block is up to 64 rows of a tile and a kv head. One warpgroup copies keys and values to a ring
// of chunks of 32 KiB. Two attend: each scores half of a split's positions, learns the other's
// maxima and leaves its probabilities in shared memory; of the result each owns half of the
// columns. A split's outputs are added to the totals while the next split is scored.
#include "kernels/attention_sm90.cuh"
#include "kernels/attention_ways.h"
#include "kernels/launch.h"

namespace neurogrid::kernels {
namespace {

constexpr int kDim = 256;
constexpr int kRows = kWgmmaRows;
constexpr int kConsumers = 2 * kWarpgroupThreads;
constexpr int kHalf = kSplitTokens / 2;  // positions that a warpgroup scores
constexpr int kGroups = 4;               // of 64 positions, or of 64 columns
constexpr int kChunks = 8;               // of a split: see CopyChunk
constexpr int kChunkBytes = 32 * 1024;
constexpr int kBoxBytes = kHalf * 128;    // 128 positions by 64 columns
constexpr int kGroupBytes = kQueryBytes;  // all rows by 64 columns or positions
using Ring = ChunkRing<5, kChunkBytes>;
constexpr size_t kBytes = kSwizzleBytes + 2 * kGroups * kGroupBytes + Ring::kSlotsBytes +
                          sizeof(float) * (2 + kGroups) * kRows + Ring::kBarriersBytes;

enum NamedBarrier { kQueriesLoaded = 1, kMaximaKnown, kProbabilitiesKnown };

struct Shared {
  uint8_t* queries;        // [kGroups of columns][kRows]
  uint8_t* probabilities;  // [kGroups of positions][kRows]
  Ring ring;
  float* maxima;  // [half of the positions][kRows]
  float* sums;    // [kGroups of positions][kRows]

  __device__ explicit Shared(uint8_t* shared) {
    queries = SwizzleAligned(shared);
    probabilities = queries + kGroups * kGroupBytes;
    ring.slots = probabilities + kGroups * kGroupBytes;
    maxima = reinterpret_cast<float*>(ring.slots + Ring::kSlotsBytes);
    sums = maxima + 2 * kRows;
    ring.barriers = SharedAddress(sums + kGroups * kRows);
  }
};

/// Chunk `chunk` of a split; zeros where no row sees it. Chunks 0 .. 3 are keys: all positions by
/// 64 columns. Chunk 4 + 2 half + side is values: half of the positions by half of the columns, a
/// box of 64 columns after the other.
__device__ __forceinline__ void CopyChunk(uint8_t* slot, const Bf16Attention& o,
                                          const AttentionPlace& place, int chunk) {
  constexpr int kSteps = kSplitTokens / kPageTokens;
  constexpr int kStepBytes = kPageTokens * 128;
  const int thread = static_cast<int>(threadIdx.x);
  const int piece = thread % 8;
  const int in_page = thread / 8;
  const bool values = chunk >= kGroups;
  const int first_step = values ? (chunk - kGroups) / 2 * (kSteps / 2) : 0;
  const int column = (values ? chunk % 2 * (kDim / 2) : chunk * 64) + piece * 8;
  const bf16* tile = values ? o.kv.values(0, place.kv_head) : o.kv.keys(0, place.kv_head);
  const auto* from = reinterpret_cast<const uint8_t*>(tile + in_page * kDim + column);
  const auto page_bytes = static_cast<uint32_t>(o.kv.page_stride * int64_t{sizeof(bf16)});
  uint8_t* to = slot + SwizzledByte(in_page, piece);
  const int first = place.first - in_page - first_step * kPageTokens;
  const int last = place.last - in_page - first_step * kPageTokens;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    if (values && step == kSteps / 2) break;
    const int token = step * kPageTokens;
    const bool live = token >= first && token < last;
    const uint8_t* source =
        from + static_cast<uint64_t>(place.PageOf((first_step + step) * kPageTokens)) * page_bytes;
    CopyAsync16(to + step * kStepBytes, source, live);
    if (values) CopyAsync16(to + kBoxBytes + step * kStepBytes, source + 128, live);
  }
}

__device__ __forceinline__ void Copy(const Shared& shared, const Bf16Attention& o,
                                     AttentionPlace place) {
  shared.ring.Produce(kChunks * place.tile.splits, [&](int chunk) {
    if (chunk % kChunks == 0) place.SetSplit(place.tile.first_split + chunk / kChunks, o);
    CopyChunk(shared.ring.Slot(chunk), o, place, chunk % kChunks);
  });
}

/// One of the two warpgroups that attend.
template <bool kCaps>
struct Consumer {
  const Shared& shared;
  const Bf16Attention& o;
  AttentionPlace place;
  int side;  // which half of the positions, and of the columns
  int lane;
  int first_row;  // of this thread's two, eight apart
  float factor;

  float scores[64];
  float outputs[64];
  float totals[64];
  float maxima[2];  // of the split whose probabilities are there, times the factor
  SoftmaxPart parts[2];

  __device__ __forceinline__ uint32_t SlotOf(int chunk) const {
    return SharedAddress(shared.ring.Slot(chunk));
  }
  __device__ __forceinline__ void WaitFor(int chunk) const { shared.ring.WaitFor(chunk); }
  __device__ __forceinline__ void Leave(int chunk) const { shared.ring.Leave(chunk, lane); }

  /// Queues what a chunk of keys adds to the scores.
  __device__ __forceinline__ void QueueKeys(int split, int chunk) {
    WaitFor(kChunks * split + chunk);
    const uint64_t a = RowsDescriptor(SharedAddress(shared.queries + chunk * kGroupBytes));
    const uint64_t b =
        RowsDescriptor(SlotOf(kChunks * split + chunk) + static_cast<uint32_t>(side * kBoxBytes));
    BeginProducts();
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      Wgmma<128>::Run(scores, a + kStepDescriptor * step, b + kStepDescriptor * step,
                      chunk + step > 0);
    }
    CommitProducts();
  }
  /// All scores of a split; with `takes`, the split before has its outputs queued.
  template <bool kTakes>
  __device__ __forceinline__ void Score(int split) {
    QueueKeys(split, 0);
    if constexpr (kTakes) {
      WaitForProducts<1>();
      Pin(outputs);
      Leave(kChunks * split - 2 + side);
    }
    QueueKeys(split, 1);
    if constexpr (kTakes) TakeOutputs();
#pragma unroll
    for (int chunk = 2; chunk < kGroups; ++chunk) {
      WaitForProducts<1>();
      Leave(kChunks * split + chunk - 2);
      QueueKeys(split, chunk);
    }
    WaitForProducts<0>();
    Pin(scores);
    Leave(kChunks * split + kGroups - 2);
    Leave(kChunks * split + kGroups - 1);
  }

  __device__ __forceinline__ void Cap() {
    if constexpr (kCaps) {
#pragma unroll
      for (int i = 0; i < 64; ++i) scores[i] = o.softcap * tanhf(scores[i] * o.scale / o.softcap);
    }
  }
  /// Hides what a thread's rows do not see, where some row does not see all.
  __device__ __forceinline__ void Hide() {
    const int earliest = place.tile.first_position - place.start;
    if (place.SeesAll(o.window)) return;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int position = earliest + place.QueryInTile(first_row + 8 * half);
      const int column = side * kHalf + 2 * (lane % 4);
      const int last = (position < place.last ? position : place.last - 1) - column;
      const int first = (o.window > 0 ? position - o.window + 1 : -place.start) - column;
#pragma unroll
      for (int j = 0; j < 16; ++j) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& score = scores[4 * j + 2 * half + i];
          score = 8 * j + i >= first && 8 * j + i <= last ? score : MinusInfinity();
        }
      }
    }
  }
  /// Each row's maximum over the split.
  __device__ __forceinline__ void FindMaxima(float (&found)[2]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float maximum = MinusInfinity();
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        maximum = fmaxf(maximum, fmaxf(scores[4 * j + 2 * half], scores[4 * j + 2 * half + 1]));
      }
      maximum = fmaxf(maximum, __shfl_xor_sync(kFullMask, maximum, 1));
      maximum = fmaxf(maximum, __shfl_xor_sync(kFullMask, maximum, 2));
      if (lane % 4 == 0) shared.maxima[side * kRows + first_row + 8 * half] = maximum;
    }
    SyncThreads<kConsumers>(kMaximaKnown);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + 8 * half;
      found[half] = fmaxf(shared.maxima[row], shared.maxima[kRows + row]);
    }
  }
  /// Scores of `split` become probabilities in shared memory.
  __device__ __forceinline__ void TakeScores(int split) {
    place.SetSplit(place.tile.first_split + split, o);
    Cap();
    Hide();
    float found[2];
    FindMaxima(found);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + 8 * half;
      const bool none = found[half] == MinusInfinity();
      const float scaled = __fmul_rn(found[half], factor);
      maxima[half] = none ? found[half] : scaled;
      const float base = none ? 0.0f : scaled;
#pragma unroll
      for (int part = 0; part < 2; ++part) {
        const int group = 2 * side + part;
        float sum = 0;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          const int at = 4 * (8 * part + j) + 2 * half;
          const float p0 = Exp2(fmaf(scores[at], factor, -base));
          const float p1 = Exp2(fmaf(scores[at + 1], factor, -base));
          sum = __fadd_rn(__fadd_rn(sum, p0), p1);
          *reinterpret_cast<uint32_t*>(shared.probabilities + group * kGroupBytes +
                                       SwizzledByte(row, j) + 4 * (lane % 4)) = PackBf16(p0, p1);
        }
        sum = __fadd_rn(sum, __shfl_xor_sync(kFullMask, sum, 1));
        sum = __fadd_rn(sum, __shfl_xor_sync(kFullMask, sum, 2));
        if (lane % 4 == 0) shared.sums[group * kRows + row] = sum;
      }
    }
    FenceForProducts();
    SyncThreads<kConsumers>(kProbabilitiesKnown);
  }

  /// Queues a split's outputs; the last chunk of values is left when they have been waited for.
  __device__ __forceinline__ void QueueOutputs(int split) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int chunk = kChunks * split + kGroups + 2 * half;
      WaitFor(chunk + side);
      const uint64_t b = WideRowsDescriptor<kBoxBytes>(SlotOf(chunk + side));
      BeginProducts();
#pragma unroll
      for (int step = 0; step < 8; ++step) {
        const uint8_t* rows = shared.probabilities + (2 * half + step / 4) * kGroupBytes;
        WgmmaTransposed(outputs, RowsDescriptor(SharedAddress(rows)) + kStepDescriptor * (step % 4),
                        b + step * (16 * 128 / 16), half + step > 0);
      }
      CommitProducts();
      // The other side's, there or not: what was in its slot before is a chunk that both sides left
      // before the probabilities were known.
      static_assert(Ring::kSlotCount >= kGroups);
      Leave(chunk + 1 - side);
      if (half == 0) continue;
      WaitForProducts<1>();
      Leave(chunk - 2 + side);
    }
  }
  __device__ __forceinline__ void TakeOutputs() {
    MergeFactors factors[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float* sums = shared.sums + first_row + 8 * half;
      const float sum =
          __fadd_rn(__fadd_rn(__fadd_rn(sums[0], sums[kRows]), sums[2 * kRows]), sums[3 * kRows]);
      factors[half] = Merge(parts[half], {maxima[half], sum});
    }
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      totals[i] = MergeOutput(totals[i], outputs[i], factors[i / 2 % 2]);
    }
  }

  __device__ __forceinline__ void Attend() {
    const int splits = place.tile.splits;
    Score<false>(0);
    TakeScores(0);
    for (int split = 1; split < splits; ++split) {
      QueueOutputs(split - 1);
      Score<true>(split);
      TakeScores(split);
    }
    QueueOutputs(splits - 1);
    WaitForProducts<0>();
    Pin(outputs);
    TakeOutputs();
  }
  __device__ __forceinline__ void Store() const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = first_row + 8 * half;
      if (row >= place.rows()) continue;
#pragma unroll
      for (int n = 0; n < 16; ++n) {
        const float* total = totals + 4 * n + 2 * half;
        StoreAttended(o, place, row, side * (kDim / 2) + 8 * n + 2 * (lane % 4), total[0], total[1],
                      parts[half].sum);
      }
    }
  }
};

template <bool kCaps>
__device__ __forceinline__ void Attend(const Shared& shared, const Bf16Attention& o,
                                       const AttentionPlace& place, int side) {
  LoadQueries<kDim, kConsumers>(shared.queries, o, place, 0);
  SyncThreads<kConsumers>(kQueriesLoaded);
  const int lane = static_cast<int>(threadIdx.x) % kWarpThreads;
  const int warp = static_cast<int>(threadIdx.x) % kWarpgroupThreads / kWarpThreads;
  Consumer<kCaps> consumer{shared, o, place, side, lane, 16 * warp + lane / 4, FactorOf(o)};
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    consumer.totals[i] = consumer.outputs[i] = consumer.scores[i] = 0;
  }
  consumer.parts[0] = consumer.parts[1] = NoKeys();
  consumer.Attend();
  consumer.Store();
}

/// Later tiles see more keys: they start first.
template <bool kCaps>
__global__ void __launch_bounds__(kWgmmaThreads, 1)
    AttendWideTilesSm90Kernel(Bf16Attention o, AttentionWorkView work, int parts) {
  ReleaseSuccessor();
  const Shared shared(SharedMemory<uint8_t>());
  shared.ring.Begin();
  WaitForPredecessor();
  const int tiles = LiveTiles(work);
  const int unit = static_cast<int>(blockIdx.x) / o.kv.kv_heads;
  if (unit >= tiles * parts) return;
  const int group = o.query_heads / o.kv.kv_heads;
  const AttentionTile whole = work.more_tiles[tiles - 1 - unit / parts];
  const AttentionPlace place(PartOfTile(whole, parts - 1 - unit % parts, kRows / group, o.window),
                             static_cast<int>(blockIdx.x) % o.kv.kv_heads, o);
  if (place.tile.queries <= 0) return;
  ShareRoles([&] { Copy(shared, o, place); },
             [&](int side) { Attend<kCaps>(shared, o, place, side); });
}

}  // namespace

cudaError_t AttendWideTilesSm90(const Bf16Attention& o, const AttentionWorkView& work,
                                cudaStream_t stream) {
  if (work.more_tiles_count == 0) return cudaSuccess;
  const int group = o.query_heads / o.kv.kv_heads;
  const int queries_max = kRows / group;
  const int parts = (kMoreTileRows / group + queries_max - 1) / queries_max;
  const LaunchShape shape{
      "Attention, more rows, wide, sm_90",
      dim3(static_cast<unsigned>(work.more_tiles_count * parts * o.kv.kv_heads)),
      dim3(kWgmmaThreads), kBytes, stream};
  return o.softcap > 0 ? Launch(shape, AttendWideTilesSm90Kernel<true>, o, work, parts)
                       : Launch(shape, AttendWideTilesSm90Kernel<false>, o, work, parts);
}

}  // namespace neurogrid::kernels
