// The tree is described in the kernel's Documentation/ABI/stable/sysfs-devices-node.
#include "common/memory_nodes.h"

#include <sched.h>

#include <fstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"

namespace neurogrid {
namespace {

/// "0-3,8-11"; what is no such list is empty.
std::vector<int> ListIn(const std::string& path) {
  std::ifstream file(path);
  std::string text;
  std::getline(file, text);
  std::vector<int> numbers;
  for (const absl::string_view range : absl::StrSplit(text, ',', absl::SkipWhitespace())) {
    const std::vector<absl::string_view> ends = absl::StrSplit(range, '-');
    int first = 0;
    int last = 0;
    if (!absl::SimpleAtoi(ends.front(), &first) || !absl::SimpleAtoi(ends.back(), &last) ||
        first < 0 || last >= CPU_SETSIZE) {
      return {};
    }
    for (int number = first; number <= last; ++number) numbers.push_back(number);
  }
  return numbers;
}

}  // namespace

std::vector<std::vector<int>> ProcessorsByNode(const std::string& root) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return {};
  const std::string tree = root + "/sys/devices/system/node/";
  std::vector<std::vector<int>> nodes;
  for (const int node : ListIn(tree + "online")) {
    std::vector<int> processors = ListIn(absl::StrCat(tree, "node", node, "/cpulist"));
    std::erase_if(processors, [&](int processor) { return !CPU_ISSET(processor, &allowed); });
    if (!processors.empty()) nodes.push_back(std::move(processors));
  }
  return nodes;
}

}  // namespace neurogrid
