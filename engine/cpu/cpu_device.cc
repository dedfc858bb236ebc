#include "engine/cpu/cpu_device.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "common/memory_nodes.h"
#include "engine/cpu/cpu_features.h"
#include "engine/cpu/host_memory.h"
#include "engine/cpu/machine_speed.h"
#include "engine/cuda/make_cuda_device.h"

namespace neurogrid {

DeviceSpeed CpuDevice::MeasureSpeed() { return MeasureSpeedIn(nullptr); }

DeviceSpeed CpuDevice::MeasureSpeedIn(Buffer* buffer) {
  const absl::StatusOr<MachineSpeed> speed = MeasureMachineSpeed(ops_.context(), buffer);
  if (!speed.ok()) {
    LogWarning("the speed of this machine is unknown: ", speed.status().message());
    return {};
  }
  return {speed->read_bandwidth, speed->matmul_rate};
}

DeviceReport CpuDevice::Report() {
  if (!report_) {
    DeviceReport report;
    report.kind = "cpu";
    report.name = CpuName();
    report.instruction_set = std::string(NameOf(ops_.context().instructions));
    report.cores = pool_.threads();
    Buffer measured;
    const DeviceSpeed speed = MeasureSpeedIn(&measured);
    // On one of several memory nodes it may lie far from the thread whose share it becomes.
    if (ProcessorsByNode().size() < 2) ops_.KeepMemory(std::move(measured));
    report.read_bandwidth = speed.read_bandwidth;
    report.matmul_rate = speed.matmul_rate;
    report.row_rate = speed.row_rate;
    report.op_seconds = speed.op_seconds;
    report_ = std::move(report);
  }
  const HostMemory memory = ReadHostMemory();
  report_->memory_total_bytes = memory.total_bytes;
  report_->memory_free_bytes = memory.free_bytes + ops_.kept_bytes();
  return *report_;
}

namespace {

/// What is free on the host, less what it keeps for itself.
std::optional<HostShare> ShareOf(DeviceMemory memory) {
  if (memory == DeviceMemory::kOwn) return std::nullopt;
  constexpr int64_t kKept = int64_t{1} << 30;
  const HostMemory host = ReadHostMemory();
  return HostShare{
      std::max<int64_t>(0, host.free_bytes - std::max<int64_t>(kKept, host.total_bytes / 10))};
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> MakeDevice(const std::string& kind, int threads,
                                                   DeviceMemory memory) {
  constexpr absl::string_view kCuda = "cuda:";
  int ordinal = 0;
  if (absl::StartsWith(kind, kCuda) && absl::SimpleAtoi(kind.substr(kCuda.size()), &ordinal)) {
    return MakeCudaDevice(ordinal, ShareOf(memory));
  }
  if (kind != "cpu" && kind != "auto") {
    return absl::InvalidArgumentError(
        absl::StrCat("device \"", kind, "\" is not known; known are auto, cpu and cuda:N"));
  }
  if (kind == "auto") {
    absl::StatusOr<std::unique_ptr<Device>> gpu = MakeCudaDevice(0, ShareOf(memory));
    if (gpu.ok()) return gpu;
    if (memory == DeviceMemory::kManaged) return gpu.status();
    // A GPU that is here and cannot be used is no reason to say nothing.
    if (!absl::IsNotFound(gpu.status()) && !absl::IsUnimplemented(gpu.status())) {
      LogWarning("the processor computes, for the GPU does not: ", gpu.status().message());
    }
  }
  if (memory == DeviceMemory::kManaged) {
    return absl::InvalidArgumentError(
        absl::StrCat("managed memory is for GPUs, and the device is ", kind));
  }
  constexpr int kThreadsMax = 1024;
  if (threads > kThreadsMax) {
    return absl::InvalidArgumentError(
        absl::StrCat(threads, " threads are asked for; at most ", kThreadsMax, " are taken"));
  }
  NG_ASSIGN_OR_RETURN(const InstructionSet instructions, DetectInstructionSet());
  return std::make_unique<CpuDevice>(threads > 0 ? threads : UsableCores(), instructions);
}

}  // namespace neurogrid
