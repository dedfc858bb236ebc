// Rows that attention rotates on its way: what RopeAndWriteKv (kv_pages.h) would do to them, by the
// block that attends them.
#pragma once

#include "kernels/attention.cuh"
#include "kernels/kv_pages.cuh"

namespace neurogrid::kernels {

/// A decoding row's heads of one kv head, each rotated by a warp: queries to where they are
/// attended, the new key and value to their page and, of chunks that are not copied from there, to
/// their stage.
template <typename Split>
class RotatedRow {
  static constexpr int kDim = Split::kDim;
  static constexpr int kPairs = kDim <= 64 ? 1 : kDim / 64;
  static constexpr int kAtOnce = 2;  // heads of a warp
  using Pairs = HeadPairs<bf16, kPairs>;

 public:
  /// `place`: of the split that the row's own position is in, if the block attends it. `staged`:
  /// the block attends no split before it.
  __device__ __forceinline__ RotatedRow(const Split& block, const AttentionPlace& place,
                                        bool staged)
      : block_(block),
        place_(place),
        staged_(staged),
        row_(block.o.qkv + place.tile.first_row * int64_t{block.o.qkv_stride}),
        norms_(block.o.rotation.norms),
        dim_(block.o.kv.head_dim),
        token_(place.tile.first_position - place.start),
        angles_(block.o.rotation.table + int64_t{place.tile.first_position} * dim_, dim_),
        of_queries_(norms_.query_weight, dim_),
        of_key_(norms_.key_weight, dim_) {}

  /// Whether the row's own position is in the split.
  __device__ __forceinline__ bool writes() const { return token_ < place_.last; }

  /// Rows and columns that are not there.
  __device__ __forceinline__ void ClearQueries() const {
    constexpr int kPieces = Split::kRows * kDim / 8;
    for (int i = static_cast<int>(threadIdx.x); i < kPieces; i += kAttentionThreads) {
      reinterpret_cast<uint4*>(block_.queries)[i] = uint4{0, 0, 0, 0};
    }
  }
  /// Once the predecessor has ended, and behind a barrier.
  __device__ __forceinline__ void Rotate() const {
    const int heads = place_.group + (writes() ? 2 : 0);
    for (int head = block_.warp; head < heads; head += kAtOnce * kAttentionWarps) {
      const int other = head + kAttentionWarps;
      const Pairs one(ValuesOf(head), dim_);
      const Pairs two(ValuesOf(other < heads ? other : head), dim_);
      Finish(head, one);
      if (other < heads) Finish(other, two);
    }
  }

 private:
  /// Queries, then the key, then the value.
  __device__ __forceinline__ const bf16* ValuesOf(int head) const {
    const int group = place_.group;
    const int before = head < group ? place_.kv_head * group + head
                                    : block_.o.query_heads + place_.kv_head +
                                          (head == group ? 0 : block_.o.kv.kv_heads);
    return row_ + before * dim_;
  }
  __device__ __forceinline__ void Finish(int head, Pairs pairs) const {
    if (head < place_.group) {
      if (norms_.query_weight != nullptr) pairs.Norm(of_queries_, norms_, dim_);
      pairs.Rotate(angles_, dim_);
      pairs.ForEach(dim_, [&](int column, bf16 x) { block_.Query(head, column) = x; });
      return;
    }
    const bool is_value = head > place_.group;
    if (!is_value && norms_.key_weight != nullptr) pairs.Norm(of_key_, norms_, dim_);
    if (!is_value) pairs.Rotate(angles_, dim_);
    const KvPages<bf16>& kv = block_.o.kv;
    const uint32_t page = place_.PageOf(token_);
    bf16* to = (is_value ? kv.values(page, place_.kv_head) : kv.keys(page, place_.kv_head)) +
               token_ % kPageTokens * dim_;
    pairs.ForEach(dim_, [&](int column, bf16 x) {
      to[column] = x;
      const int chunk = Split::ChunkOf(token_, column, is_value);
      if (staged_ && chunk < 2) block_.Staged(chunk, token_, column) = x;
    });
  }

  const Split& block_;
  const AttentionPlace& place_;
  bool staged_;
  const bf16* row_;
  HeadNorms norms_;
  int dim_;
  int token_;
  HeadAngles<kPairs> angles_;
  HeadWeights<kPairs> of_queries_;
  HeadWeights<kPairs> of_key_;
};

}  // namespace neurogrid::kernels
