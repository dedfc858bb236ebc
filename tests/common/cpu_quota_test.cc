// What control groups allow, in trees as the kernel shows them (cgroups(7), cgroup-v2.rst).
#include "common/cpu_quota.h"

#include <catch2/catch_test_macros.hpp>
#include <cmath>

#include "tests/support/golden.h"

namespace neurogrid {
namespace {

struct Host {
  void Write(const std::string& path, const std::string& text) const { folder.Write(path, text); }
  double quota() const { return CpuQuota(folder.path()); }
  TemporaryFolder folder;
};

TEST_CASE("a process in no control group has no limit", "[polling]") {
  CHECK(std::isinf(Host().quota()));
}

TEST_CASE("a container's quota is found at the top of what it sees", "[polling]") {
  const Host host;
  SECTION("with a namespace of its own") { host.Write("proc/self/cgroup", "0::/\n"); }
  SECTION("under the host's path") { host.Write("proc/self/cgroup", "0::/docker/0a1b\n"); }
  host.Write("sys/fs/cgroup/cpu.max", "200000 100000\n");
  CHECK(host.quota() == 2);
}

TEST_CASE("the least quota of a group and those around it holds", "[polling]") {
  const Host host;
  host.Write("proc/self/cgroup", "0::/system.slice/n.service\n");
  host.Write("sys/fs/cgroup/system.slice/n.service/cpu.max", "max 100000\n");
  CHECK(std::isinf(host.quota()));
  host.Write("sys/fs/cgroup/system.slice/cpu.max", "150000 100000\n");
  CHECK(host.quota() == 1.5);
  host.Write("sys/fs/cgroup/system.slice/n.service/cpu.max", "50000 100000\n");
  CHECK(host.quota() == 0.5);
}

TEST_CASE("the first version of control groups names quota and period apart", "[polling]") {
  const Host host;
  host.Write("proc/self/cgroup", "5:memory:/docker/0a\n4:cpu,cpuacct:/docker/0a\n0::/\n");
  std::string at;
  SECTION("by all controllers") { at = "sys/fs/cgroup/cpu,cpuacct/docker/0a/"; }
  SECTION("by its own name, at the top") { at = "sys/fs/cgroup/cpu/"; }
  host.Write(at + "cpu.cfs_period_us", "100000\n");
  host.Write(at + "cpu.cfs_quota_us", "-1\n");
  CHECK(std::isinf(host.quota()));
  host.Write(at + "cpu.cfs_quota_us", "400000\n");
  CHECK(host.quota() == 4);
}

}  // namespace
}  // namespace neurogrid
