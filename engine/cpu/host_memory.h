// How much memory this process may use: what the machine has, less what a container takes away.
#pragma once

#include <cstdint>
#include <string>

namespace neurogrid {

struct HostMemory {
  int64_t total_bytes = 0;
  int64_t free_bytes = 0;  // without swapping: caches of files count as free
};

/// From /proc/meminfo and the memory limits of the process's control group and those above it,
/// versions 1 and 2. What cannot be read does not limit. `root` stands before every path.
HostMemory ReadHostMemory(const std::string& root = "");

}  // namespace neurogrid
