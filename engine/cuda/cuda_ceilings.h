// What a GPU can do at most, measured by kernels and a library that are no part of our steps.
#pragma once

#include "absl/types/span.h"
#include "common/status.h"
#include "engine/cuda/lt.h"
#include "engine/device.h"

namespace neurogrid {

/// Reads and copies 4 MiB for each multiprocessor, far more than its caches hold. matmul_rate is
/// left to the caller.
absl::StatusOr<DeviceCeilings> MeasureMemory(cudaStream_t stream, int multiprocessors);

/// Operations per second of one large product of cuBLASLt.
absl::StatusOr<double> MeasureLtRate(Lt& lt, cudaStream_t stream, int multiprocessors);

/// Seconds of these products by cuBLASLt, one after the other, each by the fastest algorithm for
/// its shape; weights lie side by side as a model's do, as far as memory goes.
absl::StatusOr<double> MeasureLtChain(Lt& lt, cudaStream_t stream,
                                      absl::Span<const MatMulShape> shapes);

}  // namespace neurogrid
