// The emulated CUDA device of a test.
#pragma once

#include <catch2/catch_test_macros.hpp>
#include <functional>
#include <memory>
#include <string>

#include "engine/cuda/cuda_device.h"
#include "tests/simt/emulator/control.h"

namespace neurogrid {

inline std::unique_ptr<Device> Cuda() {
  simt::TakeFailure();  // of an earlier test
  auto device = CudaDevice::Open(0);
  INFO(device.status().ToString());
  REQUIRE(device.ok());
  return *std::move(device);
}

/// Another order of threads for each model.
inline void SeedFor(const std::string& model) {
  simt::SetSeed(std::hash<std::string>()(model) % 1000);
}

}  // namespace neurogrid
