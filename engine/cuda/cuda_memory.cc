#include "engine/cuda/cuda_memory.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "kernels/pinned_copy.h"

namespace neurogrid {
namespace {

constexpr int kHostPlace{2};       // cudaMemLocationTypeHost, which CUDA 12.0 does not know
constexpr size_t kRoomShare = 50;  // of a device's memory is left for graphs and what else grows

/// CUDA 13 wants places as structures where CUDA 12 wants numbers.
template <typename Place>
Place PlaceOf(int device) {
  Place place{};
  place.type = static_cast<decltype(place.type)>(
      device == cudaCpuDeviceId ? kHostPlace : cudaMemLocationTypeDevice);
  place.id = device == cudaCpuDeviceId ? 0 : device;
  return place;
}

template <typename Place, typename Number>
cudaError_t Advise(void* data, size_t bytes, cudaMemoryAdvise advice, Number device) {
  if constexpr (requires(Place place) { cudaMemAdvise(data, bytes, advice, place); }) {
    return cudaMemAdvise(data, bytes, advice, PlaceOf<Place>(device));
  } else {
    return cudaMemAdvise(data, bytes, advice, device);
  }
}

template <typename Place, typename Number>
cudaError_t Prefetch(void* data, size_t bytes, Number device) {
  if constexpr (requires(Place place) { cudaMemPrefetchAsync(data, bytes, place, 0, nullptr); }) {
    return cudaMemPrefetchAsync(data, bytes, PlaceOf<Place>(device), 0, nullptr);
  } else {
    return cudaMemPrefetchAsync(data, bytes, device, nullptr);
  }
}

}  // namespace

absl::Status CudaStatus(cudaError_t error, absl::string_view what) {
  if (error == cudaSuccess) return absl::OkStatus();
  const std::string message = absl::StrCat("cuda: ", what, ": ", cudaGetErrorString(error));
  return error == cudaErrorMemoryAllocation ? absl::ResourceExhaustedError(message)
                                            : absl::InternalError(message);
}

absl::StatusOr<CudaBuffer> CudaBuffer::Allocate(int64_t bytes) {
  CudaBuffer buffer;
  const cudaError_t error = cudaMalloc(&buffer.data_, static_cast<size_t>(bytes));
  if (error == cudaErrorMemoryAllocation) cudaGetLastError();  // asked and answered: not sticky
  NG_RETURN_IF_ERROR(CudaStatus(error, absl::StrCat("memory of ", bytes, " bytes")));
  buffer.bytes_ = bytes;
  return buffer;
}

absl::StatusOr<CudaBuffer> CudaBuffer::AllocateManaged(int64_t bytes, int place, int reader) {
  CudaBuffer buffer;
  const std::string what = absl::StrCat("managed memory of ", bytes, " bytes");
  if (bytes == 0) return buffer;
  const auto size = static_cast<size_t>(bytes);
  const cudaError_t error = cudaMallocManaged(&buffer.data_, size);
  if (error == cudaErrorMemoryAllocation) cudaGetLastError();  // asked and answered: not sticky
  NG_RETURN_IF_ERROR(CudaStatus(error, what));
  buffer.bytes_ = bytes;
  buffer.on_host_ = place == cudaCpuDeviceId;
  NG_RETURN_IF_ERROR(CudaStatus(
      Advise<cudaMemLocation>(buffer.data_, size, cudaMemAdviseSetPreferredLocation, place), what));
  NG_RETURN_IF_ERROR(CudaStatus(
      Advise<cudaMemLocation>(buffer.data_, size, cudaMemAdviseSetAccessedBy, reader), what));
  // The host's pages come as the processor fills them.
  if (buffer.on_host_) return buffer;
  NG_RETURN_IF_ERROR(CudaStatus(Prefetch<cudaMemLocation>(buffer.data_, size, place), what));
  NG_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(nullptr), what));
  return buffer;
}

absl::StatusOr<CudaHeap> CudaHeap::Managed(int ordinal) {
  int concurrent = 0;
  NG_RETURN_IF_ERROR(
      CudaStatus(cudaDeviceGetAttribute(&concurrent, cudaDevAttrConcurrentManagedAccess, ordinal),
                 "whether there is managed memory"));
  if (concurrent == 0) {
    return absl::FailedPreconditionError(absl::StrCat(
        "managed memory is asked for, but device cuda:", ordinal,
        " and the processor cannot use it at the same time (it needs Linux and a GPU of sm_60 or "
        "later, and is often switched off in virtual machines)"));
  }
  CudaHeap heap;
  heap.managed_device_ = ordinal;
  return heap;
}

absl::StatusOr<CudaBuffer> CudaHeap::Allocate(int64_t bytes) const {
  if (managed_device_ < 0) return CudaBuffer::Allocate(bytes);
  return CudaBuffer::AllocateManaged(bytes, managed_device_, managed_device_);
}

absl::StatusOr<CudaBuffer> CudaHeap::AllocateWeights(int64_t bytes) const {
  if (managed_device_ < 0) return CudaBuffer::Allocate(bytes);
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  NG_RETURN_IF_ERROR(CudaStatus(cudaMemGetInfo(&free_bytes, &total_bytes), "free memory"));
  const bool fits = static_cast<size_t>(bytes) + total_bytes / kRoomShare <= free_bytes;
  return CudaBuffer::AllocateManaged(bytes, fits ? managed_device_ : cudaCpuDeviceId,
                                     managed_device_);
}

absl::StatusOr<PinnedBuffer> PinnedBuffer::Allocate(int64_t bytes) {
  PinnedBuffer buffer;
  const cudaError_t error = cudaMallocHost(&buffer.data_, static_cast<size_t>(bytes));
  if (error == cudaErrorMemoryAllocation) cudaGetLastError();  // asked and answered: not sticky
  NG_RETURN_IF_ERROR(CudaStatus(error, absl::StrCat("pinned memory of ", bytes, " bytes")));
  buffer.bytes_ = bytes;
  return buffer;
}

Staging::~Staging() {
  for (const Block& block : blocks_) {
    if (block.read != nullptr) cudaEventDestroy(block.read);
  }
}

absl::Status Staging::Grow(Block& block, int64_t bytes) {
  if (block.sent) {
    NG_RETURN_IF_ERROR(CudaStatus(cudaEventSynchronize(block.read), "a copy to the device"));
    block.sent = false;
  }
  if (block.read == nullptr) {
    NG_RETURN_IF_ERROR(
        CudaStatus(cudaEventCreateWithFlags(&block.read, cudaEventDisableTiming), "an event"));
  }
  if (block.memory.bytes() < bytes) {
    const int64_t larger = std::max(bytes, 2 * block.memory.bytes());
    NG_ASSIGN_OR_RETURN(block.memory, PinnedBuffer::Allocate(larger));
  }
  return absl::OkStatus();
}

absl::Status Staging::Reserve(int64_t bytes) {
  for (Block& block : blocks_) NG_RETURN_IF_ERROR(Grow(block, bytes));
  return absl::OkStatus();
}

absl::StatusOr<uint8_t*> Staging::Next(int64_t bytes) {
  at_ ^= 1;
  if (blocks_[at_].memory.bytes() < bytes) NG_RETURN_IF_ERROR(Reserve(bytes));
  NG_RETURN_IF_ERROR(Grow(blocks_[at_], bytes));
  return blocks_[at_].memory.as<uint8_t>();
}

absl::Status Staging::Send(void* to, int64_t bytes, cudaStream_t stream) {
  NG_RETURN_IF_ERROR(Copy(at_, to, bytes, stream));
  return Sent(stream);
}

absl::Status Staging::Copy(int block, void* to, int64_t bytes, cudaStream_t stream) const {
  const PinnedBuffer& memory = blocks_[block].memory;
  NG_CHECK(bytes <= memory.bytes());
  const void* from = memory.as<void>();
  const cudaError_t error =
      kernels::PinnedCopyTakes(to, from, bytes)
          ? kernels::CopyPinned(to, from, bytes, stream)
          : cudaMemcpyAsync(to, from, static_cast<size_t>(bytes), cudaMemcpyHostToDevice, stream);
  return CudaStatus(error, "a copy to the device");
}

absl::Status Staging::Sent(cudaStream_t stream) {
  Block& block = blocks_[at_];
  NG_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(block.read, stream), "a copy to the device"));
  block.sent = true;
  return absl::OkStatus();
}

}  // namespace neurogrid
