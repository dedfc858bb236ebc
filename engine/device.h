// A compute device: its memory, its speed, its operations.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/types/span.h"
#include "common/status.h"

namespace neurogrid {

class Ops;

struct DeviceReport {
  std::string kind;             // "cpu", "cuda:0"
  std::string name;             // "AMD EPYC 9354", ...
  std::string instruction_set;  // "avx2", "avx512bf16", "sm_90", ...
  int64_t memory_total_bytes = 0;
  int64_t memory_free_bytes = 0;
  int cores = 0;
  double read_bandwidth = 0;  // bytes per second, measured 200 ms at start
  double matmul_rate = 0;     // multiply-adds count 2: operations per second, bf16, measured
  double row_rate = 0;        // as DeviceSpeed's
  double op_seconds = 0;      // as DeviceSpeed's
  // With managed memory: what of the memory above is the host's, for weights alone, and how fast
  // the device reads it.
  int64_t host_memory_bytes = 0;
  double host_bandwidth = 0;  // bytes per second, measured
  // As far as the vendor's management library says.
  std::string uuid = {};
  std::string driver = {};
  double power_limit_w = 0;
  int clock_max_mhz = 0;
};

/// Why a device is slower than it could be.
enum class Throttle { kNone, kPower, kHeat, kHardware };

/// How a device is right now, as far as it can tell.
struct DeviceGauges {
  std::optional<int> temperature_c = {};
  std::optional<double> utilization = {};  // share of the last moments in which it computed
  std::optional<double> power_w = {};
  std::optional<int> clock_mhz = {};
  std::optional<int64_t> memory_used_bytes = {};  // by all processes
  std::optional<Throttle> throttle = {};
  std::optional<int64_t> ecc_errors = {};  // not corrected, since the driver was loaded
};

/// What the machine can do at most, as measured.
struct DeviceSpeed {
  double read_bandwidth = 0;  // bytes per second
  double matmul_rate = 0;     // operations per second, bf16
  // Of decoding steps, whose kernels do not overlap reading and multiplying in full; 0: not known.
  double row_rate = 0;    // operations per second of the rows that some 60 add to a product of one
  double op_seconds = 0;  // that a small operation takes among others
};

/// One weight matrix of a step, and the rows that it is multiplied with.
struct MatMulShape {
  int64_t outputs = 0;
  int64_t inputs = 0;
  int64_t rows = 0;
};

/// What steps are judged by, measured by other means than theirs.
struct DeviceCeilings {
  double read_bandwidth = 0;  // bytes per second
  double copy_bandwidth = 0;  // bytes read and written per second; 0: not known
  double matmul_rate = 0;     // operations per second, bf16
};

class Device {
 public:
  virtual ~Device() = default;
  virtual Ops& ops() = 0;
  /// Measures now, about 250 ms; zeros when there is no memory to measure with.
  virtual DeviceSpeed MeasureSpeed() = 0;
  /// Measures now, some 100 ms.
  virtual absl::StatusOr<DeviceCeilings> MeasureCeilings();
  /// Seconds that the vendor's library takes for these products in bf16, one after the other, on
  /// random numbers. Unimplemented, saying why, where there is none.
  virtual absl::StatusOr<double> LibrarySeconds(absl::Span<const MatMulShape> shapes);
  /// From here on products may add in any order where that is faster: their bits then depend on the
  /// number of rows. Before any weights are loaded. Unimplemented where there is one order only.
  virtual absl::Status AllowAnyOrder();
  /// OK, or why the device answers no more, in its own words: whatever it holds is lost, and only
  /// another process may get it back.
  virtual absl::Status Health() { return absl::OkStatus(); }
  /// Versions, clocks and temperature as they are now, for whoever reads the figures; or "".
  virtual std::string Condition() { return ""; }
  /// Quick, on any thread, also while the device works.
  virtual DeviceGauges Gauges() const { return {}; }
  /// Measures speed on first call.
  virtual DeviceReport Report() = 0;
};

/// kManaged: weights may lie in the host's memory where a GPU has too little of its own.
enum class DeviceMemory { kOwn, kManaged };

/// `kind`: "cpu", "cuda:N", or "auto": the first GPU of a build with CUDA, else the processor.
/// threads <= 0: one for each core this process may use. FailedPrecondition for managed memory
/// where there is none, InvalidArgument for a processor's.
absl::StatusOr<std::unique_ptr<Device>> MakeDevice(const std::string& kind, int threads,
                                                   DeviceMemory memory = DeviceMemory::kOwn);

}  // namespace neurogrid
