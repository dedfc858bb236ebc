// What a GPU can do at most, measured by kernels that do nothing else.
#pragma once

#include <chrono>

#include "common/status.h"
#include "engine/cuda/cuda_ops.h"
#include "engine/device.h"

namespace neurogrid {

/// Reads and copies 4 MiB for each multiprocessor, far more than its caches hold. matmul_rate is
/// left to the caller.
absl::StatusOr<DeviceCeilings> MeasureMemory(CudaOps& ops, int multiprocessors);

/// Seconds of one of several runs queued together, the first of them uncounted.
template <typename Run>
absl::StatusOr<double> SecondsOf(cudaStream_t stream, Run run) {
  constexpr int kRuns = 8;
  NG_RETURN_IF_ERROR(CudaStatus(run(), "a measurement"));
  NG_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream), "a measurement"));
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < kRuns; ++i) NG_RETURN_IF_ERROR(CudaStatus(run(), "a measurement"));
  NG_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream), "a measurement"));
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  return elapsed.count() / kRuns;
}

}  // namespace neurogrid
