// How fast this machine is, measured: the floor every kernel's figure is put beside.
#pragma once

#include "common/buffer.h"
#include "common/status.h"
#include "engine/cpu/cpu_context.h"

namespace neurogrid {

struct MachineSpeed {
  double read_bandwidth = 0;  // bytes per second: all threads, one stream each, from memory
  double matmul_rate = 0;     // bf16 operations per second, a multiply-add counts 2: all threads
};

/// Reads a buffer of 512 MiB (less where memory is short, and never under 64) for about 200 ms and
/// chains bf16 dot products for about 50 ms. ResourceExhausted without memory for the buffer.
/// `buffer`, where it is not null, gets it: zeros, every page in memory.
absl::StatusOr<MachineSpeed> MeasureMachineSpeed(const CpuContext& cpu, Buffer* buffer = nullptr);

}  // namespace neurogrid
