#include "coordinator/page_allocator.h"

#include <catch2/catch_test_macros.hpp>
#include <numeric>
#include <set>
#include <vector>

namespace neurogrid {
namespace {

std::vector<int32_t> Page(int32_t first) {
  std::vector<int32_t> ids(kPageTokens);
  std::iota(ids.begin(), ids.end(), first);
  return ids;
}

std::vector<PageHash> Chain(const PageHash& root, std::vector<std::vector<int32_t>> pages) {
  std::vector<PageHash> chain;
  for (const auto& ids : pages)
    chain.push_back(HashOfPage(chain.empty() ? root : chain.back(), ids));
  return chain;
}

/// How many of the chain's pages are there, from the first on.
int Found(const PageAllocator& pages, const std::vector<PageHash>& chain) {
  int count = 0;
  while (count < static_cast<int>(chain.size()) && pages.Find(chain[count]) >= 0) ++count;
  return count;
}

/// The first `count` pages of the chain, each with one more reference.
std::vector<int32_t> Take(PageAllocator& pages, const std::vector<PageHash>& chain, int count) {
  std::vector<int32_t> taken;
  for (int i = 0; i < count; ++i) {
    taken.push_back(pages.Find(chain[i]));
    pages.Retain(taken.back());
  }
  return taken;
}

const PageHash kRoot = PrefixRoot("model", "tenant", "salt");

TEST_CASE("a page's name holds its parent's, so equal tokens after other tokens are another page",
          "[pages][R49]") {
  const auto one = Chain(kRoot, {Page(0), Page(100)});
  const auto other = Chain(kRoot, {Page(50), Page(100)});
  CHECK(one[1] != other[1]);

  PageAllocator pages(2);
  for (int i = 0; i < 2; ++i) pages.Publish(*pages.Allocate(), one[i]);
  CHECK(Found(pages, one) == 2);
  CHECK(Found(pages, other) == 0);
}

TEST_CASE("models, tenants and salts never share a page", "[pages][R50]") {
  std::set<PageHash> names;
  for (const char* model : {"m", "n"}) {
    for (const char* tenant : {"", "a", "ab"}) {
      for (const char* salt : {"", "b", "bc"}) {
        names.insert(HashOfPage(PrefixRoot(model, tenant, salt), Page(0)));
      }
    }
  }
  CHECK(names.size() == 18);
}

TEST_CASE("a page is handed out once until its last holder lets go", "[pages]") {
  PageAllocator pages(2);
  const int32_t a = *pages.Allocate();
  const int32_t b = *pages.Allocate();
  CHECK(a != b);
  CHECK(!pages.Allocate().has_value());
  pages.Retain(a);
  pages.Release(a);
  CHECK(!pages.Allocate().has_value());
  CHECK(pages.held() == 2);
  pages.Release(a);
  CHECK(pages.free() == 1);
  CHECK(*pages.Allocate() == a);
}

TEST_CASE("a published page stays until its place is needed", "[pages]") {
  PageAllocator pages(3);
  const auto chain = Chain(kRoot, {Page(0), Page(16), Page(32)});
  std::vector<int32_t> held;
  for (const PageHash& hash : chain) {
    held.push_back(*pages.Allocate());
    pages.Publish(held.back(), hash);
  }
  for (size_t i = held.size(); i-- > 0;) pages.Release(held[i]);
  CHECK(pages.free() == 0);
  CHECK(pages.cached() == 3);
  CHECK(pages.held() == 0);

  SECTION("and comes back by its name") {
    CHECK(Found(pages, chain) == 3);
    CHECK(Take(pages, chain, 2) == std::vector<int32_t>{held[0], held[1]});
    CHECK(pages.cached() == 1);
    CHECK(pages.held() == 2);
    CHECK(pages.references(held[0]) == 1);
  }
  SECTION("the tail is given away first, so that what is left is a beginning") {
    CHECK(*pages.Allocate() == held[2]);
    CHECK(Found(pages, chain) == 2);
    CHECK(*pages.Allocate() == held[1]);
    CHECK(Found(pages, chain) == 1);
    CHECK(*pages.Allocate() == held[0]);
    CHECK(Found(pages, chain) == 0);
    CHECK(!pages.Allocate().has_value());
  }
  SECTION("what was used last is given away last") {
    const std::vector<int32_t> again = Take(pages, chain, 3);
    pages.Release(again[0]);
    pages.Release(again[2]);
    CHECK(*pages.Allocate() == again[0]);
    CHECK(*pages.Allocate() == again[2]);
    CHECK(!pages.Allocate().has_value());
  }
}

TEST_CASE("of two pages with the same content one has the name, the other stays private",
          "[pages]") {
  PageAllocator pages(2);
  const auto chain = Chain(kRoot, {Page(0)});
  const int32_t a = *pages.Allocate();
  const int32_t b = *pages.Allocate();
  pages.Publish(a, chain[0]);
  pages.Publish(b, chain[0]);
  CHECK(!pages.published(b));
  pages.Release(b);
  CHECK(pages.free() == 1);
  CHECK(Take(pages, chain, 1) == std::vector<int32_t>{a});
  CHECK(pages.references(a) == 2);
}

TEST_CASE("a page that is to be written again loses its name", "[pages]") {
  PageAllocator pages(1);
  const auto chain = Chain(kRoot, {Page(0), Page(16)});
  const int32_t page = *pages.Allocate();
  pages.Publish(page, chain[0]);
  pages.Forget(page);
  CHECK(pages.Find(chain[0]) == -1);
  pages.Publish(page, chain[1]);
  CHECK(pages.Find(chain[1]) == page);
  pages.Release(page);
  CHECK(pages.cached() == 1);
}

}  // namespace
}  // namespace neurogrid
