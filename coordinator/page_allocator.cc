// Reference counts, the list of cached pages, and the hashes that name them.
#include "coordinator/page_allocator.h"

#include <array>
#include <bit>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace neurogrid {
namespace {

template <typename T>
absl::string_view Bytes(const T* data, size_t count) {
  return {reinterpret_cast<const char*>(data), count * sizeof(T)};
}

static_assert(std::endian::native == std::endian::little, "ids are hashed as they lie in memory");

}  // namespace

PageHash PrefixRoot(absl::string_view model_digest, absl::string_view tenant,
                    absl::string_view salt) {
  // Lengths first: ("ab", "c") and ("a", "bc") are different roots.
  return Sha256Of(absl::StrCat(model_digest.size(), ":", model_digest, tenant.size(), ":", tenant,
                               salt.size(), ":", salt));
}

PageHash HashOfPage(const PageHash& parent, absl::Span<const int32_t> ids) {
  NG_CHECK(ids.size() == kPageTokens);
  std::array<char, sizeof(PageHash) + kPageTokens * sizeof(int32_t)> message;
  std::memcpy(message.data(), parent.data(), parent.size());
  std::memcpy(message.data() + parent.size(), ids.data(), ids.size() * sizeof(int32_t));
  return Sha256Of(Bytes(message.data(), message.size()));
}

PageAllocator::PageAllocator(int pages) : entries_(static_cast<size_t>(pages)) {
  free_.reserve(entries_.size());
  for (int32_t page = pages; page-- > 0;) free_.push_back(page);
}

std::optional<int32_t> PageAllocator::Allocate() {
  if (free_.empty()) {
    if (oldest_ < 0) return std::nullopt;
    const int32_t victim = oldest_;
    Unlink(victim);
    Forget(victim);
    free_.push_back(victim);
  }
  const int32_t page = free_.back();
  free_.pop_back();
  NG_CHECK(entries_[page].references == 0);
  entries_[page].references = 1;
  return page;
}

void PageAllocator::Retain(int32_t page) {
  Entry& entry = entries_[page];
  NG_CHECK(entry.references > 0 || entry.published);
  if (entry.references++ == 0) Unlink(page);
}

void PageAllocator::Release(int32_t page) {
  Entry& entry = entries_[page];
  NG_CHECK(entry.references > 0);
  if (--entry.references > 0) return;
  if (entry.published) {
    Append(page);
    return;
  }
  free_.push_back(page);
}

void PageAllocator::Publish(int32_t page, const PageHash& hash) {
  Entry& entry = entries_[page];
  NG_CHECK(entry.references > 0);
  NG_CHECK(!entry.published);
  if (!published_.try_emplace(hash, page).second) return;
  entry.published = true;
  entry.hash = hash;
}

int32_t PageAllocator::Find(const PageHash& hash) const {
  const auto found = published_.find(hash);
  return found == published_.end() ? -1 : found->second;
}

void PageAllocator::Unlink(int32_t page) {
  Entry& entry = entries_[page];
  (entry.before < 0 ? oldest_ : entries_[entry.before].after) = entry.after;
  (entry.after < 0 ? newest_ : entries_[entry.after].before) = entry.before;
  entry.before = entry.after = -1;
  --cached_;
}

void PageAllocator::Append(int32_t page) {
  Entry& entry = entries_[page];
  entry.before = newest_;
  entry.after = -1;
  (newest_ < 0 ? oldest_ : entries_[newest_].after) = page;
  newest_ = page;
  ++cached_;
}

void PageAllocator::Forget(int32_t page) {
  Entry& entry = entries_[page];
  NG_CHECK(entry.published);
  published_.erase(entry.hash);
  entry.published = false;
}

}  // namespace neurogrid
