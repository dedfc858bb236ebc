// One GPU as a device.
#pragma once

#include <optional>

#include "engine/cuda/cuda_ops.h"
#include "engine/cuda/lt.h"
#include "engine/device.h"

namespace neurogrid {

class CudaDevice : public Device {
 public:
  /// NotFound without that device, Internal when the runtime cannot open it.
  static absl::StatusOr<std::unique_ptr<Device>> Open(int ordinal, const CudaOptions& options = {});

  Ops& ops() override { return *ops_; }
  DeviceSpeed MeasureSpeed() override;
  absl::StatusOr<DeviceCeilings> MeasureCeilings() override;
  absl::StatusOr<double> LibrarySeconds(absl::Span<const MatMulShape> shapes) override;
  absl::Status AllowAnyOrder() override;
  absl::Status Health() override;
  std::string Condition() override;
  DeviceReport Report() override;

 private:
  CudaDevice(int ordinal, std::unique_ptr<CudaOps> ops) : ordinal_(ordinal), ops_(std::move(ops)) {}

  absl::StatusOr<Lt*> Library();

  int ordinal_;
  std::unique_ptr<CudaOps> ops_;
  std::unique_ptr<Lt> lt_;              // once something is measured with it
  std::optional<DeviceReport> report_;  // measured once; memory is read anew each time
};

}  // namespace neurogrid
