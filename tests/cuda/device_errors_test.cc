// A GPU that cannot be used is named, with what to do.
#include "engine/cuda/device_errors.h"

#include <catch2/catch_test_macros.hpp>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "engine/cuda/cuda_device.h"
#include "kernels/device_limits.h"
#include "tests/cuda/cuda_support.h"
#if defined(NG_SIMT)
#include "tests/simt/emulator/simt.h"
#endif

namespace neurogrid {

TEST_CASE("a machine on which CUDA does not start is told why", "[cuda]") {
  const auto message = [](cudaError_t error, int driver, int runtime) {
    return std::string(NoDeviceStatus(1, error, driver, runtime).message());
  };
  CHECK(message(cudaErrorInsufficientDriver, 0, 13000) ==
        "device cuda:1 is asked for; this machine has no NVIDIA driver (libcuda.so.1), and this "
        "build needs one for CUDA 13.0 or later");
  CHECK(message(cudaErrorInsufficientDriver, 12040, 13010) ==
        "device cuda:1 is asked for; the NVIDIA driver of this machine is for CUDA 12.4, and this "
        "build needs one for CUDA 13.0 or later: update the driver, or build with nvcc of CUDA 12");
  CHECK(message(cudaErrorNoDevice, 13000, 12080) ==
        "device cuda:1 is asked for; this machine has an NVIDIA driver, but it shows no GPU "
        "(compare nvidia-smi -L)");
  CHECK(message(cudaErrorUnknown, 12080, 12090) ==
        "device cuda:1 is asked for; CUDA cannot be used on this machine: unknown error (driver "
        "for CUDA 12.8, this build has CUDA 12.9)");
}

TEST_CASE("a device that is not there is refused with the number of those that are", "[cuda]") {
  int count = 0;
  REQUIRE(cudaGetDeviceCount(&count) == cudaSuccess);
  CHECK(absl::IsNotFound(CudaDevice::Open(-1).status()));
  const absl::Status status = CudaDevice::Open(count).status();
  CHECK(absl::IsNotFound(status));
  CHECK(status.message() == absl::StrCat("device cuda:", count, " is asked for; this machine has ",
                                         count, count == 1 ? " GPU" : " GPUs",
                                         ", numbered from 0"));
}

TEST_CASE("a GPU without code in this build is told what to build", "[cuda]") {
  cudaDeviceProp properties{};
  std::strcpy(properties.name, "Quadro K");
  const auto message = [&](int major, int minor) {
    properties.major = major;
    properties.minor = minor;
    return std::string(NoCodeStatus(0, properties).message());
  };
  CHECK(message(6, 1) ==
        "device cuda:0 (Quadro K) is of compute capability 6.1; GPUs from 7.5 on are supported");
  CHECK(message(7, 0) ==
        "device cuda:0 (Quadro K) is of compute capability 7.0; GPUs from 7.5 on are supported");
  CHECK(message(8, 6) == std::string("device cuda:0 (Quadro K) is of compute capability 8.6; this "
                                     "build has code for NG_CUDA_ARCHS ") +
                             kernels::BuiltArchitectures() +
                             " alone: build with -DNG_CUDA_ARCHS=86 or native");
}

#if defined(NG_SIMT)
TEST_CASE("a device opens only where the build has code for it", "[cuda]") {
  const int before = std::exchange(simt::architecture, 61);
  const absl::Status status = CudaDevice::Open(0).status();
  simt::architecture = before;
  CHECK(absl::IsFailedPrecondition(status));
  CHECK(status.message() ==
        "device cuda:0 (emulated) is of compute capability 6.1; GPUs from 7.5 on are supported");
  CHECK(CudaDevice::Open(0).ok());
}
#endif

}  // namespace neurogrid
