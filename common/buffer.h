// The owner of a block of host memory: zeroed pages, huge ones where the system allows.
#pragma once

#include <cstddef>
#include <utility>

#include "common/status.h"

namespace neurogrid {

class Buffer {
 public:
  Buffer() = default;
  /// ResourceExhausted when the system cannot give `bytes`. The memory is zero and page-aligned.
  static absl::StatusOr<Buffer> Allocate(size_t bytes);
  ~Buffer() { Free(); }
  Buffer(Buffer&& other) noexcept { *this = std::move(other); }
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  void* data() const { return data_; }
  size_t bytes() const { return bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void Free();
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace neurogrid
