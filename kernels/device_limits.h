// What the current device has and runs, asked once.
#pragma once

#include <cuda_runtime.h>

namespace neurogrid::kernels {

inline int DeviceAttribute(cudaDeviceAttr attribute) {
  int device = 0;
  int value = 0;
  cudaGetDevice(&device);
  cudaDeviceGetAttribute(&value, attribute, device);
  return value;
}

inline int MultiprocessorCount() {
  static const int count = DeviceAttribute(cudaDevAttrMultiProcessorCount);
  return count > 0 ? count : 1;
}

/// Dynamic shared memory that a block may ask for.
inline int SharedBytesMax() {
  static const int bytes = DeviceAttribute(cudaDevAttrMaxSharedMemoryPerBlockOptin);
  return bytes;
}

/// Ten times the compute capability of the code that the driver took for the current device: at
/// most the device's own, less where this program has nothing newer.
/// cudaErrorNoKernelImageForDevice where it has nothing at all.
cudaError_t AskCodeArchitecture(int* architecture);
/// NG_CUDA_ARCHS of this build.
const char* BuiltArchitectures();

/// AskCodeArchitecture, asked once; 0 without an answer.
int CodeArchitecture();

// What runs where: all choices between architectures are these three.

/// Tensor cores multiply (mma.cuh); before sm_80 multiply-adds do.
inline bool UsesTensorCores() { return CodeArchitecture() >= 80; }
/// A kernel may start before its predecessor has ended (launch.h).
inline bool OverlapsLaunches() { return CodeArchitecture() >= 90; }
/// The kernels of *_sm90.cu run, and give the bits of the others.
inline bool RunsSm90() {
  static const bool is_sm90 = DeviceAttribute(cudaDevAttrComputeCapabilityMajor) == 9 &&
                              DeviceAttribute(cudaDevAttrComputeCapabilityMinor) == 0;
  return is_sm90 && UsesTensorCores();
}

}  // namespace neurogrid::kernels
