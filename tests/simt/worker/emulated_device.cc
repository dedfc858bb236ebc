// The GPU of emulated_worker and emulated_coordinator, our programs over the emulator.
// NG_EMULATED_FAILURE names a kernel whose second run is an illegal access.
#include <cstdlib>

#include "engine/cuda/cuda_device.h"
#include "engine/cuda/make_cuda_device.h"
#include "tests/simt/emulator/control.h"

namespace neurogrid {
namespace {

/// Everything but its speed is that of the device: to measure what is emulated would take minutes.
class EmulatedDevice : public Device {
 public:
  explicit EmulatedDevice(std::unique_ptr<Device> device) : device_(std::move(device)) {}
  Ops& ops() override { return device_->ops(); }
  DeviceSpeed MeasureSpeed() override { return {.read_bandwidth = 1e9, .matmul_rate = 1e9}; }
  absl::Status Health() override { return device_->Health(); }
  DeviceReport Report() override {
    return {.kind = "cuda:0",
            .name = "emulated",
            .instruction_set = "sm_80",
            .memory_total_bytes = int64_t{8} << 30,
            .memory_free_bytes = int64_t{8} << 30,
            .cores = 1,
            .read_bandwidth = 1e9,
            .matmul_rate = 1e9};
  }

 private:
  std::unique_ptr<Device> device_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> MakeCudaDevice(int ordinal,
                                                       const std::optional<HostShare>& host) {
  if (const char* kernel = std::getenv("NG_EMULATED_FAILURE")) simt::FailKernel(kernel, 1);
  NG_ASSIGN_OR_RETURN(std::unique_ptr<Device> device, CudaDevice::Open(ordinal, {.host = host}));
  return std::make_unique<EmulatedDevice>(std::move(device));
}

}  // namespace neurogrid
