// The way of weights to the device.
#pragma once

#include <cuda_runtime.h>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "common/status.h"
#include "engine/cuda/cuda_memory.h"

namespace neurogrid {

/// Threads that split a loop, asleep between loops.
class PackingThreads {
 public:
  using Job = absl::FunctionRef<absl::Status(int64_t)>;

  /// `threads` >= 1 counts the caller of Run.
  explicit PackingThreads(int threads);
  ~PackingThreads();
  PackingThreads(const PackingThreads&) = delete;
  PackingThreads& operator=(const PackingThreads&) = delete;

  /// Runs job(i) for i < count; the first error, after which no more begin.
  absl::Status Run(int64_t count, Job job);

 private:
  void Loop();
  void Work();

  std::mutex mutex_;
  std::condition_variable changed_;
  const Job* job_ = nullptr;  // this and the two below: written while no helper is busy
  int64_t count_ = 0;
  std::atomic<int64_t> next_ = 0;
  absl::Status status_;
  uint64_t runs_ = 0;
  size_t busy_ = 0;  // helpers not yet done with the present run
  bool stopping_ = false;
  std::vector<std::thread> helpers_;
};

/// Two pinned pieces that all matrices of a load share: one is filled, by all threads of the host,
/// while the device reads the other. Nothing is waited for but a piece that is wanted again.
class WeightUpload {
 public:
  /// Fills tile `tile`, which holds zeros. Called from several threads.
  using TilePacker = absl::FunctionRef<absl::Status(int64_t tile, uint8_t* out)>;

  WeightUpload(const CudaHeap& heap, cudaStream_t stream);
  /// Waits until the device has everything.
  ~WeightUpload();
  WeightUpload(const WeightUpload&) = delete;
  WeightUpload& operator=(const WeightUpload&) = delete;

  /// Memory for weights; ResourceExhausted without any.
  absl::StatusOr<CudaBuffer> Allocate(int64_t bytes) const { return heap_.AllocateWeights(bytes); }
  /// Packs all tiles of `to`, one behind the other.
  absl::Status SendTiles(const CudaBuffer& to, int64_t tile_bytes, TilePacker pack);
  /// `values` are copied before this returns.
  absl::Status Send(const CudaBuffer& to, absl::Span<const float> values);

 private:
  CudaHeap heap_;
  cudaStream_t stream_;
  PackingThreads threads_;
  Staging pieces_;
};

}  // namespace neurogrid
