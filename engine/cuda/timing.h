// How long work on a stream takes.
#pragma once

#include <algorithm>
#include <chrono>

#include "engine/cuda/cuda_memory.h"

namespace neurogrid {

/// Seconds of one of several runs queued together, or of a single one where runs are long. One more
/// comes before them and is not counted.
template <typename Run>
absl::StatusOr<double> SecondsOf(cudaStream_t stream, Run run) {
  constexpr int kRuns = 8;
  constexpr double kLongS = 0.1;
  const auto seconds_of = [&](int runs) -> absl::StatusOr<double> {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < runs; ++i) NG_RETURN_IF_ERROR(CudaStatus(run(), "a measurement"));
    NG_RETURN_IF_ERROR(CudaStatus(cudaStreamSynchronize(stream), "a measurement"));
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    return elapsed.count() / runs;
  };
  NG_ASSIGN_OR_RETURN(const double first, seconds_of(1));
  return seconds_of(first > kLongS ? 1 : kRuns);
}

/// The least of several measurements, one where a measurement is long: a chip that was just hot or
/// idle needs some milliseconds to find its clocks.
template <typename Run>
absl::StatusOr<double> LeastSecondsOf(cudaStream_t stream, Run run) {
  constexpr int kMeasurements = 16;
  constexpr double kLongS = 0.005;
  NG_ASSIGN_OR_RETURN(double least, SecondsOf(stream, run));
  for (int i = 1; i < kMeasurements && least < kLongS; ++i) {
    NG_ASSIGN_OR_RETURN(const double seconds, SecondsOf(stream, run));
    least = std::min(least, seconds);
  }
  return least;
}

}  // namespace neurogrid
