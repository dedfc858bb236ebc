// How much of the processors this process may use at all.
#pragma once

#include <string>

namespace neurogrid {

/// How many processors' time the control groups of this process, or those around them, allow it;
/// infinity where they set no limit. `root`: where /proc and /sys are found.
double CpuQuota(const std::string& root = "");

}  // namespace neurogrid
