// Owners of host memory: zeroed pages, huge ones where the system allows.
#pragma once

#include <cstddef>
#include <cstdint>
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
  friend class BufferArena;
  Buffer(void* data, size_t bytes) : data_(data), bytes_(bytes) {}
  void Free();
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

/// Gives buffers that lie side by side, so that huge pages hold the ends of neighbours too: a
/// buffer of its own has them for whole multiples of 2 MiB alone. Buffers may outlive the arena;
/// one that goes leaves a gap. For one thread at a time.
class BufferArena {
 public:
  BufferArena() = default;
  ~BufferArena();
  BufferArena(const BufferArena&) = delete;
  BufferArena& operator=(const BufferArena&) = delete;

  /// As Buffer::Allocate. The next page is the next buffer's.
  absl::StatusOr<Buffer> Allocate(size_t bytes);

  /// Takes zeros that are in memory already, for the buffers to come: the first touch of a page can
  /// cost far more than a system call, above all where a host has to give it to this machine.
  void Keep(Buffer zeros);
  /// Of what was kept and is not given out yet.
  size_t kept_bytes() const { return kept_; }

 private:
  void Forget();

  // What is left of the addresses reserved last. Pages that nobody touched take no memory.
  uint8_t* next_ = nullptr;
  size_t left_ = 0;
  size_t kept_ = 0;  // of these, in memory already
};

}  // namespace neurogrid
