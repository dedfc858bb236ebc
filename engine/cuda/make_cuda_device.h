// The way from a device's name to a GPU, in builds with CUDA and without.
#pragma once

#include <memory>

#include "common/status.h"
#include "engine/device.h"

namespace neurogrid {

/// GPU `ordinal` of this machine. NotFound without it; Unimplemented in a build without CUDA.
absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(int ordinal);

}  // namespace neurogrid
