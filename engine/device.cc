#include "engine/device.h"

#include "absl/strings/str_cat.h"

namespace neurogrid {

absl::StatusOr<DeviceCeilings> Device::MeasureCeilings() {
  const DeviceSpeed speed = MeasureSpeed();
  return DeviceCeilings{.read_bandwidth = speed.read_bandwidth, .matmul_rate = speed.matmul_rate};
}

absl::StatusOr<double> Device::LibrarySeconds(absl::Span<const MatMulShape>) {
  return absl::UnimplementedError("no vendor's library multiplies on this device");
}

absl::Status Device::AllowAnyOrder() {
  return absl::UnimplementedError(
      absl::StrCat("--determinism off: the ", Report().kind, " has one order of arithmetic"));
}

}  // namespace neurogrid
