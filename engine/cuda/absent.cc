// Builds without CUDA.
#include "absl/strings/str_cat.h"
#include "engine/cuda/make_cuda_device.h"

namespace neurogrid {

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(int ordinal,
                                                       const std::optional<HostShare>&) {
  return absl::UnimplementedError(absl::StrCat("device cuda:", ordinal,
                                               " is asked for; this build has no CUDA "
                                               "(it needs nvcc of CUDA 12 or later)"));
}

}  // namespace neurogrid
