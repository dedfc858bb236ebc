// Cuts a batch's rows into tiles: plain host code.
#include <algorithm>

#include "kernels/attention.h"
namespace neurogrid::kernels {
namespace {

int FirstSplit(int position, int window) {
  const int first_key = window > 0 && position >= window ? position - window + 1 : 0;
  return first_key / kSplitTokens;
}

AttentionTile TileOf(const AttentionSequence& s, int first, int queries, int window) {
  const int position = s.first_position + first;
  const int first_split = FirstSplit(position, window);
  const int last_split = (position + queries - 1) / kSplitTokens + 1;
  return {s.first_row + first,      queries, position, s.first_page, 0, first_split,
          last_split - first_split, 0};
}

}  // namespace

void AddSequence(const AttentionSequence& s, int group, int window, int64_t states_max,
                 AttentionWork& work) {
  if (s.rows == 0) return;
  const int splits = TileOf(s, 0, s.rows, window).splits;
  const int64_t states = splits > 1 ? static_cast<int64_t>(s.rows) * splits : 0;
  const bool few = s.rows * group <= kFewTileRows && work.states + states <= states_max;
  const int queries_max = (few ? kFewTileRows : kMoreTileRows) / group;
  for (int first = 0; first < s.rows; first += queries_max) {
    const int queries = s.rows - first < queries_max ? s.rows - first : queries_max;
    AttentionTile tile = TileOf(s, first, queries, window);
    if (!few) {
      work.more_tiles.push_back(tile);
      continue;
    }
    tile.first_state = static_cast<int32_t>(work.states);
    tile.first_item = static_cast<int32_t>(work.items.size());
    work.items.insert(work.items.end(), static_cast<size_t>(tile.splits),
                      {static_cast<int32_t>(work.few_tiles.size())});
    for (int i = 0; i < queries && tile.splits > 1; ++i) {
      work.merges.push_back(
          {tile.first_row + i, tile.first_state + i * tile.splits, tile.splits, tile.first_item});
    }
    if (tile.splits > 1) work.states += static_cast<int64_t>(queries) * tile.splits;
    work.few_tiles.push_back(tile);
  }
}

bool WholeHeadsPay(const AttentionWork& work, int kv_heads, int multiprocessors) {
  constexpr double kMoreAtMost = 1.2;  // what cutting heads costs on an H200
  const auto heads = static_cast<int>(work.few_tiles.size()) * kv_heads;
  if (heads <= multiprocessors) return false;  // one block alone does not keep the memory busy
  std::vector<int> splits(static_cast<size_t>(multiprocessors));  // of each one's heads
  for (int head = 0; head < heads; ++head) {
    splits[static_cast<size_t>(head % multiprocessors)] +=
        work.few_tiles[static_cast<size_t>(head / kv_heads)].splits;
  }
  const double mean = static_cast<double>(work.items.size()) * kv_heads / multiprocessors;
  return *std::max_element(splits.begin(), splits.end()) <= kMoreAtMost * mean;
}

}  // namespace neurogrid::kernels
