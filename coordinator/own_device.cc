#include "coordinator/own_device.h"

#include <memory>
#include <vector>

#include "engine/bench/bench.h"
#include "engine/device.h"

namespace neurogrid {

namespace {

absl::StatusOr<std::unique_ptr<Device>> OpenDevice(const Config& config) {
  return MakeDevice(config.device, config.threads,
                    config.managed_memory ? DeviceMemory::kManaged : DeviceMemory::kOwn);
}

}  // namespace

absl::StatusOr<ReportedNode> OwnNode(const Config& config) {
  if (config.device == "none") {
    return absl::FailedPreconditionError("device is none: there is nothing here to plan for");
  }
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, OpenDevice(config));
  if (config.determinism == "off") NG_RETURN_IF_ERROR(device->AllowAnyOrder());
  const DeviceReport report = device->Report();
  ReportedNode node;
  node.id = "local";
  node.device_kind = report.kind;
  node.with_coordinator = true;
  node.memory_total_bytes = report.memory_total_bytes;
  node.memory_free_bytes = report.memory_free_bytes;
  node.read_bandwidth = report.read_bandwidth;
  node.matmul_rate = report.matmul_rate;
  node.row_rate = report.row_rate;
  node.op_seconds = report.op_seconds;
  node.host_memory_bytes = report.host_memory_bytes;
  node.host_bandwidth = report.host_bandwidth;
  return node;
}

absl::Status BenchOwnDevice(const Checkpoint& checkpoint, const std::string& name,
                            const Config& config, const BenchOptions& options) {
  NG_ASSIGN_OR_RETURN(const std::vector<Precision> precisions,
                      BenchPrecisions(config.quantization, !options.synthetic.empty()));
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<Device> device, OpenDevice(config));
  if (config.determinism == "off") NG_RETURN_IF_ERROR(device->AllowAnyOrder());
  for (const Precision precision : precisions) {
    NG_RETURN_IF_ERROR(RunBench(checkpoint, name, precision, *device, options).status());
  }
  return absl::OkStatus();
}

}  // namespace neurogrid
