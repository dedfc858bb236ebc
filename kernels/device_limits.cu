#include "kernels/device_limits.h"

namespace neurogrid::kernels {
namespace {

/// Compiled for what all kernels are compiled for, so it knows.
__global__ void Nothing() {}

}  // namespace

cudaError_t AskCodeArchitecture(int* architecture) {
  cudaFuncAttributes attributes{};
  const cudaError_t error = cudaFuncGetAttributes(&attributes, Nothing);
  *architecture = attributes.ptxVersion;
  return error;
}

const char* BuiltArchitectures() { return NG_BUILT_ARCHS; }

int CodeArchitecture() {
  static const int architecture = [] {
    int value = 0;
    return AskCodeArchitecture(&value) == cudaSuccess ? value : 0;
  }();
  return architecture;
}

}  // namespace neurogrid::kernels
