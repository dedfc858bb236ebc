// More rows with wgmma: sm_90a alone, equal bits with attention_tiles.cu.
//
// A block is a tile of up to 128 rows and a kv head. One warpgroup copies keys and values of split
// after split to a ring of slots, two attend 64 rows each: all scores of a split in registers, as
// probabilities the operand of the products with the values. Scores, sums and products go in the
// order of attention.cuh, whose fragments have the same places.
#include "kernels/attention_sm90.cuh"
#include "kernels/attention_ways.h"
#include "kernels/launch.h"

namespace neurogrid::kernels {
namespace {

constexpr int kHalfBytes = kSplitTokens * 128;  // a split's keys or values of 64 columns
constexpr int kStepBytes = 16 * 128;            // of 16 positions
constexpr int kSteps = kSplitTokens / 16;
static_assert(kMoreTileRows == 2 * kWgmmaRows);

constexpr int kLoadBarriers = 1;  // of each of the two that attend: its queries are there

template <int kDim>
struct Shared {
  static constexpr int kHalves = kDim / 64;
  static constexpr int kQueriesBytes = 2 * kHalves * kQueryBytes;
  using Ring = ChunkRing<kDim == 64 ? 4 : 3, kHalves * kHalfBytes>;
  static constexpr size_t kBytes =
      kSwizzleBytes + kQueriesBytes + Ring::kSlotsBytes + Ring::kBarriersBytes;

  uint8_t* queries;  // [warpgroup][half][row]
  Ring ring;         // of slots [half][position]

  __device__ explicit Shared(uint8_t* shared) {
    queries = SwizzleAligned(shared);
    ring.slots = queries + kQueriesBytes;
    ring.barriers = SharedAddress(ring.slots + Ring::kSlotsBytes);
  }
};

/// Keys or values of a split; zeros where no row sees them, unless all do.
template <int kDim, bool kAllSeen>
__device__ __forceinline__ void CopySplit(uint8_t* slot, const Bf16Attention& o,
                                          const AttentionPlace& place, bool values) {
  const int thread = static_cast<int>(threadIdx.x);
  const int piece = thread % 8;
  const int first_token = thread / 8;  // of 16
  const bf16* tile = values ? o.kv.values(0, place.kv_head) : o.kv.keys(0, place.kv_head);
  const bf16* from = tile + first_token * kDim + piece * 8;
  uint8_t* to = slot + SwizzledByte(first_token, piece);
  const int first = place.first - first_token;
  const int last = place.last - first_token;
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
    const bool live = kAllSeen || (16 * step >= first && 16 * step < last);
    const int64_t at = place.PageOf(16 * step) * o.kv.page_stride;
#pragma unroll
    for (int half = 0; half < kDim / 64; ++half) {
      CopyAsync16(to + half * kHalfBytes + step * kStepBytes, from + at + half * 64, live);
    }
  }
}

/// Chunk 2 n is the keys of the tile's split n, chunk 2 n + 1 its values.
template <int kDim>
__device__ __forceinline__ void Copy(const Shared<kDim>& shared, const Bf16Attention& o,
                                     AttentionPlace place) {
  shared.ring.Produce(2 * place.tile.splits, [&](int chunk) {
    place.SetSplit(place.tile.first_split + chunk / 2, o);
    uint8_t* slot = shared.ring.Slot(chunk);
    if (place.first == 0 && place.last == kSplitTokens) {
      CopySplit<kDim, true>(slot, o, place, chunk % 2 == 1);
    } else {
      CopySplit<kDim, false>(slot, o, place, chunk % 2 == 1);
    }
  });
}

/// Element i of the scores of a row: of eight positions j elements 4 j .. 4 j + 3, as fragments
/// are.
using Scores = float[2][64];
__device__ __forceinline__ float& At(Scores& scores, int i) { return scores[i / 64][i % 64]; }

/// Queues the scores of half of a split's positions.
template <int kDim>
__device__ __forceinline__ void QueueScores(uint32_t queries, uint32_t keys, int part,
                                            float (&scores)[64]) {
#pragma unroll
  for (int half = 0; half < kDim / 64; ++half) {
    const uint64_t a = RowsDescriptor(queries + half * kQueryBytes);
    const uint64_t b = RowsDescriptor(keys + half * kHalfBytes) + part * (kHalfBytes / 2 / 16);
#pragma unroll
    for (int step = 0; step < 4; ++step) {
      Wgmma<128>::Run(scores, a + kStepDescriptor * step, b + kStepDescriptor * step,
                      half + step > 0);
    }
  }
  CommitProducts();
}

/// Probabilities as the A operand of the step of 16 positions `step`.
using Probabilities = uint32_t[16][4];

/// One of the two rows of a thread, `row` 0 or 1: scores become probabilities.
__device__ __forceinline__ SoftmaxPart Exponentiate(Scores& scores, int row, float factor,
                                                    Probabilities& probabilities) {
  float maximum = MinusInfinity();
#pragma unroll
  for (int j = 0; j < 32; ++j) {
    maximum = fmaxf(maximum, fmaxf(At(scores, 4 * j + 2 * row), At(scores, 4 * j + 2 * row + 1)));
  }
  maximum = fmaxf(maximum, __shfl_xor_sync(kFullMask, maximum, 1));
  maximum = fmaxf(maximum, __shfl_xor_sync(kFullMask, maximum, 2));
  const float scaled = __fmul_rn(maximum, factor);
  const bool none = maximum == MinusInfinity();
  const float base = none ? 0.0f : scaled;
  float total = 0;
#pragma unroll
  for (int part = 0; part < 4; ++part) {
    float sum = 0;
#pragma unroll
    for (int j = 8 * part; j < 8 * part + 8; ++j) {
      const float p0 = Exp2(fmaf(At(scores, 4 * j + 2 * row), factor, -base));
      const float p1 = Exp2(fmaf(At(scores, 4 * j + 2 * row + 1), factor, -base));
      sum = __fadd_rn(__fadd_rn(sum, p0), p1);
      probabilities[j / 2][j % 2 * 2 + row] = PackBf16(p0, p1);
    }
    sum = __fadd_rn(sum, __shfl_xor_sync(kFullMask, sum, 1));
    sum = __fadd_rn(sum, __shfl_xor_sync(kFullMask, sum, 2));
    total = part == 0 ? sum : __fadd_rn(total, sum);
  }
  return {none ? maximum : scaled, total};
}

/// Hides what a thread's two rows do not see, where some row of the warpgroup does not see all.
__device__ __forceinline__ void Hide(const Bf16Attention& o, const AttentionPlace& place,
                                     int first_row, int lane, Scores& scores) {
  const int warp = static_cast<int>(threadIdx.x) % kWarpgroupThreads / kWarpThreads;
  const int from_start = place.tile.first_position - place.start;
  const int earliest = from_start + place.QueryInTile(first_row);
  const int latest = from_start + place.tile.queries - 1;
  const bool all_seen =
      earliest >= kSplitTokens - 1 && (o.window <= 0 || latest - o.window + 1 <= 0);
  if (all_seen) return;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = first_row + 16 * warp + lane / 4 + 8 * half;
    const int position = from_start + place.QueryInTile(row);
    const int column = 2 * (lane % 4);
    const int last = (position < place.last ? position : place.last - 1) - column;
    const int first = (o.window > 0 ? position - o.window + 1 : 0) - column;
#pragma unroll
    for (int j = 0; j < 32; ++j) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float& score = At(scores, 4 * j + 2 * half + i);
        score = 8 * j + i >= first && 8 * j + i <= last ? score : MinusInfinity();
      }
    }
  }
}

/// Queues a split's outputs.
template <int kHalves>
__device__ __forceinline__ void QueueOutputs(uint32_t values, const Probabilities& probabilities,
                                             float (&outputs)[kHalves][32]) {
  const uint64_t b = RowsDescriptor(values);
#pragma unroll
  for (int step = 0; step < kSteps; ++step) {
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
      WgmmaTransposed(outputs[half], probabilities[step],
                      b + (half * kHalfBytes + step * kStepBytes) / 16, step > 0);
    }
  }
  CommitProducts();
}

/// One of the two warpgroups that attend. Outputs of a split and scores of the next go together, so
/// that the tensor cores have work from one warpgroup while the other makes probabilities.
template <int kDim>
struct Consumer {
  static constexpr int kHalves = Shared<kDim>::kHalves;
  static constexpr bool kScoresEarly = kDim == 64;  // registers for half of the next scores

  const Shared<kDim>& shared;
  const Bf16Attention& o;
  AttentionPlace place;
  int lane;
  int first_row;
  float factor;
  uint32_t queries;

  Scores scores;
  Probabilities probabilities;
  float outputs[kHalves][32];
  float totals[kHalves][32];
  SoftmaxPart news[2];  // of the split whose probabilities these are
  SoftmaxPart parts[2];

  __device__ __forceinline__ uint32_t SlotOf(int chunk) const {
    return SharedAddress(shared.ring.Slot(chunk));
  }
  __device__ __forceinline__ void WaitFor(int chunk) const { shared.ring.WaitFor(chunk); }
  __device__ __forceinline__ void Leave(int chunk) const { shared.ring.Leave(chunk, lane); }

  /// Scores of `split` have been queued: probabilities, and what they add up to.
  __device__ __forceinline__ void TakeScores(int split) {
    WaitForProducts<0>();
    Pin(scores[0]);
    Pin(scores[1]);
    Leave(2 * split);
    place.SetSplit(place.tile.first_split + split, o);
    Hide(o, place, first_row, lane, scores);
    news[0] = Exponentiate(scores, 0, factor, probabilities);
    news[1] = Exponentiate(scores, 1, factor, probabilities);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) Pin(probabilities[step]);
  }
  __device__ __forceinline__ void TakeOutputs() {
    const MergeFactors factors[2] = {Merge(parts[0], news[0]), Merge(parts[1], news[1])};
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
#pragma unroll
      for (int i = 0; i < 32; ++i) {
        totals[half][i] = MergeOutput(totals[half][i], outputs[half][i], factors[i / 2 % 2]);
      }
    }
  }
  __device__ __forceinline__ void PinOutputs() {
#pragma unroll
    for (int half = 0; half < kHalves; ++half) Pin(outputs[half]);
  }

  __device__ __forceinline__ void Attend() {
    const int splits = place.tile.splits;
    WaitFor(0);
    BeginProducts();
    QueueScores<kDim>(queries, SlotOf(0), 0, scores[0]);
    QueueScores<kDim>(queries, SlotOf(0), 1, scores[1]);
    TakeScores(0);
    for (int split = 1; split < splits; ++split) {
      const uint32_t keys = SlotOf(2 * split);
      WaitFor(2 * split);  // the values before them are there then: chunks come in order
      BeginProducts();
      QueueOutputs<kHalves>(SlotOf(2 * split - 1), probabilities, outputs);
      if constexpr (kScoresEarly) {
        QueueScores<kDim>(queries, keys, 0, scores[0]);
        WaitForProducts<1>();
      } else {
        WaitForProducts<0>();
      }
      PinOutputs();
      BeginProducts();
      if constexpr (!kScoresEarly) QueueScores<kDim>(queries, keys, 0, scores[0]);
      QueueScores<kDim>(queries, keys, 1, scores[1]);
      Leave(2 * split - 1);
      TakeOutputs();
      TakeScores(split);
    }
    WaitFor(2 * splits - 1);
    BeginProducts();
    QueueOutputs<kHalves>(SlotOf(2 * splits - 1), probabilities, outputs);
    WaitForProducts<0>();
    PinOutputs();
    TakeOutputs();
  }

  __device__ __forceinline__ void Store() const {
    const int warp = static_cast<int>(threadIdx.x) % kWarpgroupThreads / kWarpThreads;
#pragma unroll
    for (int row_half = 0; row_half < 2; ++row_half) {
      const int row = first_row + 16 * warp + lane / 4 + 8 * row_half;
      if (row >= place.rows()) continue;
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
#pragma unroll
        for (int n = 0; n < 8; ++n) {
          const float* total = totals[half] + 4 * n + 2 * row_half;
          StoreAttended(o, place, row, 64 * half + 8 * n + 2 * (lane % 4), total[0], total[1],
                        parts[row_half].sum);
        }
      }
    }
  }
};

template <int kDim>
__device__ __forceinline__ void Attend(const Shared<kDim>& shared, const Bf16Attention& o,
                                       const AttentionPlace& place, int group) {
  const int first_row = group * kWgmmaRows;
  uint8_t* queries = shared.queries + group * Shared<kDim>::kHalves * kQueryBytes;
  LoadQueries<kDim, kWarpgroupThreads>(queries, o, place, first_row);
  SyncThreads<kWarpgroupThreads>(kLoadBarriers + group);
  Consumer<kDim> consumer{shared,
                          o,
                          place,
                          static_cast<int>(threadIdx.x) % kWarpThreads,
                          first_row,
                          FactorOf(o),
                          SharedAddress(queries)};
#pragma unroll
  for (int half = 0; half < Shared<kDim>::kHalves; ++half) {
#pragma unroll
    for (int i = 0; i < 32; ++i) consumer.totals[half][i] = 0;
  }
  consumer.parts[0] = consumer.parts[1] = NoKeys();
  consumer.Attend();
  consumer.Store();
}

/// Later tiles see more keys: they start first.
template <int kDim>
__global__ void __launch_bounds__(kWgmmaThreads, 1)
    AttendTilesSm90Kernel(Bf16Attention o, AttentionWorkView work) {
  ReleaseSuccessor();
  const Shared<kDim> shared(SharedMemory<uint8_t>());
  shared.ring.Begin();
  WaitForPredecessor();
  const int tiles = LiveTiles(work);
  const int unit = static_cast<int>(blockIdx.x) / o.kv.kv_heads;
  if (unit >= tiles) return;
  const AttentionPlace place(work.more_tiles[tiles - 1 - unit],
                             static_cast<int>(blockIdx.x) % o.kv.kv_heads, o);
  ShareRoles([&] { Copy<kDim>(shared, o, place); },
             [&](int group) { Attend<kDim>(shared, o, place, group); });
}

template <int kDim>
cudaError_t LaunchTiles(const Bf16Attention& o, const AttentionWorkView& work,
                        cudaStream_t stream) {
  return Launch(
      {"Attention, more rows, sm_90",
       dim3(static_cast<unsigned>(work.more_tiles_count) * static_cast<unsigned>(o.kv.kv_heads)),
       dim3(kWgmmaThreads), Shared<kDim>::kBytes, stream},
      AttendTilesSm90Kernel<kDim>, o, work);
}

}  // namespace

cudaError_t AttendTilesSm90(const Bf16Attention& o, const AttentionWorkView& work,
                            cudaStream_t stream) {
  if (work.more_tiles_count == 0) return cudaSuccess;
  switch (o.kv.head_dim) {
    case 64:
      return LaunchTiles<64>(o, work, stream);
    case 128:
      return LaunchTiles<128>(o, work, stream);
    case 256:
      return AttendWideTilesSm90(o, work, stream);
    default:
      return cudaErrorInvalidValue;
  }
}

}  // namespace neurogrid::kernels
