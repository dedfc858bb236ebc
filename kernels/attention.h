// out[r, h] = sum over visible j of softmax_j(scale * <q[r, h], k[j]>) v[j], straight from pages.
//
// Positions are taken in splits of 256 from position 0. In a split: all scores, their exact
// maximum, exponentials, their sums for each 64 positions added in order, one chain of products
// with the values; splits merge one by one in order of position (Milakov and Gimelshein 2018,
// Online normalizer calculation). All ways below follow it, so a row's bits depend on its query
// and its sequence's keys and values alone.
//
//   few rows   an item is (tile of up to 16 rows, split), a unit one of its kv heads. Blocks take
//              equal runs of units, a tile's head after head, split after split. A run merges as
//              it goes while it began with a head's first split; where runs cut a head, the states
//              of its first run and of each later split go to memory, and a second kernel merges
//              them. Many sequences of like lengths: a block takes whole heads, all blocks
//              neighbouring ones at a time, so that pages, where heads lie side by side, are read
//              in long pieces. Bound by the bytes of keys and values; those of earlier steps are
//              fetched before the predecessor has ended. Where blocks have one unit or one whole
//              head and no tile more than one query, they rotate what they need for themselves,
//              and the one with the last split of a head writes its new key and value.
//   more rows  a block for each tile and kv head goes through its splits: parts of 32 rows with
//              mma.sync, or on sm_90 whole tiles with wgmma (attention_sm90.cu).
// A row of a tile is a query and one of the heads that share its kv head. Shared memory of the base
// path: up to 97 KiB. f32, and bf16 before sm_80: one block for each row and head
// (attention_rows.cu); the reference, not fast.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstdint>
#include <vector>

#include "kernels/kv_pages.h"

namespace neurogrid::kernels {

inline constexpr int kSplitTokens = 256;
inline constexpr int kGroupMax = 16;  // query heads of one kv head
inline constexpr int kHeadDimMax = 256;
inline constexpr int kFewTileRows = 16;    // a tile's, at most
inline constexpr int kMoreTileRows = 128;  // the same of more rows
inline constexpr int kStatePadding = 4;    // floats

/// Rows of one sequence at consecutive positions.
struct AttentionTile {
  int32_t first_row;
  int32_t queries;
  int32_t first_position;
  int32_t first_page;   // place of the sequence's page table in `pages`
  int32_t first_state;  // few rows: of (query 0, first visible split)
  int32_t first_split;
  int32_t splits;
  int32_t first_item;  // few rows
};
struct AttentionItem {
  int32_t tile;
};
/// A row of several splits, whose states may have to be merged.
struct AttentionMerge {
  int32_t row;
  int32_t first_state;
  int32_t splits;
  int32_t first_item;  // of its tile
};

/// What a batch's attention is made of; its arrays travel to the device with the batch.
struct AttentionWork {
  std::vector<AttentionTile> few_tiles;
  std::vector<AttentionItem> items;
  std::vector<AttentionMerge> merges;
  std::vector<AttentionTile> more_tiles;
  int64_t states = 0;
};

/// How much of a work's arrays is live.
struct AttentionCounts {
  int32_t few_tiles;
  int32_t items;
  int32_t merges;
  int32_t more_tiles;
};

/// Whether blocks had better take whole heads: where none of so many multiprocessors then has much
/// more to do than another.
bool WholeHeadsPay(const AttentionWork& work, int kv_heads, int multiprocessors);

/// One sequence of a batch.
struct AttentionSequence {
  int32_t first_row;
  int32_t rows;
  int32_t first_position;
  int32_t first_page;
};

/// Appends a sequence's tiles. `group`: query heads of a kv head, at most 16. window 0: none. What
/// would need more than `states_max` states in all goes the way of more rows.
void AddSequence(const AttentionSequence& sequence, int group, int window, int64_t states_max,
                 AttentionWork& work);

/// Floats of the states of a batch.
inline int64_t StateFloats(int64_t states, int query_heads, int head_dim) {
  return states * query_heads * (head_dim + kStatePadding);
}

/// The arrays of a work on the device. A recorded launch serves later batches too: then `live`, in
/// device memory, says what of the arrays there is, and the counts here only bound it. What lies
/// behind leaves at once; no count has to be exact to be fast, as items share the blocks there are.
struct AttentionWorkView {
  const AttentionTile* few_tiles;
  const AttentionItem* items;
  const AttentionMerge* merges;
  const AttentionTile* more_tiles;
  int few_tiles_count;
  int items_count;
  int merges_count;
  int more_tiles_count;
  const AttentionCounts* live = nullptr;
  bool whole_heads = false;  // few rows: no block cuts a head; the same bits
};

/// What RopeAndWriteKv (kv_pages.h) would do to the rows first.
struct RowRotation {
  const float* table = nullptr;  // [positions, 2, head_dim / 2]; null: it has been done
  HeadNorms norms{};
};

/// T: float or __nv_bfloat16.
template <typename T>
struct AttentionOperands {
  T* out;        // [rows, query_heads * head_dim]
  const T* qkv;  // [rows, qkv_stride], rotated queries first
  int qkv_stride;
  KvPages<T> kv;
  const int32_t* pages;
  float* states;  // StateFloats
  int query_heads;
  float scale;
  float softcap;           // c > 0: scores become c * tanh(score / c)
  int window;              // keys visible to a query, itself included; 0: all before it
  RowRotation rotation{};  // for what AttentionRotates says alone; qkv stays as it is
};

/// Whether Attention does what RopeAndWriteKv would, with its bits: where head_dim is 32, 64, 128
/// or 256 and every block has one unit at most, or one whole head of more than two for each
/// multiprocessor. Each tile must be one query.
bool AttentionRotates(const AttentionOperands<__nv_bfloat16>& operands,
                      const AttentionWorkView& work);
cudaError_t Attention(const AttentionOperands<__nv_bfloat16>& operands,
                      const AttentionWorkView& work, cudaStream_t stream);
cudaError_t Attention(const AttentionOperands<float>& operands, const AttentionWorkView& work,
                      cudaStream_t stream);

}  // namespace neurogrid::kernels
