// A GPU as a node reports it.
#pragma once

#include <cstdint>

#include "coordinator/plan_facts.h"

namespace neurogrid {

/// Node "a" with cuda:0: 8 GiB, all of it free, 1 TB/s, 100 Top/s.
inline ReportedNode ReportedGpu() {
  ReportedNode node;
  node.id = "a";
  node.device_kind = "cuda:0";
  node.memory_total_bytes = node.memory_free_bytes = int64_t{8} << 30;
  node.read_bandwidth = 1e12;
  node.matmul_rate = 1e14;
  return node;
}

}  // namespace neurogrid
