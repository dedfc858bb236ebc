// The CUDA device of a test: emulated, or in a build with CUDA the machine's first GPU.
#pragma once

#include <catch2/catch_test_macros.hpp>
#include <functional>
#include <memory>
#include <string>

#include "engine/cuda/cuda_device.h"
#if defined(NG_SIMT)
#include "tests/simt/emulator/control.h"
#endif

namespace neurogrid {

inline std::unique_ptr<Device> Cuda() {
#if defined(NG_SIMT)
  simt::TakeFailure();  // of an earlier test
#endif
  auto device = CudaDevice::Open(0);
  INFO(device.status().ToString());
  REQUIRE(device.ok());
  return *std::move(device);
}

/// Another order of threads for each model, where there is a choice.
inline void SeedFor([[maybe_unused]] const std::string& model) {
#if defined(NG_SIMT)
  simt::SetSeed(std::hash<std::string>()(model) % 1000);
#endif
}

}  // namespace neurogrid
