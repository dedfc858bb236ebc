// Memory of a CUDA device and of the host beside it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/status.h"
#include "engine/ops.h"

namespace neurogrid {

/// OK, or what the runtime says of it: ResourceExhausted without memory, else Internal.
absl::Status CudaStatus(cudaError_t error, absl::string_view what);

/// The owner of memory on the current device.
class CudaBuffer : public DeviceBuffer {
 public:
  CudaBuffer() = default;
  static absl::StatusOr<CudaBuffer> Allocate(int64_t bytes);
  ~CudaBuffer() override { cudaFree(data_); }
  CudaBuffer(CudaBuffer&& other) noexcept { *this = std::move(other); }
  CudaBuffer& operator=(CudaBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  void* data() const override { return data_; }
  int64_t bytes() const override { return bytes_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

/// Host memory that copies to and from a device pass through at full speed.
class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  static absl::StatusOr<PinnedBuffer> Allocate(int64_t bytes);
  ~PinnedBuffer() { cudaFreeHost(data_); }
  PinnedBuffer(PinnedBuffer&& other) noexcept { *this = std::move(other); }
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }

  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  int64_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
};

/// The small arrays of a step on their way to the device: each is copied once, from pinned memory
/// that keeps it until the next Clear. Grows when a step needs more than any before.
class StepInputs {
 public:
  absl::Status Reserve(int64_t bytes);
  /// The device has read what was put.
  void Clear();

  /// `values` on the device once the stream gets there; null with an error in `status`.
  template <typename T>
  const T* Put(const std::vector<T>& values, cudaStream_t stream, absl::Status& status) {
    return static_cast<const T*>(
        PutBytes(values.data(), static_cast<int64_t>(values.size() * sizeof(T)), stream, status));
  }
  const void* PutBytes(const void* bytes, int64_t count, cudaStream_t stream, absl::Status& status);

 private:
  struct Chunk {
    PinnedBuffer host;
    CudaBuffer device;
    int64_t used = 0;
  };
  std::vector<Chunk> chunks_;
};

}  // namespace neurogrid
