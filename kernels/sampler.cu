// The kernels over slices of rows.
#include "kernels/launch.h"
#include "kernels/sampler.cuh"
#include "kernels/sampler.h"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {
namespace {

struct SliceShared {
  BlockScratch<uint64_t> keys;
  BlockScratch<double> sums;
  DrawScratch draws;
  Cut cut;
};
struct HistogramShared {
  BlockScratch<uint64_t> keys;
  uint32_t counts[kBins];
  uint32_t low_masses[kBins];  // of 20 bits
  uint32_t high_masses[kBins];
};

/// A block's part of a row, eight ids a thread in two groups of four.
struct Slice {
  float* logits;  // of the row
  int vocab_size;
  int first_group;

  __device__ __forceinline__ Slice(const SamplerOperands& o)
      : logits(o.logits + blockIdx.y * o.stride),
        vocab_size(o.vocab_size),
        first_group(static_cast<int>(blockIdx.x) * (kSliceIds / 4)) {}

  __device__ __forceinline__ int Group(int g) const {
    return first_group + g * kSliceThreads + static_cast<int>(threadIdx.x);
  }
  struct Values {
    float at[kGroupsPerThread][4];
  };
  /// The thread's logits; -inf behind the end of the row.
  __device__ __forceinline__ Values Load() const {
    const bool aligned = reinterpret_cast<uintptr_t>(logits) % sizeof(Vec<float>) == 0;
    Values values;
#pragma unroll
    for (int g = 0; g < kGroupsPerThread; ++g) {
      const int first = 4 * Group(g);
      if (aligned && first + 4 <= vocab_size) {
        const Vec<float> four = LoadVec(logits + first);
#pragma unroll
        for (int i = 0; i < 4; ++i) values.at[g][i] = four.at[i];
      } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          values.at[g][i] = first + i < vocab_size ? logits[first + i] : NegativeInfinity();
        }
      }
    }
    return values;
  }
  /// Calls each(value, id) for the ids that the row has.
  template <typename Each>
  __device__ __forceinline__ void ForIds(const Values& values, Each each) const {
#pragma unroll
    for (int g = 0; g < kGroupsPerThread; ++g) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int id = 4 * Group(g) + i;
        if (id < vocab_size) each(values.at[g][i], id);
      }
    }
  }
  __device__ __forceinline__ uint64_t LargestKey(const Values& values, uint64_t below) const {
    uint64_t key = 0;
    ForIds(values, [&](float x, int id) {
      const uint64_t own = KeyOf(x, id);
      if (own < below && own > key) key = own;
    });
    return key;
  }
};

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

/// One thread for all edits of an id. False where the slice has none.
__device__ bool ApplyEdits(const SamplerOperands& o, const SamplerRow& p, const Slice& slice) {
  const LogitEdit* edits = o.edits + p.first_edit;
  float* raw = o.raw + p.first_edit;
  const int first = FirstEditFrom(edits, p.edits, 4 * slice.first_group);
  const int last = FirstEditFrom(edits, p.edits, 4 * slice.first_group + kSliceIds);
  for (int e = first + static_cast<int>(threadIdx.x); e < last; e += kSliceThreads) {
    const int id = edits[e].id;
    if (e > first && edits[e - 1].id == id) continue;
    float x = slice.logits[id];
    raw[e] = x;
    for (int same = e; same < last && edits[same].id == id; ++same) x = Edited(p, edits[same], x);
    slice.logits[id] = x;
  }
  return first < last;
}

/// What logprobs need of the slice before its edits.
__device__ void ReportRaw(const Slice& slice, const Slice::Values& values, const SamplerRow& p,
                          uint64_t raw_key, const RowScratch& scratch, SliceShared& shared) {
  const float maximum = ValueOf(raw_key);
  double sum = 0;
  if (maximum > NegativeInfinity()) {
    slice.ForIds(values, [&](float x, int) { sum += static_cast<double>(expf(x - maximum)); });
  }
  sum = BlockSum<kSliceThreads>(sum, shared.sums);
  if (threadIdx.x == 0) scratch.peaks[blockIdx.x].raw_sum = sum;
  uint64_t below = kAboveAll;
  for (int i = 0; i < p.top_logprobs && i < kTopLogprobsMax; ++i) {
    below = BlockMax<kSliceThreads>(slice.LargestKey(values, below), shared.keys);
    if (threadIdx.x == 0) scratch.top_keys[blockIdx.x * kTopLogprobsMax + i] = below;
  }
}

__global__ void __launch_bounds__(kSliceThreads) PeaksKernel(SamplerOperands o) {
  ReleaseSuccessor();
  const SamplerRow p = o.rows[blockIdx.y];
  const Slice slice(o);
  const RowScratch scratch(o.scratch, blockIdx.y, o.vocab_size);
  SliceShared& shared = SharedObject<SliceShared>();
  WaitForPredecessor();
  Slice::Values values = slice.Load();
  if (p.limited()) {  // for the kernels to come
    const int step = static_cast<int>(gridDim.x) * kSliceThreads;
    int bin = static_cast<int>(blockIdx.x * kSliceThreads + threadIdx.x);
    if (bin == 0) *scratch.listed = 0;
    for (; bin < kBins; bin += step) {
      scratch.counts[bin] = 0;
      scratch.masses[bin] = 0;
    }
  }
  const uint64_t raw_key =
      BlockMax<kSliceThreads>(slice.LargestKey(values, kAboveAll), shared.keys);
  if (p.top_logprobs >= 0 || p.target >= 0) ReportRaw(slice, values, p, raw_key, scratch, shared);
  uint64_t key = raw_key;
  if (p.target < 0 && p.edits > 0 && ApplyEdits(o, p, slice)) {
    __syncthreads();
    values = slice.Load();
    key = BlockMax<kSliceThreads>(slice.LargestKey(values, kAboveAll), shared.keys);
  }
  if (threadIdx.x == 0) {
    scratch.peaks[blockIdx.x].key = key;
    scratch.peaks[blockIdx.x].raw_key = raw_key;
  }
}

__global__ void __launch_bounds__(kSliceThreads) HistogramKernel(SamplerOperands o) {
  ReleaseSuccessor();
  const SamplerRow p = o.rows[blockIdx.y];
  const Slice slice(o);
  const RowScratch scratch(o.scratch, blockIdx.y, o.vocab_size);
  HistogramShared& shared = SharedObject<HistogramShared>();
  const int thread = static_cast<int>(threadIdx.x);
  for (int bin = thread; bin < kBins && p.limited(); bin += kSliceThreads) {
    shared.counts[bin] = 0;
    shared.low_masses[bin] = 0;
    shared.high_masses[bin] = 0;
  }
  WaitForPredecessor();
  if (!p.limited()) return;
  const Slice::Values values = slice.Load();
  const uint64_t peak =
      PeakOf<kSliceThreads>(scratch, static_cast<int>(gridDim.x), shared.keys);  // and a barrier
  if (Fails(peak)) return;
  const Scale scale(p, peak);
  const bool weighs = p.top_p < 1;
  slice.ForIds(values, [&](float logit, int) {
    const float x = scale(logit);
    if (!scale.Keeps(x)) return;
    const int bin = BinOf(x);
    atomicAdd(&shared.counts[bin], 1u);
    if (!weighs) return;
    // Up to 2^40 each, in halves whose sums over a slice fit 32 bits.
    const uint64_t mass = MassOf(x);
    atomicAdd(&shared.low_masses[bin], static_cast<uint32_t>(mass) & 0xfffffu);
    atomicAdd(&shared.high_masses[bin], static_cast<uint32_t>(mass >> 20));
  });
  __syncthreads();
  for (int bin = thread; bin < kBins; bin += kSliceThreads) {
    if (shared.counts[bin] == 0) continue;
    atomicAdd(&scratch.counts[bin], shared.counts[bin]);
    if (!weighs) continue;
    const unsigned long long mass =
        (static_cast<unsigned long long>(shared.high_masses[bin]) << 20) + shared.low_masses[bin];
    atomicAdd(reinterpret_cast<unsigned long long*>(&scratch.masses[bin]), mass);
  }
}

/// The sum over the threads before this one.
__device__ uint64_t SumBefore(uint64_t value, BlockScratch<uint64_t>& scratch) {
  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % kWarpThreads;
  uint64_t sum = value;
#pragma unroll
  for (int distance = 1; distance < kWarpThreads; distance *= 2) {
    const uint64_t other = __shfl_up_sync(kFullMask, sum, distance);
    if (lane >= distance) sum += other;
  }
  if (lane == kWarpThreads - 1) scratch.warps[thread / kWarpThreads] = sum;
  __syncthreads();
  for (int warp = 0; warp < thread / kWarpThreads; ++warp) sum += scratch.warps[warp];
  __syncthreads();
  return sum - value;
}

/// A thread's bins, consecutive ones, and the sums before them.
struct Bins {
  static constexpr int kEach = kBins / kSliceThreads;
  uint32_t counts[kEach];
  uint64_t masses[kEach];
  uint64_t count = 0;
  uint64_t mass = 0;
  uint64_t count_before;
  uint64_t mass_before;
  uint64_t counts_total;
  uint64_t masses_total;

  __device__ Bins(const RowScratch& scratch, bool weighs, SliceShared& shared) {
    const int first = static_cast<int>(threadIdx.x) * kEach;
#pragma unroll
    for (int i = 0; i < kEach; ++i) {
      counts[i] = scratch.counts[first + i];
      masses[i] = weighs ? scratch.masses[first + i] : 0;
      count += counts[i];
      mass += masses[i];
    }
    count_before = SumBefore(count, shared.keys);
    mass_before = SumBefore(mass, shared.keys);
    counts_total = BlockSum<kSliceThreads>(count, shared.keys);
    masses_total = BlockSum<kSliceThreads>(mass, shared.keys);
  }
};

/// In the one thread that holds the bin in which the sum first reaches `need`: calls
/// found(bin, count before it, mass before it, count in it).
template <typename Found>
__device__ __forceinline__ void FindBin(const Bins& bins, bool by_mass, uint64_t need,
                                        Found found) {
  uint64_t count = bins.count_before;
  uint64_t mass = bins.mass_before;
#pragma unroll
  for (int i = 0; i < Bins::kEach; ++i) {
    const uint64_t before = by_mass ? mass : count;
    const uint64_t own = by_mass ? bins.masses[i] : bins.counts[i];
    if (before < need && before + own >= need) {
      found(static_cast<int>(threadIdx.x) * Bins::kEach + i, count, mass, bins.counts[i]);
    }
    count += bins.counts[i];
    mass += bins.masses[i];
  }
}

/// The same in every block of a row.
__device__ Cut CutOf(const SamplerRow& p, const RowScratch& scratch, SliceShared& shared) {
  constexpr uint64_t kAll = ~static_cast<uint64_t>(0);
  if (threadIdx.x == 0) shared.cut = {kBins, kBins, 0, 0, kAll, 0};
  const bool weighs = p.top_p < 1;
  const Bins bins(scratch, weighs, shared);
  const uint64_t k = p.top_k > 0 ? static_cast<uint64_t>(p.top_k) : kAll;
  if (k < bins.counts_total) {
    FindBin(bins, /*by_mass=*/false, k, [&](int bin, uint64_t count, uint64_t, uint64_t own) {
      shared.cut = {bin, bin + 1, own > kListMax, 0, k - count, 0};
      // How much top_p leaves shows when top_k has cut: list all.
      if (weighs) shared.cut = {0, bin + 1, count + own > kListMax, 1, k, 0};
    });
  } else if (weighs) {
    const uint64_t need = ShareOf(p.top_p, bins.masses_total);
    FindBin(bins, /*by_mass=*/true, need, [&](int bin, uint64_t, uint64_t mass, uint64_t own) {
      shared.cut = {bin, bin + 1, own > kListMax, 0, kAll, need - mass};
    });
  }
  __syncthreads();
  return shared.cut;
}

__global__ void __launch_bounds__(kSliceThreads) DrawKernel(SamplerOperands o) {
  ReleaseSuccessor();
  const SamplerRow p = o.rows[blockIdx.y];
  const Slice slice(o);
  const RowScratch scratch(o.scratch, blockIdx.y, o.vocab_size);
  SliceShared& shared = SharedObject<SliceShared>();
  WaitForPredecessor();
  if (!p.draws()) return;
  const Slice::Values values = slice.Load();
  const uint64_t peak = PeakOf<kSliceThreads>(scratch, static_cast<int>(gridDim.x), shared.keys);
  if (Fails(peak)) return;
  const Scale scale(p, peak);
  Cut cut{kBins, kBins, 0, 0, 0, 0};
  if (p.limited()) cut = CutOf(p, scratch, shared);
  if (blockIdx.x == 0 && threadIdx.x == 0) *scratch.cut = cut;
  Draw draw;
#pragma unroll
  for (int g = 0; g < kGroupsPerThread && cut.whole == 0; ++g) {
    bool drawn = false;
    Words words{};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int id = 4 * slice.Group(g) + i;
      const float x = scale(values.at[g][i]);
      if (!scale.Keeps(x)) continue;
      const int bin = BinOf(x);
      if (bin >= cut.edge) {
        if (bin < cut.list_end) scratch.list[atomicAdd(scratch.listed, 1u)] = KeyOf(x, id);
        continue;
      }
      if (!drawn) words = BitsOf(p, slice.Group(g));
      drawn = true;
      draw.Offer(x, id, words.at[i]);
    }
  }
  draw = BlockBest<kSliceThreads>(draw, shared.draws);
  if (threadIdx.x == 0) scratch.draws[blockIdx.x] = {draw.best, draw.token};
}

}  // namespace

int64_t SamplerScratchBytes(int rows, int vocab_size) {
  return rows * RowScratch::Bytes(vocab_size);
}

cudaError_t Sample(const SamplerOperands& operands, int rows, const SamplerNeeds& needs,
                   cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(RowScratch::SlicesOf(operands.vocab_size)),
                  static_cast<unsigned>(rows));
  const auto launch = [&](const char* name, auto* kernel) {
    return Launch({name, grid, dim3(kSliceThreads), 0, stream}, kernel, operands);
  };
  cudaError_t error = launch("Sample, peaks", PeaksKernel);
  if (error == cudaSuccess && needs.limited) error = launch("Sample, histogram", HistogramKernel);
  if (error == cudaSuccess && needs.draws) error = launch("Sample, draw", DrawKernel);
  return error == cudaSuccess ? FinishSamples(operands, rows, stream) : error;
}

}  // namespace neurogrid::kernels
