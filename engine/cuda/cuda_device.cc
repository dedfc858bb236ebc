#include "engine/cuda/cuda_device.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/log.h"
#include "engine/cuda/cuda_ceilings.h"
#include "engine/cuda/device_errors.h"
#include "engine/cuda/timing.h"
#include "kernels/matmul.h"

namespace neurogrid {
namespace {

using DeviceBf16 = __nv_bfloat16;

/// One row times a matrix of 2 MiB for each multiprocessor, and 32 rows for each times no more than
/// 8 MiB of it: what decoding and prefill are bound by, with our own kernels.
absl::StatusOr<DeviceSpeed> Measure(CudaOps& ops, int multiprocessors) {
  constexpr int kInputs = 2048;
  const int outputs = 512 * std::max(multiprocessors, 1);
  const int tile_outputs = std::min(outputs, kInputs);
  const int rows = 32 * std::max(multiprocessors, 1);
  const int64_t row_bytes = int64_t{2} * kInputs;
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceBuffer> weights,
                      ops.Allocate(outputs * row_bytes));
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceBuffer> x, ops.Allocate(rows * row_bytes));
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceBuffer> y, ops.Allocate(rows * row_bytes));
  // Zeros run faster than anything else would.
  constexpr int kPattern = 0x3c;
  for (const DeviceBuffer* buffer : {weights.get(), x.get()}) {
    NG_RETURN_IF_ERROR(
        CudaStatus(cudaMemsetAsync(buffer->data(), kPattern, static_cast<size_t>(buffer->bytes()),
                                   ops.stream()),
                   "a measurement"));
  }
  const auto multiply = [&](int m, int n) {
    const kernels::Weights w{.data = weights->data(), .outputs = n, .inputs = kInputs};
    const kernels::MatMulOperands operands{y->data(), false, x->data(), m,
                                           kernels::Epilogue::kStore};
    return kernels::MatMul(operands, w, ops.stream());
  };
  NG_ASSIGN_OR_RETURN(const double decode,
                      SecondsOf(ops.stream(), [&] { return multiply(1, outputs); }));
  NG_ASSIGN_OR_RETURN(const double prefill,
                      SecondsOf(ops.stream(), [&] { return multiply(rows, tile_outputs); }));
  return DeviceSpeed{.read_bandwidth = static_cast<double>(outputs * row_bytes) / decode,
                     .matmul_rate = 2.0 * rows * kInputs * tile_outputs / prefill};
}

/// Bytes per second at which one row is multiplied with weights that lie on the host.
absl::StatusOr<double> MeasureHostRead(CudaOps& ops, int ordinal) {
  constexpr int kInputs{2048};
  constexpr int kOutputs{8192};
  constexpr int64_t kRowBytes{2 * kInputs};
  NG_ASSIGN_OR_RETURN(const CudaBuffer weights,
                      CudaBuffer::AllocateManaged(kOutputs * kRowBytes, cudaCpuDeviceId, ordinal));
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceBuffer> x, ops.Allocate(kRowBytes));
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<DeviceBuffer> y, ops.Allocate(int64_t{2} * kOutputs));
  std::memset(weights.data(), 0, static_cast<size_t>(weights.bytes()));
  const kernels::Weights w{.data = weights.data(), .outputs = kOutputs, .inputs = kInputs};
  const kernels::MatMulOperands operands{y->data(), false, x->data(), 1, kernels::Epilogue::kStore};
  NG_ASSIGN_OR_RETURN(const double seconds, SecondsOf(ops.stream(), [&] {
                        return kernels::MatMul(operands, w, ops.stream());
                      }));
  return static_cast<double>(weights.bytes()) / seconds;
}

std::unique_ptr<Nvml> NvmlOf(int ordinal) {
  char bus_id[32] = {};
  if (cudaDeviceGetPCIBusId(bus_id, sizeof(bus_id), ordinal) != cudaSuccess) return nullptr;
  absl::StatusOr<std::unique_ptr<Nvml>> nvml = Nvml::Open(bus_id);
  if (nvml.ok()) return *std::move(nvml);
  LogDebug("cuda:", ordinal, ": ", nvml.status().message());
  return nullptr;
}

/// "580.159.04" of the file that the driver keeps; empty without it.
std::string DriverVersion() {
  std::ifstream file("/proc/driver/nvidia/version");  // its size is not known before it is read
  std::string word;
  while (file >> word) {
    const bool number = word.find_first_not_of("0123456789.") == std::string::npos;
    if (number && absl::StrContains(word, '.')) return word;
  }
  return "";
}

int MultiprocessorsOf(int ordinal) {
  int count = 0;
  cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, ordinal);
  return count;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Device>> CudaDevice::Open(int ordinal, const CudaOptions& options) {
  // Kernels that are loaded when they are first wanted would take their memory from what is free,
  // and planned with, by then. The driver reads this at the first call; the user's own wish stands.
  setenv("CUDA_MODULE_LOADING", "EAGER", /*overwrite=*/0);
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error != cudaSuccess) {
    cudaGetLastError();  // asked and answered: not sticky
    int driver = 0;
    int runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    return NoDeviceStatus(ordinal, error, driver, runtime);
  }
  if (ordinal < 0 || ordinal >= count) {
    return absl::NotFoundError(absl::StrCat("device cuda:", ordinal,
                                            " is asked for; this machine has ", count,
                                            count == 1 ? " GPU" : " GPUs", ", numbered from 0"));
  }
  NG_ASSIGN_OR_RETURN(std::unique_ptr<CudaOps> ops, CudaOps::Open(ordinal, options));
  std::unique_ptr<CudaDevice> device(new CudaDevice(ordinal, options, std::move(ops)));
  device->nvml_ = NvmlOf(ordinal);
  return device;
}

DeviceSpeed CudaDevice::MeasureSpeed() {
  const absl::StatusOr<DeviceSpeed> speed = Measure(*ops_, MultiprocessorsOf(ordinal_));
  if (speed.ok()) return *speed;
  LogWarning("the speed of cuda:", ordinal_, " is unknown: ", speed.status().message());
  return {};
}

absl::StatusOr<Lt*> CudaDevice::Library() {
  if (lt_ == nullptr) {
    NG_ASSIGN_OR_RETURN(lt_, Lt::Open(ops_->stream()));
  }
  return lt_.get();
}

absl::StatusOr<DeviceCeilings> CudaDevice::MeasureCeilings() {
  const int multiprocessors = MultiprocessorsOf(ordinal_);
  NG_ASSIGN_OR_RETURN(DeviceCeilings ceilings, MeasureMemory(ops_->stream(), multiprocessors));
  const absl::StatusOr<Lt*> library = Library();
  absl::StatusOr<double> rate = library.status();
  if (library.ok()) rate = MeasureLtRate(**library, ops_->stream(), multiprocessors);
  if (!rate.ok()) {  // our own kernels are the best that is known, as before sm_80
    NG_ASSIGN_OR_RETURN(const DeviceSpeed speed, Measure(*ops_, multiprocessors));
    rate = speed.matmul_rate;
  }
  ceilings.matmul_rate = *rate;
  return ceilings;
}

absl::StatusOr<double> CudaDevice::LibrarySeconds(absl::Span<const MatMulShape> shapes) {
  NG_ASSIGN_OR_RETURN(Lt * library, Library());
  return MeasureLtChain(*library, ops_->stream(), shapes);
}

absl::Status CudaDevice::AllowAnyOrder() { return ops_->AllowAnyOrder(); }

absl::Status CudaDevice::Health() {
  NG_RETURN_IF_ERROR(ops_->Health());
  // Errors that broke the context are the answer to everything.
  return CudaStatus(cudaStreamSynchronize(ops_->stream()), "the device");
}

std::string CudaDevice::Condition() {
  int driver = 0;
  int runtime = 0;
  cudaDriverGetVersion(&driver);
  cudaRuntimeGetVersion(&runtime);
  std::string condition = absl::StrCat("driver ", DriverVersion(), " for CUDA ",
                                       CudaVersion(driver), ", runtime ", CudaVersion(runtime));
  DeviceReport limits;
  if (nvml_ != nullptr) nvml_->Describe(limits);
  const DeviceGauges now = Gauges();
  if (now.temperature_c) absl::StrAppend(&condition, ", ", *now.temperature_c, " C");
  if (now.power_w) {
    absl::StrAppendFormat(&condition, ", %.0f of %.0f W", *now.power_w, limits.power_limit_w);
  }
  if (now.clock_mhz) {
    absl::StrAppend(&condition, ", ", *now.clock_mhz, " of ", limits.clock_max_mhz, " MHz");
  }
  return condition;
}

DeviceGauges CudaDevice::Gauges() const {
  return nvml_ == nullptr ? DeviceGauges() : nvml_->Gauges();
}

DeviceReport CudaDevice::Measured() {
  DeviceReport report;
  report.kind = absl::StrCat("cuda:", ordinal_);
  cudaDeviceProp properties;
  if (cudaGetDeviceProperties(&properties, ordinal_) == cudaSuccess) {
    report.name = properties.name;
    report.instruction_set = absl::StrCat("sm_", properties.major, properties.minor);
    report.cores = properties.multiProcessorCount;
  }
  const DeviceSpeed speed = MeasureSpeed();
  report.read_bandwidth = speed.read_bandwidth;
  report.matmul_rate = speed.matmul_rate;
  if (host_) {
    const absl::StatusOr<double> bandwidth = MeasureHostRead(*ops_, ordinal_);
    report.host_memory_bytes = bandwidth.ok() ? host_->bytes : 0;
    report.host_bandwidth = bandwidth.value_or(0);
    if (!bandwidth.ok()) {
      LogWarning("cuda:", ordinal_, ": no memory of the host: ", bandwidth.status().message());
    }
  }
  if (nvml_ != nullptr) nvml_->Describe(report);
  return report;
}

DeviceReport CudaDevice::Report() {
  if (!report_) report_ = Measured();
  size_t free_bytes = 0;
  size_t total_bytes = 0;
  if (cudaMemGetInfo(&free_bytes, &total_bytes) == cudaSuccess) {
    report_->memory_free_bytes = static_cast<int64_t>(free_bytes) + report_->host_memory_bytes;
    report_->memory_total_bytes = static_cast<int64_t>(total_bytes) + report_->host_memory_bytes;
  }
  return *report_;
}

}  // namespace neurogrid
