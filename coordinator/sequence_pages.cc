#include "coordinator/sequence_pages.h"

#include <algorithm>

#include "common/check.h"
#include "coordinator/state_slots.h"
#include "coordinator/window_pages.h"

namespace neurogrid {
namespace {

int32_t Allocated(PageAllocator& pages) {
  if (pages.pages() == 0) return -1;
  const std::optional<int32_t> page = pages.Allocate();
  NG_CHECK(page.has_value());
  return *page;
}

int32_t TakeNamed(PageAllocator& ids, const PageHash& hash) {
  const int32_t id = ids.Find(hash);
  NG_CHECK(id >= 0);
  ids.Retain(id);
  return id;
}

int64_t CountPrivate(const PageAllocator& ids, const std::vector<int32_t>& held) {
  return std::count_if(held.begin(), held.end(),
                       [&](int32_t id) { return id >= 0 && ids.references(id) == 1; });
}

void ReleaseFromTail(PageAllocator& ids, std::vector<int32_t>& held) {
  for (; !held.empty(); held.pop_back()) {  // the tail is the first to leave the cache
    if (held.back() >= 0) ids.Release(held.back());
  }
}

}  // namespace

void TakePrefix(Pools& pools, Sequence& sequence, int pages) {
  NG_CHECK(sequence.pages.empty() && sequence.state_slot < 0);
  const int64_t first = FirstWindowPage(int64_t{pages} * kPageTokens, pools.window);
  for (int i = 0; i < pages; ++i) {
    const PageHash& hash = sequence.hashes[i];
    sequence.pages.push_back(pools.pages.pages() > 0 ? TakeNamed(pools.pages, hash) : -1);
    if (pools.window == 0) continue;
    sequence.window_pages.push_back(i < first ? -1 : TakeNamed(pools.window_pages, hash));
  }
  sequence.window_first = pools.window > 0 ? first : 0;
  if (pools.recurrent() && pages > 0) {
    sequence.state_slot = TakeNamed(pools.slots, sequence.hashes[pages - 1]);
  }
}

void SharePages(Pools& pools, const Sequence& leader, int64_t pages, Sequence& choice) {
  choice.pages.assign(leader.pages.begin(), leader.pages.begin() + pages);
  for (const int32_t page : choice.pages) {
    if (page >= 0) pools.pages.Retain(page);
  }
  if (pools.window == 0) return;
  choice.window_first = FirstWindowPage(pages * kPageTokens, pools.window);
  choice.window_pages.assign(static_cast<size_t>(pages), -1);
  for (int64_t i = choice.window_first; i < pages; ++i) {
    choice.window_pages[i] = leader.window_pages[i];
    pools.window_pages.Retain(choice.window_pages[i]);
  }
}

void GrowPages(Pools& pools, Sequence& sequence, int64_t tokens) {
  while (static_cast<int64_t>(sequence.pages.size()) < PagesOf(tokens)) {
    sequence.pages.push_back(Allocated(pools.pages));
    if (pools.window > 0) sequence.window_pages.push_back(Allocated(pools.window_pages));
  }
}

void PublishPages(Pools& pools, Sequence& sequence) {
  if (!sequence.request->asked.use_cache) return;
  const auto ids = absl::MakeConstSpan(sequence.ids);
  for (; sequence.published < sequence.computed / kPageTokens; ++sequence.published) {
    const auto page = static_cast<size_t>(sequence.published);
    if (sequence.hashes.size() <= page) {
      sequence.hashes.push_back(
          HashOfPage(page == 0 ? sequence.request->prefix_root : sequence.hashes[page - 1],
                     ids.subspan(page * kPageTokens, kPageTokens)));
    }
    const PageHash& hash = sequence.hashes[page];
    if (sequence.pages[page] >= 0) pools.pages.Publish(sequence.pages[page], hash);
    if (pools.window > 0) pools.window_pages.Publish(sequence.window_pages[page], hash);
  }
  PublishState(pools, sequence);
}

void FreePastWindow(Pools& pools, Sequence& sequence, int64_t position) {
  if (pools.window == 0) return;
  const int64_t end = std::min<int64_t>(FirstWindowPage(position, pools.window),
                                        static_cast<int64_t>(sequence.window_pages.size()));
  for (; sequence.window_first < end; ++sequence.window_first) {
    pools.window_pages.Release(sequence.window_pages[sequence.window_first]);
    sequence.window_pages[sequence.window_first] = -1;
  }
}

void ReleaseAll(Pools& pools, Sequence& sequence) {
  ReleaseFromTail(pools.pages, sequence.pages);
  ReleaseFromTail(pools.window_pages, sequence.window_pages);
  sequence.window_first = 0;
  ReleaseStates(pools, sequence);
}

Stock PrivatePages(const Pools& pools, const Sequence& sequence) {
  return {CountPrivate(pools.pages, sequence.pages),
          CountPrivate(pools.window_pages, sequence.window_pages), 0};
}

}  // namespace neurogrid
