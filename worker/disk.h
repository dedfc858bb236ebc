// Room on the disk of a folder, for the device report.
#pragma once

#include <cstdint>
#include <string>

namespace neurogrid {

/// 0 when the folder cannot be asked.
int64_t DiskFreeBytes(const std::string& folder);

}  // namespace neurogrid
