#include <math.h>

#include "kernels/launch.h"
#include "kernels/sampler.h"
#include "kernels/simt.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 1024;
constexpr float kGreedyTemperature = 1e-5f;
constexpr int kBins = 256;
constexpr double kMassUnit = 1099511627776.0;  // 2^40: of e^0

__device__ __forceinline__ float NegativeInfinity() { return __uint_as_float(0xff800000u); }

/// Descending order of keys is (x descending, id ascending). -0 counts as +0. No NaN.
__device__ __forceinline__ uint64_t KeyOf(float x, int id) {
  const uint32_t bits = __float_as_uint(x + 0.0f);
  const uint32_t order = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return static_cast<uint64_t>(order) << 32 | static_cast<uint32_t>(~id);
}
__device__ __forceinline__ float ValueOf(uint64_t key) {
  const auto order = static_cast<uint32_t>(key >> 32);
  return __uint_as_float((order & 0x80000000u) != 0 ? order & 0x7fffffffu : ~order);
}
__device__ __forceinline__ int IdOf(uint64_t key) {
  return static_cast<int>(~static_cast<uint32_t>(key));
}

struct Words {
  uint32_t at[4];
};
/// Philox4x32-10 (Salmon et al. 2011, Parallel Random Numbers: As Easy as 1, 2, 3).
__device__ __forceinline__ Words Philox(uint64_t key, uint32_t c0, uint32_t c1) {
  uint32_t c[4] = {c0, c1, 0, 0};
  auto k0 = static_cast<uint32_t>(key);
  auto k1 = static_cast<uint32_t>(key >> 32);
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

struct SamplerShared {
  BlockScratch<uint64_t> keys;
  BlockScratch<double> sums;
  BlockScratch<int> flags;
  unsigned long long bins[kBins];
  uint64_t prefix;  // of the threshold, found from the top
  unsigned long long need;
  double best_scores[kThreads / kWarpThreads];
  int best_ids[kThreads / kWarpThreads];
  float raw_of_token;
};

/// What every part of the kernel needs to know.
struct Row {
  float* logits;
  int vocab_size;
  SamplerRow p;
  const LogitEdit* edits;
  float* raw;
  SamplerShared* shared;
  int thread;

  /// Each thread's ids, ascending.
  template <typename Each>
  __device__ __forceinline__ void ForIds(Each each) const {
    for (int id = thread; id < vocab_size; id += kThreads) each(id);
  }
};

struct Peak {
  uint64_t key;  // of the largest value
  bool failed;   // a NaN, +inf, or nothing above -inf
};

__device__ Peak PeakOf(const Row& row) {
  uint64_t key = 0;
  int bad = 0;
  row.ForIds([&](int id) {
    const float x = row.logits[id];
    if (!(x < __uint_as_float(0x7f800000u))) bad = 1;  // NaN too
    const uint64_t own = KeyOf(x, id);
    key = own > key ? own : key;
  });
  bad = BlockMax<kThreads>(bad, row.shared->flags);
  key = BlockMax<kThreads>(key, row.shared->keys);
  return {key, bad != 0 || ValueOf(key) == NegativeInfinity()};
}

/// log of the sum of exponentials of the raw logits.
__device__ double LogTotal(const Row& row, float maximum) {
  double sum = 0;
  row.ForIds([&](int id) { sum += static_cast<double>(expf(row.logits[id] - maximum)); });
  return static_cast<double>(maximum) + log(BlockSum<kThreads>(sum, row.shared->sums));
}

/// The largest raw logits, one after the other.
__device__ void WriteTop(const Row& row, double log_total, SamplerResult& result) {
  const int wanted = row.p.top_logprobs < row.vocab_size ? row.p.top_logprobs : row.vocab_size;
  uint64_t below = ~static_cast<uint64_t>(0);
  for (int i = 0; i < wanted; ++i) {
    uint64_t key = 0;
    row.ForIds([&](int id) {
      const uint64_t own = KeyOf(row.logits[id], id);
      if (own < below && own > key) key = own;
    });
    below = BlockMax<kThreads>(key, row.shared->keys);
    if (row.thread == 0) {
      result.top_ids[i] = IdOf(below);
      result.top_logprobs[i] = static_cast<float>(static_cast<double>(ValueOf(below)) - log_total);
    }
  }
  if (row.thread == 0) result.top_count = wanted > 0 ? wanted : 0;
}

__device__ __forceinline__ float Edited(const SamplerRow& p, const LogitEdit& edit, float x) {
  switch (edit.kind) {
    case LogitEdit::kBan:
      return NegativeInfinity();
    case LogitEdit::kCount:
      if (edit.in_window != 0) x = x > 0 ? x / p.repetition_penalty : x * p.repetition_penalty;
      if (edit.generated > 0) {
        x -=
            __fmul_rn(p.frequency_penalty, static_cast<float>(edit.generated)) + p.presence_penalty;
      }
      return x;
    case LogitEdit::kBias:
      return x + edit.bias;
  }
  return x;
}

__device__ void ApplyEdits(const Row& row) {
  for (int e = row.thread; e < row.p.edits; e += kThreads) row.raw[e] = row.logits[row.edits[e].id];
  __syncthreads();
  for (const LogitEdit::Kind kind : {LogitEdit::kBan, LogitEdit::kCount, LogitEdit::kBias}) {
    for (int e = row.thread; e < row.p.edits; e += kThreads) {
      const LogitEdit edit = row.edits[e];
      if (edit.kind == kind) row.logits[edit.id] = Edited(row.p, edit, row.logits[edit.id]);
    }
    __syncthreads();
  }
}

/// Step 4: what may be drawn is x >= floor with a key of at least `threshold`.
struct Filter {
  float maximum;
  float temperature;
  float floor;
  uint64_t threshold;

  __device__ __forceinline__ float Scaled(float logit) const {
    return (logit - maximum) / temperature;
  }
  __device__ __forceinline__ bool Keeps(float x, int id) const {
    return x >= floor && x > NegativeInfinity() && KeyOf(x, id) >= threshold;
  }
};

__device__ __forceinline__ unsigned long long MassOf(float x) {
  return static_cast<unsigned long long>(static_cast<double>(expf(x)) * kMassUnit);
}

/// Sum of `weight(x)` over what the filter keeps. Integers: no order.
template <typename Weight>
__device__ unsigned long long TotalOf(const Row& row, const Filter& filter, Weight weight) {
  unsigned long long total = 0;
  row.ForIds([&](int id) {
    const float x = filter.Scaled(row.logits[id]);
    if (filter.Keeps(x, id)) total += weight(x);
  });
  return BlockSum<kThreads>(static_cast<uint64_t>(total), row.shared->keys);
}

/// Thread 0: the bin, from the top, in which the sum reaches what is needed.
__device__ void ChooseBin(SamplerShared& shared, int shift) {
  int bin = kBins - 1;
  while (bin > 0 && shared.bins[bin] < shared.need) shared.need -= shared.bins[bin--];
  shared.prefix |= static_cast<uint64_t>(bin) << shift;
}

/// The key at which the sum of weights, from the largest key down, first reaches `need` >= 1.
template <typename Weight>
__device__ uint64_t ThresholdOf(const Row& row, const Filter& filter, unsigned long long need,
                                Weight weight) {
  SamplerShared& shared = *row.shared;
  if (row.thread == 0) {
    shared.prefix = 0;
    shared.need = need;
  }
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int bin = row.thread; bin < kBins; bin += kThreads) shared.bins[bin] = 0;
    __syncthreads();
    const uint64_t prefix = shared.prefix;
    row.ForIds([&](int id) {
      const float x = filter.Scaled(row.logits[id]);
      if (!filter.Keeps(x, id)) return;
      const uint64_t key = KeyOf(x, id);
      if (shift < 56 && (key ^ prefix) >> (shift + 8) != 0) return;
      atomicAdd(&shared.bins[key >> shift & (kBins - 1)],
                static_cast<unsigned long long>(weight(x)));
    });
    __syncthreads();
    if (row.thread == 0) ChooseBin(shared, shift);
    __syncthreads();
  }
  const uint64_t threshold = shared.prefix;
  __syncthreads();
  return threshold;
}

__device__ Filter FilterOf(const Row& row, float maximum) {
  Filter filter{maximum, row.p.temperature,
                row.p.min_p > 0 ? logf(row.p.min_p) : NegativeInfinity(), 0};
  if (row.p.top_k > 0 && row.p.top_k < row.vocab_size) {
    const auto one = [](float) { return 1ull; };
    const auto k = static_cast<unsigned long long>(row.p.top_k);
    if (TotalOf(row, filter, one) > k) filter.threshold = ThresholdOf(row, filter, k, one);
  }
  if (row.p.top_p < 1) {
    const auto mass = [](float x) { return MassOf(x); };
    const unsigned long long total = TotalOf(row, filter, mass);
    const double wanted = ceil(static_cast<double>(row.p.top_p) * static_cast<double>(total));
    const auto need = static_cast<unsigned long long>(wanted);
    filter.threshold = ThresholdOf(row, filter, need > 0 ? need : 1, mass);
  }
  return filter;
}

/// The best of x + Gumbel noise among ids offered in any order.
struct Draw {
  double best;
  int token;

  /// -log(u) >= 1 - u, so noise beats a lead d only if 1 - u <= exp(-d) <= 2^-floor(1.44 d): a test
  /// of leading bits that spares two logarithms. One bit is kept as margin.
  __device__ __forceinline__ bool CannotWin(float x, uint32_t bits) const {
    const double lead = best - static_cast<double>(x);
    if (!(lead > 1.4)) return false;
    if (lead > 22.9) return true;  // noise lies below: u is at least 2^-33 away from 1
    const int leading_ones = static_cast<int>(lead * 1.44) - 1;
    return leading_ones > 0 && __clz(static_cast<int>(~bits)) < leading_ones;
  }
  __device__ __forceinline__ void Offer(float x, int id, uint32_t bits) {
    if (CannotWin(x, bits)) return;
    const double u = (static_cast<double>(bits) + 0.5) * 0x1p-32;
    Take(static_cast<double>(x) - log(-log(u)), id);
  }
  __device__ __forceinline__ void Take(double score, int id) {
    if (id >= 0 && (token < 0 || score > best || (score == best && id < token))) {
      best = score;
      token = id;
    }
  }
};

__device__ int DrawFrom(const Row& row, const Filter& filter) {
  Draw draw{-1e300, -1};
  const int blocks = (row.vocab_size + 3) / 4;
  for (int block = row.thread; block < blocks; block += kThreads) {
    bool drawn = false;
    Words words{};
    for (int i = 0; i < 4 && 4 * block + i < row.vocab_size; ++i) {
      const int id = 4 * block + i;
      const float x = filter.Scaled(row.logits[id]);
      if (!filter.Keeps(x, id)) continue;
      if (!drawn) {
        words =
            Philox(row.p.seed, static_cast<uint32_t>(row.p.position), static_cast<uint32_t>(block));
        drawn = true;
      }
      draw.Offer(x, id, words.at[i]);
    }
  }
#pragma unroll
  for (int bits = kWarpThreads / 2; bits > 0; bits /= 2) {
    const double score = __shfl_xor_sync(kFullMask, draw.best, bits);
    const int id = __shfl_xor_sync(kFullMask, draw.token, bits);
    draw.Take(score, id);
  }
  SamplerShared& shared = *row.shared;
  if (row.thread % kWarpThreads == 0) {
    shared.best_scores[row.thread / kWarpThreads] = draw.best;
    shared.best_ids[row.thread / kWarpThreads] = draw.token;
  }
  __syncthreads();
  for (int warp = 0; warp < kThreads / kWarpThreads; ++warp) {
    draw.Take(shared.best_scores[warp], shared.best_ids[warp]);
  }
  return draw.token;
}

/// Stores token and logprob; the logit before any edit counts.
__device__ void Finish(const Row& row, int token, bool report, double log_total,
                       SamplerResult& result) {
  if (row.thread == 0) {
    row.shared->raw_of_token = row.logits[token];
    result.token = token;
  }
  __syncthreads();
  // Several edits of one id all kept the same value.
  for (int e = row.thread; e < row.p.edits && row.p.target < 0; e += kThreads) {
    if (row.edits[e].id == token) row.shared->raw_of_token = row.raw[e];
  }
  __syncthreads();
  if (row.thread == 0 && report) {
    result.logprob = static_cast<float>(static_cast<double>(row.shared->raw_of_token) - log_total);
  }
}

__global__ void __launch_bounds__(kThreads) SampleKernel(SamplerOperands o) {
  WaitForPredecessor();
  ReleaseSuccessor();
  const SamplerRow p = o.rows[blockIdx.x];
  const Row row{
      o.logits + blockIdx.x * o.stride, o.vocab_size,         p,
      o.edits + p.first_edit,           o.raw + p.first_edit, &SharedObject<SamplerShared>(),
      static_cast<int>(threadIdx.x)};
  SamplerResult& result = o.results[blockIdx.x];
  if (row.thread == 0) {
    result.token = 0;
    result.logprob = 0;
    result.failed = 0;
    result.top_count = 0;
  }
  Peak peak = PeakOf(row);
  const bool report = p.top_logprobs >= 0 || p.target >= 0;
  double log_total = 0;
  if (!peak.failed && report) {
    log_total = LogTotal(row, ValueOf(peak.key));
    WriteTop(row, log_total, result);
  }
  if (!peak.failed && p.target >= 0) return Finish(row, p.target, report, log_total, result);
  if (!peak.failed && p.edits > 0) {
    ApplyEdits(row);
    peak = PeakOf(row);
  }
  if (peak.failed) {
    if (row.thread == 0) result.failed = 1;
    return;
  }
  int token = IdOf(peak.key);
  if (p.temperature >= kGreedyTemperature) token = DrawFrom(row, FilterOf(row, ValueOf(peak.key)));
  Finish(row, token, report, log_total, result);
}

}  // namespace

cudaError_t Sample(const SamplerOperands& operands, int rows, cudaStream_t stream) {
  return Launch({"Sample", dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, stream},
                SampleKernel, operands);
}

}  // namespace neurogrid::kernels
