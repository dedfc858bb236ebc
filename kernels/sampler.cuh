// What the kernels of the sampler share: the order of ids, scaled logits, draws, and the scratch
// that one hands to the next.
#pragma once

#include <math.h>

#include "kernels/sampler.h"
#include "kernels/simt.cuh"

namespace neurogrid::kernels {

inline constexpr int kSliceThreads = 128;
inline constexpr int kGroupsPerThread = 2;  // of four ids
inline constexpr int kSliceIds = kSliceThreads * kGroupsPerThread * 4;
inline constexpr int kBins = 2048;
inline constexpr int kListMax = 4096;

__device__ __forceinline__ float NegativeInfinity() { return __uint_as_float(0xff800000u); }

inline constexpr uint64_t kAboveAll = ~static_cast<uint64_t>(0);

/// Descending order of keys is (x descending, id ascending). -0 counts as +0. A NaN is the largest.
__device__ __forceinline__ uint64_t KeyOf(float x, int id) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  const uint32_t order = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  const uint64_t key = static_cast<uint64_t>(order) << 32 | static_cast<uint32_t>(~id);
  return x == x ? key : kAboveAll - 1;
}
__device__ __forceinline__ float ValueOf(uint64_t key) {
  const auto order = static_cast<uint32_t>(key >> 32);
  return __uint_as_float((order & 0x80000000u) != 0 ? order & 0x7fffffffu : ~order);
}
__device__ __forceinline__ int IdOf(uint64_t key) {
  return static_cast<int>(~static_cast<uint32_t>(key));
}
/// Whether nothing can be drawn from a row with this largest key: a NaN, +inf, nothing above -inf.
__device__ __forceinline__ bool Fails(uint64_t key) {
  const uint64_t infinity = KeyOf(__uint_as_float(0x7f800000u), -1);
  return key >= infinity || !(ValueOf(key) > NegativeInfinity());
}

/// x = (logit - max) / temperature, and whether min_p lets it live.
struct Scale {
  float maximum;
  float temperature;
  float floor;

  __device__ __forceinline__ Scale(const SamplerRow& p, uint64_t peak)
      : maximum(ValueOf(peak)),
        temperature(p.temperature),
        floor(p.min_p > 0 ? logf(p.min_p) : NegativeInfinity()) {}
  __device__ __forceinline__ float operator()(float logit) const {
    return (logit - maximum) / temperature;
  }
  __device__ __forceinline__ bool Keeps(float x) const {
    return x >= floor && x > NegativeInfinity();
  }
};

/// e^x in units of 2^-40.
__device__ __forceinline__ uint64_t MassOf(float x) {
  return static_cast<uint64_t>(expf(x) * 0x1p40f);
}

/// At least one unit, at least `share` of `total`.
__device__ __forceinline__ uint64_t ShareOf(float share, uint64_t total) {
  const auto units =
      static_cast<uint64_t>(ceil(static_cast<double>(share) * static_cast<double>(total)));
  return units > 0 ? units : 1;
}

/// The bin of x <= 0, ascending as x descends: 128 for each doubling of -x from 2^-8 to 2^8.
__device__ __forceinline__ int BinOf(float x) {
  constexpr int kBinsPerDoubling = 128;
  constexpr int kFirst = (127 - 8) * kBinsPerDoubling;
  const int place = static_cast<int>(__float_as_uint(-x) << 1 >> 17) - kFirst + 1;
  return place < 0 ? 0 : place < kBins ? place : kBins - 1;
}

struct Words {
  uint32_t at[4];
};
/// Philox4x32-10 (Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3).
__device__ __forceinline__ Words Philox(uint64_t key, uint32_t c0, uint32_t c1) {
  uint32_t c[4] = {c0, c1, 0, 0};
  auto k0 = static_cast<uint32_t>(key);
  auto k1 = static_cast<uint32_t>(key >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    const uint32_t high0 = __umulhi(0xD2511F53u, c[0]);
    const uint32_t low0 = 0xD2511F53u * c[0];
    const uint32_t high1 = __umulhi(0xCD9E8D57u, c[2]);
    const uint32_t low1 = 0xCD9E8D57u * c[2];
    c[0] = high1 ^ c[1] ^ k0;
    c[1] = low1;
    c[2] = high0 ^ c[3] ^ k1;
    c[3] = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c[0], c[1], c[2], c[3]}};
}
/// The bits of ids 4 group .. 4 group + 3 in the row's draw.
__device__ __forceinline__ Words BitsOf(const SamplerRow& p, int group) {
  return Philox(p.seed, static_cast<uint32_t>(p.position), static_cast<uint32_t>(group));
}

/// x + Gumbel noise: what the draw compares. Few calls, so its two logarithms are code once.
static __device__ __noinline__ double ScoreOf(float x, uint32_t bits) {
  const double u = (static_cast<double>(bits) + 0.5) * 0x1p-32;
  return static_cast<double>(x) - log(-log(u));
}
/// At least the score, in f32: with r = 1 - u, r <= -log(u). Cheap.
__device__ __forceinline__ float HighScore(float x, uint32_t bits) {
  constexpr float kLogOf2To32 = 22.18070977791825f;
  return x + (kLogOf2To32 - __logf(static_cast<float>(~bits) + 0.5f));
}
/// At most the score: -log(u) <= r / (1 - r), and log(1 - r) >= -2 r up to r = 1/2.
__device__ __forceinline__ float LowScore(float x, uint32_t bits) {
  const float r = (static_cast<float>(~bits) + 0.5f) * 0x1p-32f;
  return r <= 0.5f ? HighScore(x, bits) - 2 * r : NegativeInfinity();
}
/// A high score below it loses against the low score `best`: together they are off by less than
/// 5e-5 and 2^-21 of what they are.
__device__ __forceinline__ float LeastToWin(float best) {
  return best - 1e-4f - 1e-6f * fabsf(best);
}

/// The best score among ids in any order.
struct Draw {
  double best = -1e300;
  int token = -1;

  __device__ __forceinline__ void Take(double score, int id) {
    if (id >= 0 && (token < 0 || score > best || (score == best && id < token))) {
      best = score;
      token = id;
    }
  }
};

/// Space to find the best draw of a block.
struct DrawScratch {
  double scores[32];
  int tokens[32];
};
/// The best draw of the block, in every thread.
template <int kThreads>
__device__ __forceinline__ Draw BlockBest(Draw draw, DrawScratch& scratch) {
#pragma unroll
  for (int bits = kWarpThreads / 2; bits > 0; bits /= 2) {
    const double score = __shfl_xor_sync(kFullMask, draw.best, bits);
    const int id = __shfl_xor_sync(kFullMask, draw.token, bits);
    draw.Take(score, id);
  }
  const int thread = static_cast<int>(threadIdx.x);
  if (thread % kWarpThreads == 0) {
    scratch.scores[thread / kWarpThreads] = draw.best;
    scratch.tokens[thread / kWarpThreads] = draw.token;
  }
  __syncthreads();
#pragma unroll
  for (int warp = 0; warp < kThreads / kWarpThreads; ++warp) {
    draw.Take(scratch.scores[warp], scratch.tokens[warp]);
  }
  return draw;
}

/// The best draw of the block among the ids that for_offers(offer) offers to each thread, in the
/// same order both times: offer(x, id, bits). Only what may win is computed in f64.
template <int kThreads, typename ForOffers>
__device__ __forceinline__ Draw BestOf(Draw draw, ForOffers for_offers, BlockScratch<float>& roughs,
                                       DrawScratch& draws) {
  float low = NegativeInfinity();
  for_offers([&](float x, int, uint32_t bits) { low = fmaxf(low, LowScore(x, bits)); });
  const float least = LeastToWin(BlockMax<kThreads>(low, roughs));
  for_offers([&](float x, int id, uint32_t bits) {
    if (HighScore(x, bits) >= least) draw.Take(ScoreOf(x, bits), id);
  });
  return BlockBest<kThreads>(draw, draws);
}

struct SumsBefore {
  uint64_t before;  // of the threads before this one
  uint64_t total;   // of the block
};
/// All threads of the block call it; the scratch is free behind their next barrier.
template <int kThreads>
__device__ __forceinline__ SumsBefore SumBefore(uint64_t value, BlockScratch<uint64_t>& scratch) {
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpThreads;
  uint64_t sum = value;
#pragma unroll
  for (int distance = 1; distance < kWarpThreads; distance *= 2) {
    const uint64_t other = __shfl_up_sync(kFullMask, sum, static_cast<unsigned>(distance));
    if (lane >= distance) sum += other;
  }
  if (lane == kWarpThreads - 1) scratch.warps[thread / kWarpThreads] = sum;
  __syncthreads();
  SumsBefore sums{sum - value, 0};
#pragma unroll
  for (int warp = 0; warp < kThreads / kWarpThreads; ++warp) {
    if (warp < thread / kWarpThreads) sums.before += scratch.warps[warp];
    sums.total += scratch.warps[warp];
  }
  return sums;
}

/// The first of a row's edits with an id of at least `id`.
__device__ __forceinline__ int FirstEditFrom(const LogitEdit* edits, int count, int id) {
  int first = 0;
  while (count > 0) {
    const int half = count / 2;
    if (edits[first + half].id < id) {
      first += half + 1;
      count -= half + 1;
    } else {
      count = half;
    }
  }
  return first;
}

/// How a row is cut: ids in bins below `edge` stay, ids in bins [edge, list_end) are listed, and of
/// these in descending order stay the first count_left, and of those the fewest that have mass_left
/// (0: all) or top_p of their mass. A row without limits has its edge behind all bins.
struct Cut {
  int32_t edge;
  int32_t list_end;
  int64_t takes_share;
  uint64_t count_left;
  uint64_t mass_left;
};

struct SlicePeak {
  uint64_t key;      // the largest, behind the edits
  uint64_t raw_key;  // the largest before them
  double raw_sum;    // of exponentials below the largest; rows with logprobs alone
};
struct SliceDraw {
  double score;
  int64_t token;  // -1: none
};

/// One row's scratch.
struct RowScratch {
  SlicePeak* peaks;    // [slices]
  SliceDraw* draws;    // [slices]
  uint64_t* top_keys;  // [slices, kTopLogprobsMax]  the largest before edits, descending; 0: none
  uint64_t* bins;      // [kBins]                    counts of rows with top_k, else masses
  uint64_t* list;      // [kListMax]
  Cut* cut;
  uint32_t* listed;  // how many belong in the list, be there room or not

  static __host__ __device__ int SlicesOf(int vocab_size) {
    return (vocab_size + kSliceIds - 1) / kSliceIds;
  }
  static __host__ __device__ int64_t Bytes(int vocab_size) {
    const int64_t slice = sizeof(SlicePeak) + sizeof(SliceDraw) + 8 * kTopLogprobsMax;
    return SlicesOf(vocab_size) * slice + 8 * (kBins + kListMax) + sizeof(Cut) + 8;
  }
  __device__ __forceinline__ RowScratch(void* scratch, int64_t row, int vocab_size) {
    uint8_t* at = static_cast<uint8_t*>(scratch) + row * Bytes(vocab_size);
    const int slices = SlicesOf(vocab_size);
    peaks = reinterpret_cast<SlicePeak*>(at);
    draws = reinterpret_cast<SliceDraw*>(peaks + slices);
    top_keys = reinterpret_cast<uint64_t*>(draws + slices);
    bins = top_keys + static_cast<int64_t>(slices) * kTopLogprobsMax;
    list = bins + kBins;
    cut = reinterpret_cast<Cut*>(list + kListMax);
    listed = reinterpret_cast<uint32_t*>(cut + 1);
  }
};

/// The largest key of the row behind its edits, in every thread.
template <int kThreads>
__device__ __forceinline__ uint64_t PeakOf(const RowScratch& scratch, int slices,
                                           BlockScratch<uint64_t>& keys) {
  uint64_t key = 0;
  for (int s = static_cast<int>(threadIdx.x); s < slices; s += kThreads) {
    const uint64_t own = scratch.peaks[s].key;
    key = own > key ? own : key;
  }
  return BlockMax<kThreads>(key, keys);
}

cudaError_t FinishSamples(const SamplerOperands& operands, int rows, cudaStream_t stream);

}  // namespace neurogrid::kernels
