// One GPU as a device.
#pragma once

#include <optional>

#include "engine/cuda/cuda_ops.h"
#include "engine/device.h"

namespace neurogrid {

class CudaDevice : public Device {
 public:
  /// NotFound without that device, Internal when the runtime cannot open it.
  static absl::StatusOr<std::unique_ptr<Device>> Open(int ordinal);

  Ops& ops() override { return *ops_; }
  DeviceSpeed MeasureSpeed() override;
  absl::StatusOr<DeviceCeilings> MeasureCeilings() override;
  std::string Condition() override;
  DeviceReport Report() override;

 private:
  CudaDevice(int ordinal, std::unique_ptr<CudaOps> ops) : ordinal_(ordinal), ops_(std::move(ops)) {}

  int ordinal_;
  std::unique_ptr<CudaOps> ops_;
  std::optional<DeviceReport> report_;  // measured once; memory is read anew each time
};

}  // namespace neurogrid
