// Ids of one kind of memory, the KV cache's pages or the slots of recurrent states: reference
// counts, and reuse by what stands in them.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "common/digest.h"
#include "engine/batch.h"

namespace neurogrid {

/// Names a full page by everything before and in it: SHA-256 over (hash of the page before, 16
/// ids). The first page's parent is PrefixRoot, so model, tenant and salt are in every hash of a
/// chain.
using PageHash = Sha256Digest;

/// Chains of different roots never meet: neither models nor tenants nor salts share pages.
PageHash PrefixRoot(absl::string_view model_digest, absl::string_view tenant,
                    absl::string_view salt);
/// `ids` are the kPageTokens ids of one page.
PageHash HashOfPage(const PageHash& parent, absl::Span<const int32_t> ids);

/// Ids [0, pages). A page, or slot, is free, held (by one or more sequences) or cached: held by
/// nobody, its content named by a hash, given away when no free page is left, least recently
/// released first. A slot's name is that of the page after which its state was taken.
class PageAllocator {
 public:
  explicit PageAllocator(int pages);

  /// A page with one reference; nothing when none is free or cached.
  std::optional<int32_t> Allocate();
  /// One more reference to a page that is held or cached.
  void Retain(int32_t page);
  /// The last reference returns the page: to the cache when it is published, else free.
  /// A sequence releases its last page first, so that the cache loses ends before beginnings.
  void Release(int32_t page);

  /// Names a held page that is full and will not be written again. When another page has the name
  /// already this one stays private.
  void Publish(int32_t page, const PageHash& hash);
  /// Takes the name of a published page away: its holder will write it again.
  void Forget(int32_t page);
  /// The page of this name; -1: it is not there.
  int32_t Find(const PageHash& hash) const;

  int references(int32_t page) const { return entries_[page].references; }
  bool published(int32_t page) const { return entries_[page].published; }
  int pages() const { return static_cast<int>(entries_.size()); }
  int free() const { return static_cast<int>(free_.size()); }
  int cached() const { return cached_; }
  int held() const { return pages() - free() - cached(); }
  /// Pages that Allocate could hand out.
  int available() const { return free() + cached(); }

 private:
  struct Entry {
    int references = 0;
    bool published = false;
    int32_t before = -1;  // in the list of cached pages
    int32_t after = -1;
    PageHash hash{};
  };

  void Unlink(int32_t page);
  void Append(int32_t page);

  std::vector<Entry> entries_;  // [pages]
  std::vector<int32_t> free_;   // a stack
  absl::flat_hash_map<PageHash, int32_t> published_;
  int32_t oldest_ = -1;  // of the cached pages
  int32_t newest_ = -1;
  int cached_ = 0;
};

}  // namespace neurogrid
