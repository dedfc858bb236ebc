#include "common/buffer.h"

#include <sys/mman.h>

#include "absl/strings/str_cat.h"

namespace neurogrid {

absl::StatusOr<Buffer> Buffer::Allocate(size_t bytes) {
  Buffer buffer;
  if (bytes == 0) return buffer;
  void* data = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (data == MAP_FAILED) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot allocate ", bytes, " bytes of memory"));
  }
  madvise(data, bytes, MADV_HUGEPAGE);  // 5 % on packed matvecs; a refusal costs only that.
  buffer.data_ = data;
  buffer.bytes_ = bytes;
  return buffer;
}

void Buffer::Free() {
  if (data_ != nullptr) munmap(data_, bytes_);
}

}  // namespace neurogrid
