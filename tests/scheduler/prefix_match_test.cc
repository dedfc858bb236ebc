// The longest beginning that every kind of memory can serve, against its definition.
#include "coordinator/prefix_match.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <set>
#include <vector>

#include "common/rng.h"

namespace neurogrid {
namespace {

std::vector<PageHash> ChainOf(int pages) {
  std::vector<PageHash> chain;
  const std::vector<int32_t> ids(kPageTokens, 1);
  for (int i = 0; i < pages; ++i) {
    chain.push_back(HashOfPage(i == 0 ? PrefixRoot("m", "", "") : chain.back(), ids));
  }
  return chain;
}

/// Publishes a random part of the chain; which pages are there, and which of those are cached.
struct Published {
  std::set<int> there;
  std::set<int> cached;

  Published(PageAllocator& ids, const std::vector<PageHash>& chain, uint64_t seed, int gaps_in) {
    if (ids.pages() == 0) return;
    for (int i = 0; i < static_cast<int>(chain.size()); ++i) {
      seed = SplitMix64(seed);
      if (seed % static_cast<uint64_t>(gaps_in) == 0) continue;
      const int32_t id = *ids.Allocate();
      ids.Publish(id, chain[i]);
      there.insert(i);
      if (seed / 64 % 2 == 0) continue;
      ids.Release(id);
      cached.insert(i);
    }
  }
  bool Has(int first, int last) const {
    for (int i = first; i < last; ++i) {
      if (!there.contains(i)) return false;
    }
    return true;
  }
  int64_t Cached(int first, int last) const {
    int64_t count = 0;
    for (int i = first; i < last; ++i) count += cached.contains(i) ? 1 : 0;
    return count;
  }
};

TEST_CASE("what is found is the longest beginning that pages, window and state can serve",
          "[pages][windows][slots]") {
  constexpr int kPages = 12;
  const std::vector<PageHash> chain = ChainOf(kPages);
  for (uint64_t seed = 0; seed < 3000; ++seed) {
    CAPTURE(seed);
    const uint64_t dice = SplitMix64(seed);
    BatchLimits limits;
    const auto kind = dice % 5;
    if (kind != 2) limits.pages = kPages;
    if (kind == 1 || kind == 2 || kind == 4) {
      limits.window_pages = kPages;
      limits.window = 1 + static_cast<int>(dice / 8 % 70);
    }
    if (kind >= 3) limits.slots = kPages;
    Pools pools(limits);
    const Published pages(pools.pages, chain, dice + 1, 9);
    const Published window(pools.window_pages, chain, dice + 2, 3);
    const Published states(pools.slots, chain, dice + 3, 2);
    int longest = 0;
    Stock cached;
    for (int n = 1; n <= kPages; ++n) {
      const auto first = static_cast<int>(std::max(0, 16 * n - limits.window + 1) / 16);
      if (limits.pages > 0 && !pages.Has(0, n)) continue;
      if (limits.window > 0 && !window.Has(first, n)) continue;
      if (limits.slots > 0 && !states.Has(n - 1, n)) continue;
      longest = n;
      cached = {pages.Cached(0, n), limits.window > 0 ? window.Cached(first, n) : 0,
                states.Cached(n - 1, n)};
    }
    const PrefixMatch match = FindPrefix(pools, chain);
    REQUIRE(match.pages == longest);
    REQUIRE(match.cached == cached);
  }
}

}  // namespace
}  // namespace neurogrid
