// Small kernels, right and wrong, that show what the emulator finds.
#pragma once

#include <cuda_runtime.h>

#include <catch2/catch_test_macros.hpp>
#include <string>

#include "kernels/launch.h"
#include "kernels/simt.cuh"
#include "tests/kernels/device.h"
#include "tests/simt/emulator/control.h"

namespace neurogrid::kernels {

/// A toy kernel as every kernel begins.
template <typename... Parameters>
void BehindPredecessor(void (*kernel)(Parameters...), Parameters... arguments) {
  WaitForPredecessor();
  kernel(arguments...);
}

/// Runs one block of `threads` and returns what the emulator found, or empty.
template <typename... Parameters, typename... Arguments>
std::string RunBlock(unsigned threads, size_t shared_bytes, void (*kernel)(Parameters...),
                     Arguments... arguments) {
  CHECK(Launch({"Toy", dim3(1), dim3(threads), shared_bytes, nullptr},
               BehindPredecessor<Parameters...>, kernel, arguments...) == cudaSuccess);
  cudaDeviceSynchronize();
  return simt::TakeFailure();
}

}  // namespace neurogrid::kernels
