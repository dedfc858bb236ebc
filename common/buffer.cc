#include "common/buffer.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace neurogrid {

namespace {

constexpr size_t kPageBytes = 4096;
constexpr size_t kReservedBytes = size_t{256} << 20;

/// Null when the system refuses.
void* Map(size_t bytes, int more_flags) {
  void* data =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | more_flags, -1, 0);
  if (data == MAP_FAILED) return nullptr;
  madvise(data, bytes, MADV_HUGEPAGE);  // 5 % on packed matvecs; a refusal costs only that.
  return data;
}

}  // namespace

absl::StatusOr<Buffer> Buffer::Allocate(size_t bytes) {
  if (bytes == 0) return Buffer();
  void* const data = Map(bytes, 0);
  if (data == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot allocate ", bytes, " bytes of memory"));
  }
  return Buffer(data, bytes);
}

void Buffer::Free() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

BufferArena::~BufferArena() { Forget(); }

void BufferArena::Forget() {
  if (left_ > 0) munmap(next_, left_);
  next_ = nullptr;
  left_ = kept_ = 0;
}

void BufferArena::Keep(Buffer zeros) {
  const size_t whole = zeros.bytes_ / kPageBytes * kPageBytes;
  if (whole < zeros.bytes_) return;
  Forget();
  next_ = static_cast<uint8_t*>(std::exchange(zeros.data_, nullptr));
  left_ = kept_ = whole;
}

absl::StatusOr<Buffer> BufferArena::Allocate(size_t bytes) {
  const size_t whole = (bytes + kPageBytes - 1) / kPageBytes * kPageBytes;
  if (bytes == 0 || whole < bytes) return Buffer::Allocate(bytes);
  if (whole > left_) {
    Forget();  // first: what was kept may be what this needs
    const size_t reserved = std::max(whole, kReservedBytes);
    // Addresses beyond what is asked for cost nothing until they are given out and touched.
    void* const data = Map(reserved, reserved > whole ? MAP_NORESERVE : 0);
    if (data == nullptr) return Buffer::Allocate(bytes);
    next_ = static_cast<uint8_t*>(data);
    left_ = reserved;
  }
  Buffer buffer(next_, bytes);
  next_ += whole;
  left_ -= whole;
  kept_ -= std::min(kept_, whole);
  return buffer;
}

}  // namespace neurogrid
