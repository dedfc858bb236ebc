// A blob on its way into the cache: its bytes, and which of them have arrived. Survives the
// process.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/status.h"

namespace neurogrid {

struct ByteRange {
  int64_t first = 0;
  int64_t end = 0;  // one past the last
  int64_t size() const { return end - first; }
  bool operator==(const ByteRange&) const = default;
};

/// Disjoint ranges in order; touching ones are one. Pure.
class ByteRanges {
 public:
  void Add(ByteRange range);
  int64_t total() const;
  /// Bytes from 0 on without a gap.
  int64_t prefix() const;
  /// What lacks of [0, size), in pieces of at most `piece` bytes.
  std::vector<ByteRange> Missing(int64_t size, int64_t piece) const;

  std::string ToText(int64_t size) const;
  /// Nothing when the text was not written by ToText for this size.
  static std::optional<ByteRanges> FromText(absl::string_view text, int64_t size);

 private:
  std::vector<ByteRange> ranges_;
};

/// BLOB.neurogrid.incomplete holds the bytes, BLOB.neurogrid.map the ranges that arrived. The name
/// is our own: another program that found a file with holes under its name for partial files would
/// take it for a beginning.
class PartialBlob {
 public:
  /// Goes on with what an earlier process left. ResourceExhausted when the disk is full.
  static absl::StatusOr<std::unique_ptr<PartialBlob>> Open(const std::string& blob, int64_t size);
  /// Bytes that an earlier process left for this blob.
  static int64_t BytesThere(const std::string& blob, int64_t size);
  ~PartialBlob();
  PartialBlob(const PartialBlob&) = delete;
  PartialBlob& operator=(const PartialBlob&) = delete;

  /// From any thread; two threads never write the same range.
  absl::Status Write(int64_t at, absl::string_view bytes);
  absl::StatusOr<std::string> Read(int64_t at, int64_t bytes) const;
  ByteRanges ranges() const;
  /// Writes the map, so that a later process knows what is here.
  absl::Status Save();
  /// Gives the whole file its final name.
  absl::Status Finish();
  /// Removes what has arrived; writing starts again from nothing.
  absl::Status Discard();

 private:
  PartialBlob(const std::string& blob, int64_t size, int descriptor);

  const std::string blob_;
  const int64_t size_;
  const int descriptor_;
  mutable std::mutex mutex_;
  ByteRanges ranges_;
};

}  // namespace neurogrid
