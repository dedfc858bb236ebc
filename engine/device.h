// A compute device: its memory, its speed, its operations.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "absl/types/span.h"
#include "common/status.h"

namespace neurogrid {

class Ops;

struct DeviceReport {
  std::string kind;             // "cpu", "cuda:0"
  std::string name;             // "AMD EPYC 9354", ...
  std::string instruction_set;  // "avx512bf16", "avx2", "sm_90", ...
  int64_t memory_total_bytes = 0;
  int64_t memory_free_bytes = 0;
  int cores = 0;
  double read_bandwidth = 0;  // bytes per second, measured 200 ms at start
  double matmul_rate = 0;     // multiply-adds count 2: operations per second, bf16, measured
};

/// What the machine can do at most, as measured.
struct DeviceSpeed {
  double read_bandwidth = 0;  // bytes per second
  double matmul_rate = 0;     // operations per second, bf16
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
  /// Measures speed on first call.
  virtual DeviceReport Report() = 0;
};

/// `kind`: "cpu", "cuda:N", or "auto": the first GPU of a build with CUDA, else the processor.
/// threads <= 0: one for each core this process may use.
absl::StatusOr<std::unique_ptr<Device>> MakeDevice(const std::string& kind, int threads);

}  // namespace neurogrid
