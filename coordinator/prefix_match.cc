#include "coordinator/prefix_match.h"

#include <vector>

namespace neurogrid {
namespace {

bool Cached(const PageAllocator& ids, int32_t id) { return ids.references(id) == 0; }

/// How many pages of the chain are there, from the first on.
int Beginning(const PageAllocator& pages, absl::Span<const PageHash> chain) {
  int count = 0;
  while (count < static_cast<int>(chain.size()) && pages.Find(chain[count]) >= 0) ++count;
  return count;
}

}  // namespace

PrefixMatch FindPrefix(const Pools& pools, absl::Span<const PageHash> chain) {
  PrefixMatch match;
  // A state that is found and the one that is written after it are two.
  if (pools.recurrent() && pools.slots.pages() < 2) return match;
  int n = static_cast<int>(chain.size());
  if (pools.pages.pages() > 0) n = Beginning(pools.pages, chain);
  std::vector<int> run(static_cast<size_t>(n) + 1, 0);  // window pages that are there up to here
  if (pools.window > 0) {
    for (int i = 0; i < n; ++i) {
      run[i + 1] = pools.window_pages.Find(chain[i]) >= 0 ? run[i] + 1 : 0;
    }
  }
  const auto window_first = [&](int pages) {
    return static_cast<int>(FirstWindowPage(int64_t{pages} * kPageTokens, pools.window));
  };
  const auto served = [&](int pages) {
    if (pools.window > 0 && run[pages] < pages - window_first(pages)) return false;
    return !pools.recurrent() || pools.slots.Find(chain[pages - 1]) >= 0;
  };
  while (n > 0 && !served(n)) --n;
  match.pages = n;
  if (n == 0) return match;
  for (int i = 0; pools.pages.pages() > 0 && i < n; ++i) {
    match.cached.pages += Cached(pools.pages, pools.pages.Find(chain[i])) ? 1 : 0;
  }
  for (int i = window_first(n); pools.window > 0 && i < n; ++i) {
    match.cached.window_pages +=
        Cached(pools.window_pages, pools.window_pages.Find(chain[i])) ? 1 : 0;
  }
  if (pools.recurrent()) match.cached.slots = Cached(pools.slots, pools.slots.Find(chain[n - 1]));
  return match;
}

}  // namespace neurogrid
