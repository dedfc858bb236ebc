// How many pages a sequence needs, in layers that see everything and in layers with a window.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine/batch.h"

namespace neurogrid {

/// Pages that hold `tokens` tokens.
constexpr int64_t PagesOf(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

/// Window pages that a sequence holds at most while chunks of `rows` tokens follow each other: the
/// window of the chunk's first query, the chunk, and what the first page has too much.
constexpr int64_t WindowPagesMax(int64_t window, int64_t rows) {
  return PagesOf(window + rows) + 1;
}

/// Window pages that `tokens` tokens need at a time.
constexpr int64_t WindowPagesOf(int64_t tokens, int64_t window, int64_t rows) {
  return std::min(PagesOf(tokens), WindowPagesMax(window, rows));
}

}  // namespace neurogrid
