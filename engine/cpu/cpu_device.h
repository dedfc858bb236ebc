// The processor as a device: its threads, its ops, its measured speed.
#pragma once

#include <optional>

#include "engine/cpu/cpu_ops.h"
#include "engine/cpu/thread_pool.h"
#include "engine/device.h"

namespace neurogrid {

class CpuDevice : public Device {
 public:
  CpuDevice(int threads, InstructionSet instructions) : pool_(threads), ops_(pool_, instructions) {}

  Ops& ops() override { return ops_; }
  DeviceSpeed MeasureSpeed() override;
  DeviceReport Report() override;

 private:
  DeviceSpeed MeasureSpeedIn(Buffer* buffer);

  ThreadPool pool_;
  CpuOps ops_;
  std::optional<DeviceReport> report_;  // measured once; memory is read anew each time
};

}  // namespace neurogrid
