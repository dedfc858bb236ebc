#include "coordinator/hub_partial.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/mapped_file.h"

namespace neurogrid {
namespace {

constexpr size_t kMapBytesMax = 4 << 20;

std::string BytesName(const std::string& blob) { return blob + ".neurogrid.incomplete"; }
std::string MapName(const std::string& blob) { return blob + ".neurogrid.map"; }

absl::Status Failed(absl::string_view what, const std::string& path) {
  const int error = errno;
  const std::string text = absl::StrCat("cannot ", what, " ", path, ": ", std::strerror(error));
  if (error == ENOSPC || error == EDQUOT || error == EFBIG) {
    return absl::ResourceExhaustedError(
        absl::StrCat(text, "; what has arrived is kept: make room and run this again"));
  }
  return absl::FailedPreconditionError(text);
}

int64_t FileBytes(const std::string& path) {
  struct stat info = {};
  return stat(path.c_str(), &info) == 0 ? static_cast<int64_t>(info.st_size) : 0;
}

/// What the map says, unless the file is shorter than that.
ByteRanges RangesThere(const std::string& blob, int64_t size) {
  const absl::StatusOr<std::string> text = ReadSmallFile(MapName(blob), kMapBytesMax);
  if (!text.ok()) return {};
  const std::optional<ByteRanges> ranges = ByteRanges::FromText(*text, size);
  if (!ranges.has_value()) return {};
  const std::vector<ByteRange> missing = ranges->Missing(size, size);
  const bool tail = !missing.empty() && missing.back().end == size;
  const int64_t needed = tail ? missing.back().first : size;
  return FileBytes(BytesName(blob)) >= needed ? *ranges : ByteRanges();
}

}  // namespace

void ByteRanges::Add(ByteRange range) {
  if (range.size() <= 0) return;
  auto at =
      std::lower_bound(ranges_.begin(), ranges_.end(), range,
                       [](const ByteRange& a, const ByteRange& b) { return a.end < b.first; });
  auto last = at;
  for (; last != ranges_.end() && last->first <= range.end; ++last) {
    range.first = std::min(range.first, last->first);
    range.end = std::max(range.end, last->end);
  }
  ranges_.insert(ranges_.erase(at, last), range);
}

int64_t ByteRanges::total() const {
  int64_t bytes = 0;
  for (const ByteRange& range : ranges_) bytes += range.size();
  return bytes;
}

int64_t ByteRanges::prefix() const {
  return ranges_.empty() || ranges_[0].first != 0 ? 0 : ranges_[0].end;
}

std::vector<ByteRange> ByteRanges::Missing(int64_t size, int64_t piece) const {
  std::vector<ByteRange> missing;
  int64_t at = 0;
  const auto upto = [&](int64_t end) {
    for (; at < end; at = std::min(end, at + piece)) {
      missing.push_back({at, std::min(end, at + piece)});
    }
  };
  for (const ByteRange& range : ranges_) {
    upto(range.first);
    at = range.end;
  }
  upto(size);
  return missing;
}

std::string ByteRanges::ToText(int64_t size) const {
  std::string text = absl::StrCat("neurogrid 1 ", size, "\n");
  for (const ByteRange& range : ranges_) absl::StrAppend(&text, range.first, " ", range.end, "\n");
  return text;
}

std::optional<ByteRanges> ByteRanges::FromText(absl::string_view text, int64_t size) {
  const std::string head = absl::StrCat("neurogrid 1 ", size, "\n");
  if (text.substr(0, head.size()) != head || text.back() != '\n') return std::nullopt;
  ByteRanges ranges;
  int64_t before = -1;
  for (const absl::string_view line : absl::StrSplit(text.substr(head.size()), '\n')) {
    if (line.empty()) break;
    const std::vector<absl::string_view> ends = absl::StrSplit(line, ' ');
    ByteRange range;
    if (ends.size() != 2 || !absl::SimpleAtoi(ends[0], &range.first) ||
        !absl::SimpleAtoi(ends[1], &range.end) || range.first <= before ||
        range.end <= range.first || range.end > size) {
      return std::nullopt;
    }
    before = range.end;
    ranges.ranges_.push_back(range);
  }
  return ranges;
}

PartialBlob::PartialBlob(const std::string& blob, int64_t size, int descriptor)
    : blob_(blob), size_(size), descriptor_(descriptor), ranges_(RangesThere(blob, size)) {}

PartialBlob::~PartialBlob() { close(descriptor_); }

absl::StatusOr<std::unique_ptr<PartialBlob>> PartialBlob::Open(const std::string& blob,
                                                               int64_t size) {
  const std::string name = BytesName(blob);
  const int descriptor = open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor < 0) return Failed("create", name);
  return std::unique_ptr<PartialBlob>(new PartialBlob(blob, size, descriptor));
}

int64_t PartialBlob::BytesThere(const std::string& blob, int64_t size) {
  return RangesThere(blob, size).total();
}

absl::Status PartialBlob::Write(int64_t at, absl::string_view bytes) {
  const ByteRange range{at, at + static_cast<int64_t>(bytes.size())};
  while (!bytes.empty()) {
    const ssize_t written = pwrite(descriptor_, bytes.data(), bytes.size(), at);
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return Failed("write", BytesName(blob_));
    bytes.remove_prefix(static_cast<size_t>(written));
    at += written;
  }
  const std::lock_guard lock(mutex_);
  ranges_.Add(range);
  return absl::OkStatus();
}

absl::StatusOr<std::string> PartialBlob::Read(int64_t at, int64_t bytes) const {
  std::string text(static_cast<size_t>(bytes), '\0');
  size_t filled = 0;
  while (filled < text.size()) {
    const ssize_t got = pread(descriptor_, text.data() + filled, text.size() - filled,
                              at + static_cast<int64_t>(filled));
    if (got < 0 && errno == EINTR) continue;
    if (got == 0) errno = ENODATA;
    if (got <= 0) return Failed("read", BytesName(blob_));
    filled += static_cast<size_t>(got);
  }
  return text;
}

ByteRanges PartialBlob::ranges() const {
  const std::lock_guard lock(mutex_);
  return ranges_;
}

absl::Status PartialBlob::Save() {
  const std::string text = ranges().ToText(size_);
  const std::string fresh = MapName(blob_) + ".new";
  std::FILE* file = std::fopen(fresh.c_str(), "we");
  if (file == nullptr) return Failed("create", fresh);
  const bool written = std::fwrite(text.data(), 1, text.size(), file) == text.size();
  const bool closed = std::fclose(file) == 0;
  if (!written || !closed) return Failed("write", fresh);
  if (rename(fresh.c_str(), MapName(blob_).c_str()) != 0) return Failed("rename", fresh);
  return absl::OkStatus();
}

absl::Status PartialBlob::Finish() {
  // A partial file of another size may have left more bytes than the blob has.
  if (ftruncate(descriptor_, size_) != 0) return Failed("cut", BytesName(blob_));
  if (fsync(descriptor_) != 0) return Failed("write", BytesName(blob_));
  if (rename(BytesName(blob_).c_str(), blob_.c_str()) != 0) {
    return Failed("rename", BytesName(blob_));
  }
  unlink(MapName(blob_).c_str());
  return absl::OkStatus();
}

absl::Status PartialBlob::Discard() {
  unlink(MapName(blob_).c_str());
  if (ftruncate(descriptor_, 0) != 0) return Failed("empty", BytesName(blob_));
  const std::lock_guard lock(mutex_);
  ranges_ = {};
  return absl::OkStatus();
}

}  // namespace neurogrid
