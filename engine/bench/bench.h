// Speed of the whole engine as it serves, from a batch to its sampled tokens, beside what the
// device can do at most in the same run.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/status.h"
#include "engine/bench/bench_cases.h"
#include "engine/bench/bench_options.h"
#include "engine/device.h"
#include "engine/model/checkpoint.h"
#include "engine/model/precision.h"

namespace neurogrid {

/// What is measured, and on what.
struct BenchSubject {
  std::string model;
  Precision precision = Precision::kBf16;
  DeviceReport device;
  std::string condition;                // of the device, as Device::Condition says it
  std::string date;                     // UTC
  std::optional<double> foreign_share;  // of the processors' time, while the rounds ran
  int64_t weight_bytes_per_step = 0;
  int64_t cache_bytes_per_token = 0;
  double load_s = 0;         // from files in cache or on disk to weights on the device
  double read_s = 0;         // of it until every page of the files has been seen
  double pack_cpu_s = 0;     // of all processors, in the rest: rounding, ordering, copying
  double touch_cpu_s = 0;    // the system's: memory that is used for the first time
  double first_token_s = 0;  // from the same start to a token after a prompt of one
  int busy_threads = 0;      // beside the second run of each case
  std::string library;       // why there is nothing to compare with; empty: there is
};

struct Spread {
  double median = 0;
  double least = 0;
  double most = 0;
};

/// One measured case: medians over the rounds; shares are of ceilings of the same round.
struct BenchResult {
  BenchCase what;
  Spread tokens_per_s;
  double step_ms = 0;
  double floor_share = 0;        // least possible time / time
  double library_share = 0;      // time of the matmuls by the vendor's library / time; 0: none
  double bytes_per_s = 0;        // weights and cache read
  double read_share = 0;         // of the ceiling
  double operations_per_s = 0;   // matmuls and attention
  double matmul_share = 0;       // of the ceiling
  double host_us_per_step = 0;   // not spent waiting for the device
  double launches_per_step = 0;  // kernels
  Spread busy_cost;              // more time beside busy threads / time
};

/// The slope of the line of least squares through the times of single sequences' tokens by depth;
/// nothing without two depths, or where depth costs nothing.
std::optional<double> SecondsPerTokenBefore(const std::vector<BenchResult>& results);

/// Loads `checkpoint` whole on `device`, runs every case in turn in each round, and prints ceilings
/// and results to stdout: a table, or one JSON object a line.
absl::StatusOr<std::vector<BenchResult>> RunBench(const Checkpoint& checkpoint,
                                                  const std::string& name, Precision precision,
                                                  Device& device, const BenchOptions& options);

/// "int8,bf16" as precisions. "auto" means bf16, then int8, for a synthetic model.
absl::StatusOr<std::vector<Precision>> BenchPrecisions(const std::string& quantization,
                                                       bool synthetic);

}  // namespace neurogrid
