// Products of one row in one kernel: what may follow what, and how it is cut into jobs.
#include <algorithm>

#include "kernels/device_limits.h"
#include "kernels/launch.h"
#include "kernels/matmul_sequence_multiplier_sm90.cuh"
#include "kernels/tensor_map.h"

namespace neurogrid::kernels {
namespace {

__global__ void __launch_bounds__(kSequenceThreads, 1)
    SequenceKernel(const __grid_constant__ SequenceArguments a,
                   const __grid_constant__ SequenceMaps maps) {
  const SequenceShared shared(a);
  if (threadIdx.x < kSequenceMultipliers) {
    shared.CopyTables(a);
    __syncthreads();
    WaitForPredecessor();
    return SequenceMultiplier(a, shared).Run();
  }
  SequenceFeeder feeder(a, maps, shared);
  const bool feeds = threadIdx.x == kSequenceMultipliers;
  if (feeds) {
    for (int slot = 0; slot < a.stages; ++slot) {
      InitBarrier(shared.Full(slot), 1);
      InitBarrier(shared.Empty(slot), kSequenceWarps);
    }
    PublishBarriers();
    feeder.Begin();
  }
  const unsigned lane = threadIdx.x - kSequenceMultipliers;
  if (lane < static_cast<unsigned>(a.count)) BringMap(maps.at[lane]);
  __syncthreads();
  if (feeds) feeder.Run();
  WaitForPredecessor();
}

bool Gates(Epilogue epilogue) {
  return epilogue == Epilogue::kSiluGated || epilogue == Epilogue::kGeluGated;
}
bool Aligned(const void* p) { return reinterpret_cast<uintptr_t>(p) % 16 == 0; }

/// Blocks wait for each other, so all of them must run at a time: no other process may have blocks
/// that wait on the same multiprocessors.
bool DeviceHasIt() {
  static const bool has =
      RunsSm90() && TensorMapEncoder() != nullptr && DeviceAttribute(cudaDevAttrMpsEnabled) == 0;
  return has;
}

/// What a product reads before it norms or convolves.
const void* SourceOf(const MatMulOperands& operands) {
  const bf16* bcu = operands.convolution.operands.bcu;
  return operands.convolution.operands.out != nullptr ? bcu : operands.x;
}
int SourceValues(const SequenceProduct& product) {
  return product.weights.inputs * (product.operands.convolution.operands.out != nullptr ? 3 : 1);
}
bool Norms(const SequenceProduct& p) { return p.operands.norm.parameters.weight != nullptr; }
bool Convolves(const SequenceProduct& p) { return p.operands.convolution.operands.out != nullptr; }
bool Adds(const SequenceProduct& p) { return p.operands.epilogue == Epilogue::kAdd; }

int64_t WordsBytes(const Weights& w) { return int64_t{w.outputs} / 2 * sizeof(RowWord); }
constexpr int64_t kStateBytes = 256;

/// How a product's tiles become jobs.
struct Jobs {
  int tiles;  // of a job, each of a warp; 0: one, in slices
  int stage_chunks;
  int stages;
  int count;
};
Jobs JobsOf(const Weights& w) {
  const int chunks = w.stride() / kChunkInputs<kSequenceFormat>;
  const int tiles = w.packed_outputs() / kTileOutputs;
  if (SlicesOf(w.packed_outputs()) != 1) {
    return {.tiles = 0, .stage_chunks = 1, .stages = chunks / kSequenceWarps, .count = tiles};
  }
  // A job's time is its tiles', and a warp multiplies one of them no faster than memory reads
  // three.
  constexpr int kTilesMin = 3;
  constexpr int kTilesMax = 4;
  int best = kTilesMax;
  const auto time = [&](int of_job) {
    const int jobs = (tiles + of_job - 1) / of_job;
    return (jobs + MultiprocessorCount() - 1) / MultiprocessorCount() * of_job;
  };
  for (int of_job = kTilesMax; of_job >= kTilesMin; --of_job) {
    if (time(of_job) < time(best)) best = of_job;
  }
  const int stage_chunks = kSequenceWarps / best;
  return {.tiles = best,
          .stage_chunks = stage_chunks,
          .stages = chunks / stage_chunks,
          .count = (tiles + best - 1) / best};
}

/// Whether whole stages hold the matrix, and whole words its result.
bool ShapeFits(const SequenceProduct& p) {
  const Weights& w = p.weights;
  if (w.format != kSequenceFormat) return false;
  if (w.outputs % (w.gated ? kTileOutputs / 2 : kTileOutputs) != 0) return false;
  return w.inputs % (kSequenceWarps * kChunkInputs<kSequenceFormat>) == 0 && Aligned(w.data);
}

bool OperandsFit(const SequenceProduct& p) {
  const MatMulOperands& o = p.operands;
  const ConvolutionOperands<bf16>& convolution = o.convolution.operands;
  if (o.rows != 1 || Gates(o.epilogue) != p.weights.gated) return false;
  if (o.next.parameters.weight != nullptr || (o.y_is_f32 && o.epilogue != Epilogue::kStore)) {
    return false;
  }
  if (!Aligned(o.y) || !Aligned(SourceOf(o))) return false;
  if (Norms(p)) return p.weights.inputs <= kSequenceRowMax;
  return !Convolves(p) ||
         (convolution.taps_count == kSequenceTaps && convolution.columns == p.weights.inputs &&
          p.weights.inputs <= kSequenceRowMax);
}

/// Bytes of shared memory for rows of products of even and odd numbers.
struct RowBytes {
  int of[2] = {0, 0};
  void Add(int index, const Weights& w) {
    int& bytes = of[index % 2];
    bytes = std::max<int>(bytes, w.inputs * static_cast<int>(sizeof(bf16)));
  }
};
int StagesFor(const RowBytes& rows) {
  const int left = SharedBytesMax() - SequenceShared::Bytes(0, rows.of[0] + rows.of[1]);
  return std::min(left / SequenceShared::kOfStage, kSequenceStagesMax);
}

/// Whether some product of the sequence writes there, its norms and convolutions included.
bool Writes(const ProductSequence& sequence, const void* place) {
  for (int i = 0; i < sequence.count; ++i) {
    const MatMulOperands& o = sequence.at[i].operands;
    if (o.y == place || o.norm.normed == place || o.convolution.operands.out == place) return true;
  }
  return false;
}

}  // namespace

int64_t SequenceScratchBytes(int64_t values_max) {
  if (!DeviceHasIt()) return 0;
  return kStateBytes +
         kSequenceProductsMax * values_max / 2 * static_cast<int64_t>(sizeof(RowWord));
}

bool SequenceTakes(const ProductSequence& sequence, const SequenceProduct& next,
                   const SequenceScratch& scratch) {
  if (!DeviceHasIt() || !OperandsFit(next) || !ShapeFits(next)) return false;
  RowBytes rows;
  int64_t bytes = kStateBytes + WordsBytes(next.weights);
  int convolutions = Convolves(next) ? 1 : 0;
  for (int i = 0; i < sequence.count; ++i) {
    rows.Add(i, sequence.at[i].weights);
    bytes += WordsBytes(sequence.at[i].weights);
    convolutions += Convolves(sequence.at[i]) ? 1 : 0;
  }
  rows.Add(sequence.count, next.weights);
  constexpr int kStagesMin = 6;
  if (bytes > scratch.bytes || StagesFor(rows) < kStagesMin) return false;
  if (sequence.count == 0) return true;
  const SequenceProduct& last = sequence.at[sequence.count - 1];
  if (sequence.count == kSequenceProductsMax || convolutions > kSequenceConvolutionsMax)
    return false;
  if (last.operands.y_is_f32) return false;
  if (SourceOf(next.operands) != last.operands.y || SourceValues(next) != last.weights.outputs) {
    return false;
  }
  // What is added to comes from before the sequence, or is what the last product read.
  return !Adds(next) || next.operands.y == SourceOf(last.operands) ||
         !Writes(sequence, next.operands.y);
}

namespace {

/// What products of a sequence become for the kernel.
class Sequencer {
 public:
  Sequencer(const ProductSequence& sequence, const SequenceScratch& scratch)
      : sequence_(sequence), words_(static_cast<uint8_t*>(scratch.data) + kStateBytes) {
    arguments_.state = static_cast<SequenceState*>(scratch.data);
    arguments_.count = sequence.count;
  }

  cudaError_t Add(int index) {
    const SequenceProduct& product = sequence_.at[index];
    const MatMulOperands& o = product.operands;
    const Weights& w = product.weights;
    const bool last = index + 1 == sequence_.count;
    const Jobs jobs = JobsOf(w);
    SequencedProduct& p = arguments_.tables.products[index];
    p.x = static_cast<const bf16*>(SourceOf(o));
    p.y = WrittenLater(index, o.y) ? nullptr : o.y;
    p.bias = w.bias;
    p.norm = o.norm.parameters.weight;
    p.sources = o.norm.sources;
    auto* normed = static_cast<bf16*>(o.norm.normed);
    p.normed = WrittenLater(index, normed) ? nullptr : normed;
    p.epsilon = o.norm.parameters.epsilon;
    p.rounds_before_weight = o.norm.parameters.rounds_before_weight;
    p.inputs = w.inputs;
    p.tiles = w.packed_outputs() / kTileOutputs;
    p.first_job = arguments_.jobs;
    p.job_tiles = jobs.tiles;
    p.stages = jobs.stages;
    p.stage_chunks = jobs.stage_chunks;
    p.epilogue = o.epilogue;
    p.y_is_f32 = o.y_is_f32;
    p.convolution = Convolves(product) ? AddConvolution(index) : -1;
    if (!last || Convolves(product)) {
      p.words = reinterpret_cast<RowWord*>(words_);
      words_ += WordsBytes(w);
    }
    if (index > 0) {
      const SequencedProduct& before = arguments_.tables.products[index - 1];
      p.x_words = before.words;
      if (Adds(product) && o.y == SourceOf(sequence_.at[index - 1].operands)) {
        p.old_words = before.x_words;
      }
    }
    p.old = static_cast<const bf16*>(o.y);
    arguments_.jobs += jobs.count;
    rows_.Add(index, w);
    const int slices = jobs.tiles == 0 ? kSequenceWarps : 1;
    return EncodeSlicedMap({w.data, false, w.packed_outputs(), w.stride()}, slices,
                           kTileOutputs * std::max(jobs.tiles, 1), jobs.stage_chunks,
                           maps_.at[index]);
  }

  cudaError_t Queue(cudaStream_t stream) {
    constexpr int kUnderWay = 52 * 1024;
    arguments_.stages = StagesFor(rows_);
    arguments_.under_way = std::min(kUnderWay, arguments_.stages * kSequenceStageBytes / 2);
    const int row_bytes = rows_.of[0] + rows_.of[1];
    for (int i = 0; i < 2; ++i) arguments_.x_bytes[i] = rows_.of[i];
    const LaunchShape shape{
        "MatMul, sequence", dim3(static_cast<unsigned>(MultiprocessorCount())),
        dim3(kSequenceThreads),
        static_cast<size_t>(SequenceShared::Bytes(arguments_.stages, row_bytes)), stream};
    return Launch(shape, SequenceKernel, arguments_, maps_);
  }

 private:
  /// Blocks store the values of one product beside those of another, in no order: only the last
  /// one's may go to a place that several write to.
  bool WrittenLater(int index, const void* place) const {
    for (int i = index + 1; i < sequence_.count; ++i) {
      const MatMulOperands& o = sequence_.at[i].operands;
      if (place != nullptr &&
          (o.y == place || o.norm.normed == place || o.convolution.operands.out == place))
        return true;
    }
    return false;
  }
  int AddConvolution(int index) {
    const MatMulConvolution& from = sequence_.at[index].operands.convolution;
    SequencedConvolution& c = arguments_.tables.convolutions[convolutions_];
    c.taps = from.operands.taps;
    c.bias = from.operands.bias;
    c.state = from.operands.state;
    c.out = WrittenLater(index, from.operands.out) ? nullptr : from.operands.out;
    c.chunk = from.chunks;
    c.slot_stride = from.operands.slot_stride;
    return convolutions_++;
  }

  const ProductSequence& sequence_;
  uint8_t* words_;
  int convolutions_ = 0;
  RowBytes rows_;
  SequenceArguments arguments_{};
  SequenceMaps maps_{};
};

}  // namespace

cudaError_t MatMulSequence(const ProductSequence& sequence, const SequenceScratch& scratch,
                           cudaStream_t stream) {
  Sequencer sequencer(sequence, scratch);
  for (int i = 0; i < sequence.count; ++i) {
    const cudaError_t error = sequencer.Add(i);
    if (error != cudaSuccess) return error;
  }
  return sequencer.Queue(stream);
}

}  // namespace neurogrid::kernels
