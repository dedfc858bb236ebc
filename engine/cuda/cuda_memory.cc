#include "engine/cuda/cuda_memory.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

constexpr int64_t kAlignment = 256;
constexpr int64_t kChunkBytesMin = int64_t{1} << 18;

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

absl::StatusOr<PinnedBuffer> PinnedBuffer::Allocate(int64_t bytes) {
  PinnedBuffer buffer;
  const cudaError_t error = cudaMallocHost(&buffer.data_, static_cast<size_t>(bytes));
  NG_RETURN_IF_ERROR(CudaStatus(error, absl::StrCat("pinned memory of ", bytes, " bytes")));
  buffer.bytes_ = bytes;
  return buffer;
}

absl::Status StepInputs::Reserve(int64_t bytes) {
  for (const Chunk& chunk : chunks_) {
    if (chunk.host.bytes() >= bytes) return absl::OkStatus();
  }
  Chunk chunk;
  NG_ASSIGN_OR_RETURN(chunk.host, PinnedBuffer::Allocate(bytes));
  NG_ASSIGN_OR_RETURN(chunk.device, CudaBuffer::Allocate(bytes));
  chunks_.push_back(std::move(chunk));
  return absl::OkStatus();
}

void StepInputs::Clear() {
  for (Chunk& chunk : chunks_) chunk.used = 0;
}

const void* StepInputs::PutBytes(const void* bytes, int64_t count, cudaStream_t stream,
                                 absl::Status& status) {
  if (count == 0) return nullptr;
  const auto fits = [&](const Chunk& chunk) { return chunk.used + count <= chunk.host.bytes(); };
  auto chunk = std::find_if(chunks_.begin(), chunks_.end(), fits);
  if (chunk == chunks_.end()) {
    Chunk larger;
    const int64_t size = std::max(2 * count, kChunkBytesMin);
    absl::StatusOr<PinnedBuffer> host = PinnedBuffer::Allocate(size);
    absl::StatusOr<CudaBuffer> device = CudaBuffer::Allocate(size);
    status.Update(host.status());
    status.Update(device.status());
    if (!status.ok()) return nullptr;
    larger.host = *std::move(host);
    larger.device = *std::move(device);
    chunks_.push_back(std::move(larger));
    chunk = chunks_.end() - 1;
  }
  uint8_t* from = chunk->host.as<uint8_t>() + chunk->used;
  uint8_t* to = chunk->device.as<uint8_t>() + chunk->used;
  std::memcpy(from, bytes, static_cast<size_t>(count));
  chunk->used += (count + kAlignment - 1) / kAlignment * kAlignment;
  status.Update(CudaStatus(
      cudaMemcpyAsync(to, from, static_cast<size_t>(count), cudaMemcpyHostToDevice, stream),
      "inputs of a step"));
  return to;
}

}  // namespace neurogrid
