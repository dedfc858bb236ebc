// The way from a device's name to a GPU, in builds with CUDA and without.
#pragma once

#include <memory>
#include <optional>

#include "common/status.h"
#include "engine/device.h"

namespace neurogrid {

/// Weights may lie in so much memory of the host.
struct HostShare {
  int64_t bytes = 0;
};

/// GPU `ordinal` of this machine, with managed memory where the host has a share. NotFound without
/// it; Unimplemented in a build without CUDA.
absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(int ordinal,
                                                       const std::optional<HostShare>& host);

}  // namespace neurogrid
