// out[r, h] = sum over visible j of softmax_j(scale * <q[r, h], k[j]>) v[j], straight from pages.
//
// Positions are taken in splits of 256 from position 0. In a split: all scores, their exact
// maximum, exponentials, their sums for each 64 positions added in order, one chain of products
// with the values; splits merge one by one in order of position (Milakov and Gimelshein 2018,
// Online normalizer calculation). Both ways below follow it, so a row's bits depend on its query
// and its sequence's keys and values alone.
//
//   few rows   an item is (tile of up to 16 rows, split): a block for each item and kv head leaves
//              its state in memory, a second kernel merges. Bound by the bytes of keys and values.
//   more rows  a block for each tile of up to 32 rows and kv head goes through its splits.
// A row of a tile is a query and one of the heads that share its kv head. 128 threads a block; each
// warp scores 64 positions of a split and owns a quarter of head_dim.
//
// Shared memory: up to 95 KiB, for head_dim above 128 155 KiB. f32: one block for each row and
// head; the reference, not fast.
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

/// Rows of one sequence at consecutive positions.
struct AttentionTile {
  int32_t first_row;
  int32_t queries;
  int32_t first_position;
  int32_t first_page;   // place of the sequence's page table in `pages`
  int32_t first_state;  // few rows: of (query 0, first visible split)
  int32_t first_split;
  int32_t splits;
};
inline constexpr int kNoTile = -1;
struct AttentionItem {
  int32_t tile;  // kNoTile: nothing to do
  int32_t split;
};
/// A row whose states are to be merged; no splits: nothing to do.
struct AttentionMerge {
  int32_t row;
  int32_t first_state;
  int32_t splits;
};

/// What a batch's attention is made of; its arrays travel to the device with the batch.
struct AttentionWork {
  std::vector<AttentionTile> few_tiles;
  std::vector<AttentionItem> items;
  std::vector<AttentionMerge> merges;
  std::vector<AttentionTile> more_tiles;
  std::vector<AttentionTile> rows;  // f32: a tile for each row
  int64_t states = 0;
};

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
  return states * query_heads * (head_dim + 2);
}

/// The arrays of a work on the device.
struct AttentionWorkView {
  const AttentionTile* few_tiles;
  const AttentionItem* items;
  const AttentionMerge* merges;
  const AttentionTile* more_tiles;
  const AttentionTile* rows;
  int items_count;
  int merges_count;
  int more_tiles_count;
  int rows_count;
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
  float softcap;  // c > 0: scores become c * tanh(score / c)
  int window;     // keys visible to a query, itself included; 0: all before it
};

cudaError_t Attention(const AttentionOperands<__nv_bfloat16>& operands,
                      const AttentionWorkView& work, cudaStream_t stream);
cudaError_t Attention(const AttentionOperands<float>& operands, const AttentionWorkView& work,
                      cudaStream_t stream);

}  // namespace neurogrid::kernels
