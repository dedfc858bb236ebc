// Cuts a batch's rows into tiles: plain host code.
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

}  // namespace neurogrid::kernels
