// The bench verb: prompt processing, single-stream decoding and batches, next to what the machine
// can do.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "common/status.h"
#include "coordinator/command_line.h"
#include "engine/batch.h"

namespace neurogrid {

/// What is measured: a stage that holds the whole model, and the machine under it.
struct BenchTarget {
  std::string model;
  std::string precision;
  std::string device;
  int threads = 0;
  int64_t weight_bytes_per_step =
      0;                        // read once a step: layers, and the head when rows are sampled
  int64_t parameters_body = 0;  // of the layers' matmuls
  int64_t parameters_head = 0;
  int64_t kv_bytes_per_token = 0;
  BatchLimits limits;
  std::function<absl::StatusOr<std::vector<SampledToken>>(const Batch&)> run;
  struct Floor {
    double read_bandwidth = 0;  // bytes per second
    double matmul_rate = 0;     // operations per second
  };
  std::function<Floor()> floor;  // of the machine, measured now
};

/// One measured case. Times are medians over the rounds; floors are measured in the same rounds.
struct BenchResult {
  std::string name;  // "prefill", "decode", "batch"
  int sequences = 0;
  int tokens = 0;  // processed in one timed run
  double tokens_per_s = 0;
  double tokens_per_s_min = 0;
  double tokens_per_s_max = 0;
  double bytes_per_s = 0;       // weights and cache read
  double read_share = 0;        // of the raw read bandwidth
  double operations_per_s = 0;  // matmuls
  double matmul_share = 0;      // of the dot-product peak
};

/// Runs every case and prints each as it is done: a table, or one JSON object a line.
absl::StatusOr<std::vector<BenchResult>> RunBench(const BenchTarget& target,
                                                  const BenchOptions& options);

}  // namespace neurogrid
