// The kernels over slices of rows.
#include "kernels/launch.h"
#include "kernels/sampler.cuh"
#include "kernels/sampler.h"
#include "kernels/vec.cuh"

namespace neurogrid::kernels {
namespace {

constexpr int kCutThreads = 1024;

struct SliceShared {
  BlockScratch<uint64_t> keys;
  BlockScratch<double> sums;
  BlockScratch<float> roughs;
  DrawScratch draws;
};
struct HistogramShared {
  BlockScratch<uint64_t> keys;
  uint32_t low[kBins];   // counts, or masses modulo 2^20
  uint32_t high[kBins];  // masses divided by it
};
struct CutShared {
  BlockScratch<uint64_t> sums;
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
    for (; bin < kBins; bin += step) scratch.bins[bin] = 0;
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
  const bool counts = p.top_k > 0;
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins && p.limited(); bin += kSliceThreads) {
    shared.low[bin] = 0;
    if (!counts) shared.high[bin] = 0;
  }
  WaitForPredecessor();
  if (!p.limited()) return;
  const Slice::Values values = slice.Load();
  const uint64_t peak =
      PeakOf<kSliceThreads>(scratch, static_cast<int>(gridDim.x), shared.keys);  // and a barrier
  if (Fails(peak)) return;
  const Scale scale(p, peak);
  slice.ForIds(values, [&](float logit, int) {
    const float x = scale(logit);
    if (!scale.Keeps(x)) return;
    const int bin = BinOf(x);
    if (counts) {
      atomicAdd(&shared.low[bin], 1u);
    } else {  // up to 2^40, in halves whose sums over a slice fit 32 bits
      const uint64_t mass = MassOf(x);
      atomicAdd(&shared.low[bin], static_cast<uint32_t>(mass) & 0xfffffu);
      atomicAdd(&shared.high[bin], static_cast<uint32_t>(mass >> 20));
    }
  });
  __syncthreads();
  for (int bin = static_cast<int>(threadIdx.x); bin < kBins; bin += kSliceThreads) {
    unsigned long long sum = shared.low[bin];
    if (!counts) sum += static_cast<unsigned long long>(shared.high[bin]) << 20;
    if (sum > 0) atomicAdd(reinterpret_cast<unsigned long long*>(&scratch.bins[bin]), sum);
  }
}

/// One block a row: finds the bin in which the row is cut.
__global__ void __launch_bounds__(kCutThreads) CutKernel(SamplerOperands o) {
  ReleaseSuccessor();
  const SamplerRow p = o.rows[blockIdx.x];
  const RowScratch scratch(o.scratch, blockIdx.x, o.vocab_size);
  constexpr uint64_t kAll = ~static_cast<uint64_t>(0);
  constexpr int kEach = kBins / kCutThreads;
  WaitForPredecessor();
  if (!p.limited()) return;
  const int first = static_cast<int>(threadIdx.x) * kEach;
  uint64_t bins[kEach];
  uint64_t sum = 0;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    bins[i] = scratch.bins[first + i];
    sum += bins[i];
  }
  const SumsBefore sums = SumBefore<kCutThreads>(sum, SharedObject<CutShared>().sums);
  const bool counts = p.top_k > 0;
  const bool weighs = p.top_p < 1;
  const uint64_t need = counts ? static_cast<uint64_t>(p.top_k) : ShareOf(p.top_p, sums.total);
  if (sums.total <= need && threadIdx.x == 0) {  // top_k cuts nothing
    *scratch.cut = {weighs ? 0 : kBins, kBins, weighs, kAll, 0};
  }
  uint64_t before = sums.before;
#pragma unroll
  for (int i = 0; i < kEach; ++i) {
    const int bin = first + i;
    if (sums.total > need && before < need && before + bins[i] >= need) {
      if (!counts) {
        *scratch.cut = {bin, bin + 1, 0, kAll, need - before};
      } else if (weighs) {  // how much top_p leaves shows when top_k has cut: list all
        *scratch.cut = {0, bin + 1, 1, need, 0};
      } else {
        *scratch.cut = {bin, bin + 1, 0, need - before, 0};
      }
    }
    before += bins[i];
  }
}

__global__ void __launch_bounds__(kSliceThreads) DrawKernel(SamplerOperands o) {
  ReleaseSuccessor();
  const SamplerRow p = o.rows[blockIdx.y];
  const Slice slice(o);
  const RowScratch scratch(o.scratch, blockIdx.y, o.vocab_size);
  SliceShared& shared = SharedObject<SliceShared>();
  WaitForPredecessor();
  if (!p.draws()) return;
  Slice::Values values = slice.Load();
  int edge = kBins;
  int list_end = kBins;
  if (p.limited()) {
    edge = scratch.cut->edge;
    list_end = scratch.cut->list_end;
  }
  const uint64_t peak = PeakOf<kSliceThreads>(scratch, static_cast<int>(gridDim.x), shared.keys);
  if (Fails(peak)) return;
  const Scale scale(p, peak);
  Words words[kGroupsPerThread] = {};
#pragma unroll
  for (int g = 0; g < kGroupsPerThread; ++g) {
    bool offers = false;
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float x = scale(values.at[g][i]);
      const int bin = BinOf(x);
      const bool stays = scale.Keeps(x) && bin < edge;
      if (scale.Keeps(x) && bin >= edge && bin < list_end) {
        const uint32_t place = atomicAdd(scratch.listed, 1u);
        if (place < kListMax) scratch.list[place] = KeyOf(x, 4 * slice.Group(g) + i);
      }
      values.at[g][i] = stays ? x : NegativeInfinity();
      offers |= stays;
    }
    if (offers) words[g] = BitsOf(p, slice.Group(g));
  }
  const auto for_offers = [&](auto offer) {
#pragma unroll
    for (int g = 0; g < kGroupsPerThread; ++g) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float x = values.at[g][i];
        if (x > NegativeInfinity()) offer(x, 4 * slice.Group(g) + i, words[g].at[i]);
      }
    }
  };
  const Draw draw = BestOf<kSliceThreads>(Draw(), for_offers, shared.roughs, shared.draws);
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
  if (error == cudaSuccess && needs.limited) {
    error = Launch({"Sample, cut", dim3(static_cast<unsigned>(rows)), dim3(kCutThreads), 0, stream},
                   CutKernel, operands);
  }
  if (error == cudaSuccess && needs.draws) error = launch("Sample, draw", DrawKernel);
  return error == cudaSuccess ? FinishSamples(operands, rows, stream) : error;
}

}  // namespace neurogrid::kernels
