#include "common/polling.h"

#include <sched.h>

#include "common/cpu_quota.h"

namespace neurogrid {
namespace {

constexpr int kCoresLeast = 8;

}  // namespace

bool Polling::CoresSuffice() {
  cpu_set_t cores;
  return sched_getaffinity(0, sizeof(cores), &cores) == 0 && CPU_COUNT(&cores) >= kCoresLeast &&
         CpuQuota() >= kCoresLeast;
}

}  // namespace neurogrid
