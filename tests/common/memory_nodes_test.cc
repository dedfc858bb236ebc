// Which processors are near which memory, in trees as the kernel shows them.
#include "common/memory_nodes.h"

#include <sched.h>

#include <catch2/catch_test_macros.hpp>

#include "tests/support/golden.h"

namespace neurogrid {
namespace {

using Nodes = std::vector<std::vector<int>>;

struct Host {
  void Write(const std::string& path, const std::string& text) const {
    folder.Write("sys/devices/system/node/" + path, text);
  }
  Nodes nodes() const { return ProcessorsByNode(folder.path()); }
  TemporaryFolder folder;
};

std::vector<int> Allowed() {
  cpu_set_t set;
  REQUIRE(sched_getaffinity(0, sizeof set, &set) == 0);
  std::vector<int> allowed;
  for (int i = 0; i < CPU_SETSIZE; ++i) {
    if (CPU_ISSET(i, &set)) allowed.push_back(i);
  }
  return allowed;
}

TEST_CASE("a machine that says nothing of memory nodes has none", "[nodes]") {
  CHECK(Host().nodes().empty());
}

TEST_CASE("processors are listed by node, those that this process may run on alone", "[nodes]") {
  const Host host;
  host.Write("online", "0,2-3\n");
  host.Write("node0/cpulist", "\n");  // memory without processors
  host.Write("node2/cpulist", "0-1023\n");
  host.Write("node3/cpulist", "1000-1001,1003\n");
  const Nodes nodes = host.nodes();
  REQUIRE(!nodes.empty());
  CHECK(nodes[0] == Allowed());
  CHECK(nodes.size() == 1);
}

TEST_CASE("a list that is none leaves its node out", "[nodes]") {
  const Host host;
  host.Write("online", "0-1\n");
  host.Write("node0/cpulist", "zero\n");
  host.Write("node1/cpulist", "0-99999999\n");
  CHECK(host.nodes().empty());
}

}  // namespace
}  // namespace neurogrid
