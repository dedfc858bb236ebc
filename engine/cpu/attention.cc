#include "engine/cpu/attention.h"

#include <algorithm>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "engine/cpu/kernels.h"

namespace neurogrid {
namespace {

/// Fewer items than this for each thread leave some idle at the end.
constexpr int kItemsPerThread = 4;

/// Chunks for each thread that items of several kv heads must leave.
constexpr int kChunksPerThread = 2;

/// Decoding rows whose splits can be spread over threads; more of them are items enough.
constexpr int64_t kSplitwiseRows = 8;

constexpr int kHeadDimMax = 256;

bool TakesHeads(int head_dim) { return head_dim % 2 == 0 && head_dim <= kHeadDimMax; }

int PaddedDim(int head_dim) { return (head_dim + 15) / 16 * 16; }

/// One call's work as a list of items: (sequence, block of queries, kv head, block of its query
/// heads). An item of a sequence with few rows, as in decoding, has all kv heads where that leaves
/// enough chunks for the threads: it reads memory in one stretch, up to twice as fast as pieces.
class Items {
 public:
  Items(Tensor out, ConstTensor qkv, const KvLayer& layer, const Batch& batch,
        const AttentionParameters& parameters, int threads);

  int64_t count() const { return offsets_.back(); }
  AttentionJob Job(int64_t item) const;
  int64_t splits_max() const { return splits_max_; }
  /// Floats of the largest item's state.
  int64_t state_floats() const { return state_floats_; }

 private:
  int rows_of(size_t sequence) const {
    return batch_.sequence_offsets[sequence + 1] - batch_.sequence_offsets[sequence];
  }
  int splits_of(size_t sequence) const {
    const int last_row = batch_.sequence_offsets[sequence + 1] - 1;
    return batch_.positions[static_cast<size_t>(last_row)] / kSplitTokens + 1;
  }
  bool Streams(size_t sequence) const;
  int KvHeadsOf(size_t sequence) const { return Streams(sequence) ? layer_.layout.kv_heads : 1; }
  int64_t ItemsOf(size_t sequence) const;
  bool LeavesEnough(int threads) const;

  Tensor out_;
  ConstTensor qkv_;
  const KvLayer& layer_;
  const Batch& batch_;
  const AttentionParameters& parameters_;
  int group_;        // query heads of a kv head
  int block_heads_;  // heads * queries of a block: at most kAttentionRowsMax
  int block_queries_;
  int head_blocks_;
  bool may_stream_ = true;
  int64_t splits_max_ = 0;
  int64_t state_floats_ = 0;
  std::vector<int64_t> offsets_ = {0};  // [sequences + 1] first item of each sequence
};

Items::Items(Tensor out, ConstTensor qkv, const KvLayer& layer, const Batch& batch,
             const AttentionParameters& parameters, int threads)
    : out_(out), qkv_(qkv), layer_(layer), batch_(batch), parameters_(parameters) {
  group_ = parameters.query_heads / layer.layout.kv_heads;
  block_heads_ = std::min(group_, kAttentionRowsMax);
  block_queries_ = kAttentionRowsMax / block_heads_;
  head_blocks_ = (group_ + block_heads_ - 1) / block_heads_;
  may_stream_ = FollowsStreams() && LeavesEnough(threads);
  int job_rows_max = 0;
  for (size_t s = 0; s < static_cast<size_t>(batch.sequences()); ++s) {
    offsets_.push_back(offsets_.back() + ItemsOf(s));
    if (rows_of(s) == 0) continue;
    job_rows_max =
        std::max(job_rows_max, std::min(rows_of(s), block_queries_) * block_heads_ * KvHeadsOf(s));
    splits_max_ = std::max<int64_t>(splits_max_, splits_of(s));
  }
  state_floats_ = AttentionStateFloats(job_rows_max, PaddedDim(layer.layout.head_dim));
}

/// Whether a sequence's items have all kv heads: few enough rows, or memory is not the bound.
bool Items::Streams(size_t sequence) const {
  const int rows = rows_of(sequence);
  return may_stream_ && head_blocks_ == 1 && rows <= block_queries_ &&
         rows * parameters_.query_heads <= kAttentionJobRowsMax;
}

int64_t Items::ItemsOf(size_t sequence) const {
  const int64_t blocks = (rows_of(sequence) + block_queries_ - 1) / block_queries_;
  return blocks * head_blocks_ * (layer_.layout.kv_heads / KvHeadsOf(sequence));
}

/// Whether each thread gets two chunks. Where rows are few a split is a chunk.
bool Items::LeavesEnough(int threads) const {
  const bool by_splits = batch_.rows() <= kSplitwiseRows;
  int64_t chunks = 0;
  for (size_t s = 0; s < static_cast<size_t>(batch_.sequences()); ++s) {
    if (rows_of(s) > 0) chunks += ItemsOf(s) * (by_splits ? splits_of(s) : 1);
  }
  return threads == 1 || chunks >= int64_t{kChunksPerThread} * threads;
}

AttentionJob Items::Job(int64_t item) const {
  const auto next = std::upper_bound(offsets_.begin(), offsets_.end(), item);
  const size_t sequence = static_cast<size_t>(next - offsets_.begin()) - 1;
  const int64_t index = item - offsets_[sequence];
  const KvLayout& layout = layer_.layout;
  const int kv_heads = KvHeadsOf(sequence);
  const int64_t kv_blocks = layout.kv_heads / kv_heads;
  const int first_kv_head = static_cast<int>(index / head_blocks_ % kv_blocks);
  const int first_head = static_cast<int>(index % head_blocks_) * block_heads_;
  const int64_t query = index / head_blocks_ / kv_blocks * block_queries_;
  const int64_t row = batch_.sequence_offsets[sequence] + query;
  const int64_t size = layout.dtype == DType::kBF16 ? 2 : 4;
  const int64_t column_bytes = (first_kv_head * group_ + first_head) * layout.head_dim * size;
  AttentionJob job;
  job.is_bf16 = layout.dtype == DType::kBF16;
  job.q_stride_bytes = qkv_.shape[1] * size;
  job.q = qkv_.as<uint8_t>() + row * job.q_stride_bytes + column_bytes;
  job.out_stride_bytes = out_.shape[1] * size;
  job.out = out_.as<uint8_t>() + row * job.out_stride_bytes + column_bytes;
  job.queries = static_cast<int>(std::min<int64_t>(block_queries_, rows_of(sequence) - query));
  job.kv_heads = kv_heads;
  job.heads = std::min(block_heads_, group_ - first_head);
  job.head_dim = layout.head_dim;
  job.first_position = batch_.positions[static_cast<size_t>(row)];
  job.scale = parameters_.scale;
  job.softcap = parameters_.softcap;
  job.window = parameters_.window;
  job.keys = layer_.keys(0, first_kv_head);
  job.values = layer_.values(0, first_kv_head);
  job.stride_bytes = layer_.stride_bytes();
  job.tile_bytes = layout.tile_bytes();
  job.pages = layer_.table(batch_).data() + batch_.page_offsets[sequence];
  return job;
}

/// Few items over long contexts: each split is a chunk of its own, then states merge in order, as
/// one thread would have merged them.
void AttendSplitwise(const CpuContext& cpu, const Items& items, const AttentionScratch& scratch) {
  const Kernels& kernels = KernelsFor(cpu.instructions);
  const int64_t splits = items.splits_max();
  const auto state = [&](int64_t item, int64_t split) {
    return scratch.states() + (item * splits + split) * items.state_floats();
  };
  cpu.pool->ParallelFor(items.count() * splits, [&](int64_t chunk, int worker) {
    const AttentionJob job = items.Job(chunk / splits);
    const int split = static_cast<int>(chunk % splits);
    if (split < job.first_split() || split >= job.last_split()) return;
    kernels.attend(job, split, split + 1, state(chunk / splits, split), scratch.work(worker));
  });
  cpu.pool->ParallelFor(items.count(), [&](int64_t item, int) {
    const AttentionJob job = items.Job(item);
    float* merged = state(item, job.first_split());
    for (int split = job.first_split() + 1; split < job.last_split(); ++split) {
      kernels.merge_attention(job, merged, state(item, split));
    }
    kernels.finish_attention(job, merged);
  });
}

void AttendItemwise(const CpuContext& cpu, const Items& items, const AttentionScratch& scratch) {
  const Kernels& kernels = KernelsFor(cpu.instructions);
  cpu.pool->ParallelFor(items.count(), [&](int64_t item, int worker) {
    const AttentionJob job = items.Job(item);
    kernels.attend(job, job.first_split(), job.last_split(), scratch.worker_state(worker),
                   scratch.work(worker));
    kernels.finish_attention(job, scratch.worker_state(worker));
  });
}

int64_t WorkerFloats(int head_dim) {
  const int dim = PaddedDim(head_dim);
  const int64_t floats = AttentionStateFloats(kAttentionJobRowsMax, dim) + AttentionWorkFloats(dim);
  return (floats + 31) / 32 * 32;  // whole pairs of lines: threads share none
}

int64_t StatesFloats(int query_heads, int head_dim, int positions_max) {
  const int64_t splits = (int64_t{positions_max} + kSplitTokens - 1) / kSplitTokens;
  return kSplitwiseRows * query_heads * splits * AttentionStateFloats(1, PaddedDim(head_dim));
}

}  // namespace

int64_t AttentionScratch::BytesFor(int threads, int query_heads, int head_dim, int positions_max) {
  return int64_t{sizeof(float)} *
         (threads * WorkerFloats(head_dim) + StatesFloats(query_heads, head_dim, positions_max));
}

absl::StatusOr<AttentionScratch> AttentionScratch::Allocate(int threads, int query_heads,
                                                            int head_dim, int positions_max) {
  if (!TakesHeads(head_dim)) {
    return absl::InvalidArgumentError(
        absl::StrCat("head_dim is ", head_dim, ": the processor's kernels take even numbers up to ",
                     kHeadDimMax));
  }
  AttentionScratch scratch;
  const int64_t bytes = BytesFor(threads, query_heads, head_dim, positions_max);
  NG_ASSIGN_OR_RETURN(scratch.buffer_, Buffer::Allocate(static_cast<size_t>(bytes)));
  scratch.threads_ = threads;
  scratch.worker_floats_ = WorkerFloats(head_dim);
  scratch.state_floats_ = AttentionStateFloats(kAttentionJobRowsMax, PaddedDim(head_dim));
  scratch.states_floats_ = StatesFloats(query_heads, head_dim, positions_max);
  return scratch;
}

void Attention(const CpuContext& cpu, Tensor out, ConstTensor qkv, const KvLayer& layer,
               const Batch& batch, const AttentionParameters& parameters,
               const AttentionScratch& scratch) {
  const KvLayout& layout = layer.layout;
  const int64_t columns = int64_t{parameters.query_heads} * layout.head_dim;
  NG_CHECK(layout.dtype == DType::kBF16 || layout.dtype == DType::kF32);
  NG_CHECK(TakesHeads(layout.head_dim));
  NG_CHECK(layout.kv_heads > 0 && parameters.query_heads % layout.kv_heads == 0);
  NG_CHECK(out.dtype == layout.dtype && qkv.dtype == layout.dtype);
  NG_CHECK(out.shape == Shape({batch.rows(), columns}));
  NG_CHECK(qkv.shape.rank() == 2 && qkv.shape[0] == batch.rows() && qkv.shape[1] >= columns);
  NG_CHECK(parameters.scale > 0);
  NG_CHECK(cpu.pool->threads() <= scratch.threads());
  const Items items(out, qkv, layer, batch, parameters, cpu.pool->threads());
  const bool few = items.count() < int64_t{kItemsPerThread} * cpu.pool->threads();
  const int64_t states = items.count() * items.splits_max() * items.state_floats();
  if (few && cpu.pool->threads() > 1 && items.splits_max() > 1 &&
      states <= scratch.states_floats()) {
    AttendSplitwise(cpu, items, scratch);
  } else {
    AttendItemwise(cpu, items, scratch);
  }
}

}  // namespace neurogrid
