// What the current device has, asked once.
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

}  // namespace neurogrid::kernels
