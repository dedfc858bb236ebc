#include "engine/cuda/device_errors.h"

#include "absl/strings/str_cat.h"
#include "kernels/device_limits.h"

namespace neurogrid {
namespace {

constexpr int kMajor = 1000;
constexpr int kOldestMajor = 7;
constexpr int kOldestMinor = 5;

}  // namespace

std::string CudaVersion(int version) {
  return absl::StrCat(version / kMajor, ".", version % kMajor / 10);
}

absl::Status NoDeviceStatus(int ordinal, cudaError_t error, int driver, int runtime) {
  const std::string asked = absl::StrCat("device cuda:", ordinal, " is asked for; ");
  // A driver runs every program of its major version of CUDA and of earlier ones.
  const std::string needed = absl::StrCat("one for CUDA ", runtime / kMajor, ".0 or later");
  switch (error) {
    case cudaErrorInsufficientDriver:
      if (driver == 0) {
        return absl::NotFoundError(absl::StrCat(
            asked, "this machine has no NVIDIA driver (libcuda.so.1), and this build needs ",
            needed));
      }
      return absl::FailedPreconditionError(
          absl::StrCat(asked, "the NVIDIA driver of this machine is for CUDA ", CudaVersion(driver),
                       ", and this build needs ", needed,
                       ": update the driver, or build with nvcc of CUDA ", driver / kMajor));
    case cudaErrorNoDevice:
      return absl::NotFoundError(absl::StrCat(
          asked, "this machine has an NVIDIA driver, but it shows no GPU (compare nvidia-smi -L)"));
    default:
      return absl::InternalError(
          absl::StrCat(asked, "CUDA cannot be used on this machine: ", cudaGetErrorString(error),
                       " (driver for CUDA ", CudaVersion(driver), ", this build has CUDA ",
                       CudaVersion(runtime), ")"));
  }
}

absl::Status NoCodeStatus(int ordinal, const cudaDeviceProp& properties) {
  const int major = properties.major;
  const int minor = properties.minor;
  const std::string found = absl::StrCat("device cuda:", ordinal, " (", properties.name,
                                         ") is of compute capability ", major, ".", minor, "; ");
  if (major < kOldestMajor || (major == kOldestMajor && minor < kOldestMinor)) {
    return absl::FailedPreconditionError(absl::StrCat(found, "GPUs from 7.5 on are supported"));
  }
  return absl::FailedPreconditionError(
      absl::StrCat(found, "this build has code for NG_CUDA_ARCHS ", kernels::BuiltArchitectures(),
                   " alone: build with -DNG_CUDA_ARCHS=", major, minor, " or native"));
}

}  // namespace neurogrid
