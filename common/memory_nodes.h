// Which processors are near which memory.
#pragma once

#include <string>
#include <vector>

namespace neurogrid {

/// The processors of each memory node (NUMA) that this process may run on, in ascending order.
/// Nodes without any are left out. Empty where the machine says nothing of nodes. `root`: where
/// /sys is found.
std::vector<std::vector<int>> ProcessorsByNode(const std::string& root = "");

}  // namespace neurogrid
