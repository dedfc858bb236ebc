// Builds with CUDA.
#include "engine/cuda/cuda_device.h"
#include "engine/cuda/make_cuda_device.h"

namespace neurogrid {

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(int ordinal,
                                                       const std::optional<HostShare>& host) {
  return CudaDevice::Open(ordinal, {.host = host});
}

}  // namespace neurogrid
