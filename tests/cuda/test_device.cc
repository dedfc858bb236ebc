// The columns cuda-emulated and cuda.
#include "tests/engine/test_device.h"

#include <catch2/interfaces/catch_interfaces_capture.hpp>

#include "absl/strings/str_cat.h"
#include "tests/cuda/cuda_support.h"

namespace neurogrid {

#if defined(NG_SIMT)

Column ThisColumn() { return Column::kCudaEmulated; }

std::unique_ptr<Device> TestDevice() {
  static std::string last_test;
  static uint64_t count = 0;
  const std::string test = Catch::getResultCapture().getCurrentTestName();
  if (test != std::exchange(last_test, test)) count = 0;
  // Ascending is no order of a GPU, so 0 is left to DeviceVariants.
  simt::SetSeed(1 + (std::hash<std::string>()(test) + count++) % 1000);
  return Cuda();
}

std::vector<DeviceVariant> DeviceVariants() {
  std::vector<DeviceVariant> variants;
  for (const uint64_t seed : {0, 1, 2}) {
    if (kAddressSanitizer && seed != 0) continue;
    variants.push_back({absl::StrCat("seed ", seed), [=] {
                          simt::SetSeed(seed);
                          return Cuda();
                        }});
  }
  return variants;
}

#else

Column ThisColumn() { return Column::kCuda; }
std::unique_ptr<Device> TestDevice() { return Cuda(); }
std::vector<DeviceVariant> DeviceVariants() { return KernelVariants(); }

#endif

std::vector<DeviceVariant> KernelVariants() { return {{"base", TestDevice}}; }

}  // namespace neurogrid
