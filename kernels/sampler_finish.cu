// The last kernel of the sampler: one block merges the slices of a row and cuts its list.
#include "kernels/launch.h"
#include "kernels/sampler.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kThreads = 512;
constexpr int kDigits = 256;  // eight bits of a key

struct FinishShared {
  BlockScratch<uint64_t> keys;
  BlockScratch<double> sums;
  BlockScratch<float> roughs;
  DrawScratch draws;
  int kept;
  alignas(16) uint64_t list[kListMax];
  unsigned long long digits[kDigits];
  uint64_t prefix;  // of the threshold, found from the top
  unsigned long long need;
};

/// An entry of a short list, and what lies before it. They take the place of the sorted list.
struct alignas(16) Ranked {
  uint64_t key;
  uint64_t mass;
};
struct Before {
  unsigned long long mass;
  unsigned long long keys;
};
constexpr int kShortListMax = 256;
static_assert(kShortListMax * (sizeof(Ranked) + sizeof(Before)) <= kListMax * sizeof(uint64_t),
              "short lists lie where long ones do");

struct Row {
  SamplerRow p;
  const float* logits;
  int vocab_size;
  int slices;
  RowScratch scratch;
  FinishShared* shared;
  int thread;
};

/// The largest key before the edits.
__device__ uint64_t RawPeakOf(const Row& row) {
  uint64_t key = 0;
  for (int s = row.thread; s < row.slices; s += kThreads) {
    const uint64_t own = row.scratch.peaks[s].raw_key;
    key = own > key ? own : key;
  }
  return BlockMax<kThreads>(key, row.shared->keys);
}

/// log of the sum of exponentials of the raw logits.
__device__ double LogTotal(const Row& row, uint64_t raw_peak) {
  const auto maximum = static_cast<double>(ValueOf(raw_peak));
  double sum = 0;
  for (int s = row.thread; s < row.slices; s += kThreads) {
    const SlicePeak& slice = row.scratch.peaks[s];
    const auto own = static_cast<double>(ValueOf(slice.raw_key));
    if (slice.raw_sum > 0) sum += slice.raw_sum * exp(own - maximum);
  }
  return maximum + log(BlockSum<kThreads>(sum, row.shared->sums));
}

/// The largest raw logits, one after the other, from those of the slices.
__device__ void WriteTop(const Row& row, double log_total, SamplerResult& result) {
  const int asked = row.p.top_logprobs < kTopLogprobsMax ? row.p.top_logprobs : kTopLogprobsMax;
  const int wanted = asked < row.vocab_size ? asked : row.vocab_size;
  uint64_t below = kAboveAll;
  for (int i = 0; i < wanted; ++i) {
    uint64_t key = 0;
    for (int s = row.thread; s < row.slices; s += kThreads) {
      for (int at = 0; at < asked; ++at) {
        const uint64_t own = row.scratch.top_keys[s * kTopLogprobsMax + at];
        if (own < below && own > key) key = own;
      }
    }
    below = BlockMax<kThreads>(key, row.shared->keys);
    if (row.thread == 0) {
      result.top_ids[i] = IdOf(below);
      result.top_logprobs[i] = static_cast<float>(static_cast<double>(ValueOf(below)) - log_total);
    }
  }
  if (row.thread == 0) result.top_count = wanted > 0 ? wanted : 0;
}

/// Puts list[0, count) in descending order; count is at most kListMax. Batcher's bitonic network: a
/// warp keeps to 64 keys of its own while keys to compare are at most 32 apart. Of more
/// than 32 keys, so that the last step ends with a barrier.
__device__ void Sort(uint64_t* list, int count, int thread) {
  int size = 2;
  while (size < count) size *= 2;
  for (int i = count + thread; i < size; i += kThreads) list[i] = 0;
  __syncthreads();
  for (int run = 2; run <= size; run *= 2) {
    for (int distance = run / 2; distance > 0; distance /= 2) {
      for (int pair = thread; pair < size / 2; pair += kThreads) {
        const int low = 2 * pair - (pair & (distance - 1));  // distances are powers of two
        const uint64_t a = list[low];
        const uint64_t b = list[low + distance];
        const bool descends = (low & run) == 0;
        if ((a < b) == descends) {
          list[low] = b;
          list[low + distance] = a;
        }
      }
      const int next = distance > 1 ? distance / 2 : run;
      if (distance > kWarpThreads || next > kWarpThreads) {
        __syncthreads();
      } else {
        __syncwarp();
      }
    }
  }
}

/// How many of the sorted list stay.
__device__ int KeptOf(const Row& row, const Cut& cut, int listed) {
  FinishShared& shared = *row.shared;
  const int count =
      cut.count_left < static_cast<uint64_t>(listed) ? static_cast<int>(cut.count_left) : listed;
  if (cut.takes_share == 0 && cut.mass_left == 0) return count;
  if (row.thread == 0) shared.kept = count;
  constexpr int kEach = kListMax / kThreads;
  const int each = (count + kThreads - 1) / kThreads;
  const int first = row.thread * each;
  uint64_t masses[kEach] = {};
  uint64_t mass = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (i < each && first + i < count) masses[i] = MassOf(ValueOf(shared.list[first + i]));
    mass += masses[i];
  }
  const SumsBefore sums = SumBefore<kThreads>(mass, shared.keys);
  const uint64_t need = cut.takes_share != 0 ? ShareOf(row.p.top_p, sums.total) : cut.mass_left;
  uint64_t before = sums.before;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    if (before < need && before + masses[i] >= need) shared.kept = first + i + 1;
    before += masses[i];
  }
  __syncthreads();
  return shared.kept;
}

/// Whether the thread's own entry stays, of a list of at most kShortListMax in any order: each is
/// compared with all, by two threads or more. Sorting 109 keys took an H200 28 dependent steps,
/// 7,500 cycles; comparing 356 took longer than sorting.
__device__ bool OwnStays(const Row& row, const Cut& cut, int listed, uint64_t own) {
  auto* const ranked = reinterpret_cast<Ranked*>(row.shared->list);
  auto* const before = reinterpret_cast<Before*>(ranked + kShortListMax);
  const bool live = row.thread < listed;
  const uint64_t mass = live ? MassOf(ValueOf(own)) : 0;
  if (live) ranked[row.thread] = {own, mass};
  if (row.thread < kShortListMax) before[row.thread] = {0, 0};
  int places = kShortListMax;
  while (places > kWarpThreads && places / 2 >= listed) places /= 2;
  __syncthreads();
  const int place = row.thread & (places - 1);
  if (place < listed) {
    const uint64_t key = ranked[place].key;
    Before sums{0, 0};
#pragma unroll 4
    for (int i = row.thread / places; i < listed; i += kThreads / places) {
      const Ranked other = ranked[i];
      if (other.key > key) {
        sums.mass += other.mass;
        ++sums.keys;
      }
    }
    atomicAdd(&before[place].mass, sums.mass);
    atomicAdd(&before[place].keys, sums.keys);
  }
  __syncthreads();
  const bool counted = live && before[row.thread].keys < cut.count_left;
  if (cut.takes_share == 0 && cut.mass_left == 0) return counted;
  const uint64_t need =
      cut.takes_share != 0
          ? ShareOf(row.p.top_p, BlockSum<kThreads>(counted ? mass : 0, row.shared->keys))
          : cut.mass_left;
  return counted && before[row.thread].mass < need;
}

/// The best of what the slices drew and of what stays of the list; `own` is the thread's first
/// entry.
__device__ int DrawFromList(const Row& row, const Cut& cut, int listed, uint64_t own) {
  FinishShared& shared = *row.shared;
  Draw draw;
  for (int s = row.thread; s < row.slices; s += kThreads) {
    draw.Take(row.scratch.draws[s].score, static_cast<int>(row.scratch.draws[s].token));
  }
  if (cut.edge == kBins) return BlockBest<kThreads>(draw, shared.draws).token;
  if (listed <= kShortListMax) {
    const bool stays = OwnStays(row, cut, listed, own);
    const auto for_offers = [&](auto offer) {
      const int id = IdOf(own);
      if (stays) offer(ValueOf(own), id, BitsOf(row.p, id / 4).at[id % 4]);
    };
    return BestOf<kThreads>(draw, for_offers, shared.roughs, shared.draws).token;
  }
  if (row.thread < listed) shared.list[row.thread] = own;
  for (int i = row.thread + kThreads; i < listed; i += kThreads) {
    shared.list[i] = row.scratch.list[i];
  }
  Sort(shared.list, listed, row.thread);
  const int kept = KeptOf(row, cut, listed);
  const auto for_offers = [&](auto offer) {
    for (int i = row.thread; i < kept; i += kThreads) {
      const int id = IdOf(shared.list[i]);
      offer(ValueOf(shared.list[i]), id, BitsOf(row.p, id / 4).at[id % 4]);
    }
  };
  return BestOf<kThreads>(draw, for_offers, shared.roughs, shared.draws).token;
}

/// Calls each(x, id) for the ids of the whole row with a key of at least `threshold`.
template <typename Each>
__device__ __forceinline__ void ForKept(const Row& row, const Scale& scale, uint64_t threshold,
                                        Each each) {
  for (int id = row.thread; id < row.vocab_size; id += kThreads) {
    const float x = scale(row.logits[id]);
    if (scale.Keeps(x) && KeyOf(x, id) >= threshold) each(x, id);
  }
}

/// Thread 0: the digit, from the top, in which the sum reaches what is needed.
__device__ void ChooseDigit(FinishShared& shared, int shift) {
  int digit = kDigits - 1;
  while (digit > 0 && shared.digits[digit] < shared.need) shared.need -= shared.digits[digit--];
  shared.prefix |= static_cast<uint64_t>(digit) << shift;
}

/// The key at which the sum of weights, from the largest key down, first reaches `need` >= 1.
template <typename Weight>
__device__ uint64_t ThresholdOf(const Row& row, const Scale& scale, uint64_t need, Weight weight) {
  FinishShared& shared = *row.shared;
  if (row.thread == 0) {
    shared.prefix = 0;
    shared.need = need;
  }
  for (int shift = 56; shift >= 0; shift -= 8) {
    for (int digit = row.thread; digit < kDigits; digit += kThreads) shared.digits[digit] = 0;
    __syncthreads();
    const uint64_t prefix = shared.prefix;
    ForKept(row, scale, 0, [&](float x, int id) {
      const uint64_t key = KeyOf(x, id);
      if (shift < 56 && (key ^ prefix) >> (shift + 8) != 0) return;
      atomicAdd(&shared.digits[key >> shift & (kDigits - 1)],
                static_cast<unsigned long long>(weight(x)));
    });
    __syncthreads();
    if (row.thread == 0) ChooseDigit(shared, shift);
    __syncthreads();
  }
  return shared.prefix;  // until the second barrier from here
}

/// Step 4 and 5 over the whole row, eight bits of the threshold a pass.
__device__ int DrawFromRow(const Row& row, const Scale& scale) {
  uint64_t threshold = 0;
  if (row.p.top_k > 0) {
    const auto one = [](float) { return uint64_t{1}; };
    uint64_t count = 0;
    ForKept(row, scale, 0, [&](float, int) { ++count; });
    const auto k = static_cast<uint64_t>(row.p.top_k);
    if (BlockSum<kThreads>(count, row.shared->keys) > k) {
      threshold = ThresholdOf(row, scale, k, one);
    }
  }
  if (row.p.top_p < 1) {
    const auto mass = [](float x) { return MassOf(x); };
    uint64_t total = 0;
    ForKept(row, scale, threshold, [&](float x, int) { total += MassOf(x); });
    total = BlockSum<kThreads>(total, row.shared->keys);
    threshold = ThresholdOf(row, scale, ShareOf(row.p.top_p, total), mass);
  }
  const auto for_offers = [&](auto offer) {
    ForKept(row, scale, threshold,
            [&](float x, int id) { offer(x, id, BitsOf(row.p, id / 4).at[id % 4]); });
  };
  return BestOf<kThreads>(Draw(), for_offers, row.shared->roughs, row.shared->draws).token;
}

/// The token's logit before any edit.
__device__ float RawOf(const Row& row, const LogitEdit* edits, const float* raw, int token) {
  if (row.p.target < 0) {
    const int e = FirstEditFrom(edits, row.p.edits, token);
    if (e < row.p.edits && edits[e].id == token) return raw[e];
  }
  return row.logits[token];
}

__global__ void __launch_bounds__(kThreads) FinishKernel(SamplerOperands o) {
  ReleaseSuccessor();
  const SamplerRow p = o.rows[blockIdx.x];
  FinishShared& shared = SharedObject<FinishShared>();
  const Row row{p,
                o.logits + blockIdx.x * o.stride,
                o.vocab_size,
                RowScratch::SlicesOf(o.vocab_size),
                RowScratch(o.scratch, blockIdx.x, o.vocab_size),
                &shared,
                static_cast<int>(threadIdx.x)};
  WaitForPredecessor();
  if (p.result < 0) return;
  SamplerResult& result = o.results[p.result];
  Cut cut{kBins, kBins, 0, 0, 0};
  uint32_t listed = 0;
  uint64_t own = 0;
  if (p.limited()) {
    own = row.scratch.list[row.thread];  // there may be less
    cut = *row.scratch.cut;
    listed = *row.scratch.listed;
  }
  const uint64_t peak = PeakOf<kThreads>(row.scratch, row.slices, shared.keys);
  const uint64_t raw_peak = p.edits > 0 ? RawPeakOf(row) : peak;
  const bool failed = Fails(raw_peak) || (p.target < 0 && Fails(peak));
  const bool report = !failed && (p.top_logprobs >= 0 || p.target >= 0);
  const double log_total = report ? LogTotal(row, raw_peak) : 0;
  if (report) WriteTop(row, log_total, result);
  int token = failed ? 0 : p.target >= 0 ? p.target : IdOf(peak);
  if (!failed && p.draws()) {
    token = listed > kListMax ? DrawFromRow(row, Scale(p, peak))
                              : DrawFromList(row, cut, static_cast<int>(listed), own);
  }
  if (row.thread != 0) return;
  o.drawn[blockIdx.x] = token;
  result.token = token;
  result.failed = failed ? 1 : 0;
  if (!report) {
    result.logprob = 0;
    result.top_count = 0;
    return;
  }
  const float logit = RawOf(row, o.edits + p.first_edit, o.raw + p.first_edit, token);
  result.logprob = static_cast<float>(static_cast<double>(logit) - log_total);
}

}  // namespace

cudaError_t FinishSamples(const SamplerOperands& operands, int rows, cudaStream_t stream) {
  return Launch({"Sample, finish", dim3(static_cast<unsigned>(rows)), dim3(kThreads), 0, stream},
                FinishKernel, operands);
}

}  // namespace neurogrid::kernels
