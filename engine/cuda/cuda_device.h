// One GPU as a device.
#pragma once

#include <optional>

#include "engine/cuda/cuda_ops.h"
#include "engine/cuda/lt.h"
#include "engine/cuda/nvml.h"
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
  DeviceGauges Gauges() const override;
  DeviceReport Report() override;

 private:
  CudaDevice(int ordinal, const CudaOptions& options, std::unique_ptr<CudaOps> ops)
      : ordinal_(ordinal), host_(options.host), ops_(std::move(ops)) {}

  DeviceReport Measured();

  absl::StatusOr<Lt*> Library();

  int ordinal_;
  std::optional<HostShare> host_;
  std::unique_ptr<CudaOps> ops_;
  std::unique_ptr<Lt> lt_;              // once something is measured with it
  std::unique_ptr<Nvml> nvml_;          // null where there is none
  std::optional<DeviceReport> report_;  // measured once; memory is read anew each time
};

}  // namespace neurogrid
