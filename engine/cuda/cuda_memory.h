// Memory of a CUDA device and of the host beside it.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <utility>

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
  /// Managed memory that stays where it is put: on device `place`, or for cudaCpuDeviceId on the
  /// host, where device `reader` reads it from.
  static absl::StatusOr<CudaBuffer> AllocateManaged(int64_t bytes, int place, int reader);
  ~CudaBuffer() override { cudaFree(data_); }
  CudaBuffer(CudaBuffer&& other) noexcept { *this = std::move(other); }
  CudaBuffer& operator=(CudaBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(bytes_, other.bytes_);
    std::swap(on_host_, other.on_host_);
    return *this;
  }

  void* data() const override { return data_; }
  int64_t bytes() const override { return bytes_; }
  /// Whether the processor fills it itself.
  bool on_host() const { return on_host_; }
  template <typename T>
  T* as() const {
    return static_cast<T*>(data_);
  }

 private:
  void* data_ = nullptr;
  int64_t bytes_ = 0;
  bool on_host_ = false;
};

/// Where a device's weights and caches come from: its own memory, or managed memory. Of that,
/// weights that the device has no room for stay on the host, and every step reads them over the
/// bus; caches are the device's as far as they fit, and move page by page where they do not.
class CudaHeap {
 public:
  /// The device's own.
  CudaHeap() = default;
  /// FailedPrecondition where the device cannot read what the processor may write.
  static absl::StatusOr<CudaHeap> Managed(int ordinal);

  absl::StatusOr<CudaBuffer> Allocate(int64_t bytes) const;
  absl::StatusOr<CudaBuffer> AllocateWeights(int64_t bytes) const;

 private:
  int managed_device_ = -1;  // -1: own memory
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

/// The way to the device in two pinned blocks: one is filled while the device reads the other.
class Staging {
 public:
  Staging() = default;
  ~Staging();
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  /// Memory for so many bytes in both blocks, so that Next allocates nothing up to there.
  absl::Status Reserve(int64_t bytes);
  /// A block of at least `bytes`, once the device has read what it was sent from there.
  absl::StatusOr<uint8_t*> Next(int64_t bytes);
  /// Queues a copy of the first `bytes` of the block that Next gave: Copy and Sent.
  absl::Status Send(void* to, int64_t bytes, cudaStream_t stream);

  static constexpr int kBlocks = 2;
  /// The block that Next gave.
  int block() const { return at_; }
  /// Queues a copy of the first `bytes` of a block, here or where steps are recorded.
  absl::Status Copy(int block, void* to, int64_t bytes, cudaStream_t stream) const;
  /// The device has read the block that Next gave when all that is queued up to here has ended.
  absl::Status Sent(cudaStream_t stream);

 private:
  struct Block {
    PinnedBuffer memory;
    cudaEvent_t read = nullptr;  // by the device
    bool sent = false;
  };
  static absl::Status Grow(Block& block, int64_t bytes);

  Block blocks_[kBlocks];
  int at_ = 0;
};

}  // namespace neurogrid
