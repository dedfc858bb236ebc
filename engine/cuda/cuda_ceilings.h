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

/// Seconds of one of `runs` queued together.
template <typename Run>
absl::StatusOr<double> SecondsOf(cudaStream_t stream, int runs, Run run) {
  const auto start = std::chrono::steady_clock::now();
  for (int i = 0; i < runs; ++i) NG_RETURN_IF_ERROR(CudaStatus(run(), "a measurement"));
  NG_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream), "a measurement"));
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
  return elapsed.count() / runs;
}

/// The same of a device that is warm. Where one run is so slow that starting it does not count, it
/// is not repeated.
template <typename Run>
absl::StatusOr<double> SecondsOf(cudaStream_t stream, Run run) {
  constexpr double kSlow = 0.05;
  NG_RETURN_IF_ERROR(SecondsOf(stream, 1, run).status());
  NG_ASSIGN_OR_RETURN(const double once, SecondsOf(stream, 1, run));
  return once > kSlow ? once : SecondsOf(stream, 8, run);
}

}  // namespace neurogrid
