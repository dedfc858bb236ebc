#include "worker/disk.h"

#include <filesystem>
#include <system_error>

namespace neurogrid {

int64_t DiskFreeBytes(const std::string& folder) {
  std::error_code error;
  const std::filesystem::space_info space = std::filesystem::space(folder, error);
  return error ? 0 : static_cast<int64_t>(space.available);
}

}  // namespace neurogrid
