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

/// What decoding and prefill are bound by, with our own kernels, on 2 MiB of weights for each
/// multiprocessor: one row times all of them, 32 rows for each multiprocessor times no more than
/// 8 MiB; 64 rows against one times an eighth, another each time so that no cache holds it, in the
/// two shapes of a feed-forward block by turns; and products too small to take time of their own.
class SpeedMeasurement {
 public:
  static absl::StatusOr<DeviceSpeed> Run(CudaOps& ops, int multiprocessors) {
    SpeedMeasurement speed(ops, std::max(multiprocessors, 1));
    NG_RETURN_IF_ERROR(speed.Allocate());
    return speed.Measured();
  }

 private:
  static constexpr int kInputs{2048};
  static constexpr int kLongInputs{4 * kInputs};
  static constexpr int kFewRows{64};
  static constexpr int64_t kRowBytes{2 * kInputs};
  static constexpr int kParts{8};
  static constexpr int kOpOutputs{16};

  SpeedMeasurement(CudaOps& ops, int multiprocessors)
      : ops_(ops), outputs_(512 * multiprocessors), rows_(32 * multiprocessors) {}

  absl::Status Allocate() {
    const int64_t x_bytes = std::max(rows_ * kRowBytes, int64_t{2} * kFewRows * kLongInputs);
    NG_ASSIGN_OR_RETURN(weights_, ops_.Allocate(outputs_ * kRowBytes));
    NG_ASSIGN_OR_RETURN(x_, ops_.Allocate(x_bytes));
    NG_ASSIGN_OR_RETURN(y_, ops_.Allocate(rows_ * kRowBytes));
    // Zeros run faster than anything else would.
    constexpr int kPattern = 0x3c;
    for (const DeviceBuffer* buffer : {weights_.get(), x_.get()}) {
      NG_RETURN_IF_ERROR(
          CudaStatus(cudaMemsetAsync(buffer->data(), kPattern, static_cast<size_t>(buffer->bytes()),
                                     ops_.stream()),
                     "a measurement"));
    }
    return absl::OkStatus();
  }

  absl::StatusOr<DeviceSpeed> Measured() {
    const int tile_outputs = std::min(outputs_, kInputs);
    NG_ASSIGN_OR_RETURN(const double decode, Seconds([&] { return Multiply(1, outputs_); }));
    NG_ASSIGN_OR_RETURN(const double prefill,
                        Seconds([&] { return Multiply(rows_, tile_outputs); }));
    NG_ASSIGN_OR_RETURN(const double one, Seconds([&] { return MultiplyPart(1); }));
    NG_ASSIGN_OR_RETURN(const double few, Seconds([&] { return MultiplyPart(kFewRows); }));
    NG_ASSIGN_OR_RETURN(const double op, OpSeconds());
    const double weights = static_cast<double>(outputs_) * kInputs;
    DeviceSpeed speed;
    speed.read_bandwidth = 2 * weights / decode;
    speed.matmul_rate = 2.0 * rows_ * kInputs * tile_outputs / prefill;
    if (few > one) speed.row_rate = 2 * weights / kParts * (kFewRows - 1) / (few - one);
    speed.op_seconds = op;
    return speed;
  }

  /// Of one of many small products in a graph, as decoding steps are.
  absl::StatusOr<double> OpSeconds() {
    constexpr int kOps = 64;
    cudaError_t error = Multiply(1, kOpOutputs);  // code is loaded now: not while it is captured
    if (error == cudaSuccess) {
      error = cudaStreamBeginCapture(ops_.stream(), cudaStreamCaptureModeThreadLocal);
    }
    NG_RETURN_IF_ERROR(CudaStatus(error, "a measurement"));
    for (int i = 0; i < kOps && error == cudaSuccess; ++i) error = Multiply(1, kOpOutputs);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t runnable = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(ops_.stream(), &graph);
    if (error == cudaSuccess) error = ended;
    if (error == cudaSuccess) error = cudaGraphInstantiate(&runnable, graph, 0);
    if (graph != nullptr) cudaGraphDestroy(graph);
    NG_RETURN_IF_ERROR(CudaStatus(error, "a measurement"));
    const absl::StatusOr<double> seconds =
        Seconds([&] { return cudaGraphLaunch(runnable, ops_.stream()); });
    cudaGraphExecDestroy(runnable);
    NG_RETURN_IF_ERROR(seconds.status());
    return *seconds / kOps;
  }

  template <typename Work>
  absl::StatusOr<double> Seconds(Work work) {
    return SecondsOf(ops_.stream(), work);
  }

  cudaError_t Multiply(int rows, int outputs, int inputs = kInputs, int64_t offset = 0) {
    const kernels::Weights w{.data = static_cast<const char*>(weights_->data()) + offset,
                             .outputs = outputs,
                             .inputs = inputs};
    const kernels::MatMulOperands operands{y_->data(), false, x_->data(), rows,
                                           kernels::Epilogue::kStore};
    return kernels::MatMul(operands, w, ops_.stream());
  }

  cudaError_t MultiplyPart(int rows) {
    const int64_t offset = part_ * (weights_->bytes() / kParts);
    const bool wide = part_ % 2 == 0;
    part_ = (part_ + 1) % kParts;
    const int outputs = outputs_ / kParts;
    return wide ? Multiply(rows, outputs, kInputs, offset)
                : Multiply(rows, outputs * kInputs / kLongInputs, kLongInputs, offset);
  }

  CudaOps& ops_;
  int outputs_;
  int rows_;  // of a prompt
  int part_ = 0;
  std::unique_ptr<DeviceBuffer> weights_;
  std::unique_ptr<DeviceBuffer> x_;
  std::unique_ptr<DeviceBuffer> y_;
};

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
  const absl::StatusOr<DeviceSpeed> speed =
      SpeedMeasurement::Run(*ops_, MultiprocessorsOf(ordinal_));
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
  absl::StatusOr<double> rate = library.ok()
                                    ? MeasureLtRate(**library, ops_->stream(), multiprocessors)
                                    : absl::StatusOr<double>(library.status());
  if (!rate.ok()) {  // our own kernels are the best that is known, as before sm_80
    NG_ASSIGN_OR_RETURN(const DeviceSpeed speed, SpeedMeasurement::Run(*ops_, multiprocessors));
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
  report.row_rate = speed.row_rate;
  report.op_seconds = speed.op_seconds;
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
