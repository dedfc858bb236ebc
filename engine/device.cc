#include "engine/device.h"

namespace neurogrid {

absl::StatusOr<DeviceCeilings> Device::MeasureCeilings() {
  const DeviceSpeed speed = MeasureSpeed();
  return DeviceCeilings{.read_bandwidth = speed.read_bandwidth, .matmul_rate = speed.matmul_rate};
}

absl::StatusOr<double> Device::LibrarySeconds(absl::Span<const MatMulShape>) {
  return absl::UnimplementedError("no vendor's library multiplies on this device");
}

}  // namespace neurogrid
