#include "engine/cpu/host_memory.h"

#include <algorithm>
#include <fstream>
#include <iterator>
#include <optional>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"

namespace neurogrid {
namespace {

/// Files of /proc and /sys have no size beforehand, so they cannot be mapped. "" when unreadable.
std::string ReadSystemFile(const std::string& path) {
  std::ifstream file(path);
  return std::string(std::istreambuf_iterator<char>(file), {});
}

/// The number after `key` on the line that starts with it: "MemTotal:  8000 kB", "inactive_file
/// 4096".
std::optional<int64_t> Field(const std::string& text, absl::string_view key) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, key)) continue;
    const std::vector<absl::string_view> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    int64_t value = 0;
    if (!words.empty() && absl::SimpleAtoi(words[0], &value)) return value;
  }
  return std::nullopt;
}

std::optional<int64_t> Number(const std::string& path) {
  int64_t value = 0;
  if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(ReadSystemFile(path)), &value)) {
    return std::nullopt;  // absent, or "max"
  }
  return value;
}

/// Applies the limit of one control group, whose files have these names in the two versions.
void ApplyGroup(const std::string& folder, absl::string_view limit_file,
                absl::string_view usage_file, absl::string_view cache_field, HostMemory& memory) {
  const std::optional<int64_t> limit = Number(absl::StrCat(folder, "/", limit_file));
  if (!limit) return;
  const int64_t used = Number(absl::StrCat(folder, "/", usage_file)).value_or(0);
  const int64_t cache =
      Field(ReadSystemFile(absl::StrCat(folder, "/memory.stat")), cache_field).value_or(0);
  memory.total_bytes = std::min(memory.total_bytes, *limit);
  memory.free_bytes = std::min(memory.free_bytes,
                               std::max<int64_t>(0, *limit - std::max<int64_t>(0, used - cache)));
}

/// The group's path, then its parents', down to "".
template <typename Visit>
void ForGroupAndParents(absl::string_view path, Visit visit) {
  while (true) {
    visit(path == "/" ? "" : std::string(path));
    const size_t slash = path.rfind('/');
    if (path.empty() || path == "/" || slash == absl::string_view::npos) return;
    path = path.substr(0, slash);
  }
}

}  // namespace

HostMemory ReadHostMemory(const std::string& root) {
  const std::string meminfo = ReadSystemFile(root + "/proc/meminfo");
  HostMemory memory;
  memory.total_bytes = Field(meminfo, "MemTotal:").value_or(0) * 1024;
  memory.free_bytes = Field(meminfo, "MemAvailable:").value_or(0) * 1024;

  const std::string groups = root + "/sys/fs/cgroup";
  const std::string own_groups = ReadSystemFile(root + "/proc/self/cgroup");
  for (const absl::string_view line : absl::StrSplit(own_groups, '\n')) {
    // "0::/path" in version 2, "9:memory:/path" in version 1.
    const std::vector<absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const bool version_2 = parts[1].empty();
    bool holds_memory = version_2;
    for (const absl::string_view name : absl::StrSplit(parts[1], ',')) {
      holds_memory |= name == "memory";
    }
    if (!holds_memory) continue;
    ForGroupAndParents(parts[2], [&](const std::string& path) {
      if (version_2) {
        ApplyGroup(groups + path, "memory.max", "memory.current", "inactive_file ", memory);
      } else {
        ApplyGroup(groups + "/memory" + path, "memory.limit_in_bytes", "memory.usage_in_bytes",
                   "total_inactive_file ", memory);
      }
    });
  }
  return memory;
}

}  // namespace neurogrid
