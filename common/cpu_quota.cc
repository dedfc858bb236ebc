// Version 2 of control groups: one tree with cpu.max. Version 1: a tree for each controller.
#include "common/cpu_quota.h"

#include <algorithm>
#include <fstream>
#include <limits>
#include <vector>

#include "absl/strings/str_split.h"

namespace neurogrid {
namespace {

constexpr double kNoLimit = std::numeric_limits<double>::infinity();

/// The number in a file of one number; negative: no limit, or no such file.
double NumberIn(const std::string& path) {
  std::ifstream file(path);
  double number = -1;
  return file >> number ? number : -1;
}

/// "max 100000" or "200000 100000": microseconds of each period.
double QuotaOfTwo(const std::string& group) {
  std::ifstream file(group + "/cpu.max");
  double quota = 0;
  double period = 0;
  return file >> quota >> period && period > 0 ? quota / period : kNoLimit;
}

double QuotaOfOne(const std::string& group) {
  const double quota = NumberIn(group + "/cpu.cfs_quota_us");
  const double period = NumberIn(group + "/cpu.cfs_period_us");
  return quota >= 0 && period > 0 ? quota / period : kNoLimit;
}

/// The least of a group and those around it. In a container the path may be the host's, and what is
/// mounted the container's own group alone: then its limits stand at the top.
template <typename Quota>
double LeastAbove(const std::string& mount, std::string path, Quota quota) {
  double least = quota(mount);
  while (path.size() > 1) {
    least = std::min(least, quota(mount + path));
    path.resize(path.rfind('/'));
  }
  return least;
}

}  // namespace

double CpuQuota(const std::string& root) {
  const std::string mounts = root + "/sys/fs/cgroup";
  std::ifstream groups(root + "/proc/self/cgroup");
  double least = kNoLimit;
  for (std::string line; std::getline(groups, line);) {
    const std::vector<std::string> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3 || parts[2].empty() || parts[2][0] != '/') continue;
    const std::vector<std::string> controllers = absl::StrSplit(parts[1], ',');
    if (parts[1].empty()) {
      least = std::min(least, LeastAbove(mounts, parts[2], QuotaOfTwo));
    } else if (std::count(controllers.begin(), controllers.end(), "cpu") > 0) {
      for (const std::string& tree : {parts[1], std::string("cpu")}) {
        least = std::min(least, LeastAbove(mounts + "/" + tree, parts[2], QuotaOfOne));
      }
    }
  }
  return least;
}

}  // namespace neurogrid
