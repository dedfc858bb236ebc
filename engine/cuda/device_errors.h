// Why a GPU that was asked for cannot be used, in words that say what to do.
#pragma once

#include <cuda_runtime.h>

#include <string>

#include "common/status.h"

namespace neurogrid {

/// What the count of devices failed with: no driver, an old one, no GPU, or something else.
/// Versions are those of cudaDriverGetVersion (0 without a driver) and cudaRuntimeGetVersion.
absl::Status NoDeviceStatus(int ordinal, cudaError_t error, int driver, int runtime);

/// A GPU that this build has no code for.
absl::Status NoCodeStatus(int ordinal, const cudaDeviceProp& properties);

/// "12.4" of 12040.
std::string CudaVersion(int version);

}  // namespace neurogrid
