#include "engine/cuda/cuda_memory.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace neurogrid {
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

absl::StatusOr<PinnedBuffer> PinnedBuffer::Allocate(int64_t bytes) {
  PinnedBuffer buffer;
  const cudaError_t error = cudaMallocHost(&buffer.data_, static_cast<size_t>(bytes));
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
  Block& block = blocks_[at_];
  NG_CHECK(bytes <= block.memory.bytes());
  NG_RETURN_IF_ERROR(
      CudaStatus(cudaMemcpyAsync(to, block.memory.as<void>(), static_cast<size_t>(bytes),
                                 cudaMemcpyHostToDevice, stream),
                 "a copy to the device"));
  NG_RETURN_IF_ERROR(CudaStatus(cudaEventRecord(block.read, stream), "a copy to the device"));
  block.sent = true;
  return absl::OkStatus();
}

}  // namespace neurogrid
