// The device report, and what a container leaves of a machine's memory.
#include "engine/device.h"

#include <sys/mman.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <vector>

#include "common/memory_nodes.h"
#include "engine/cpu/host_memory.h"
#include "engine/ops.h"
#include "tests/support/golden.h"

namespace neurogrid {

TEST_CASE("a processor reports what it is and what it measured", "[device]") {
  auto device = MakeDevice("cpu", 0);
  REQUIRE(device.ok());
  const DeviceReport report = (*device)->Report();
  CHECK(report.kind == "cpu");
  CHECK(!report.name.empty());
  CHECK(!report.instruction_set.empty());
  CHECK(report.cores >= 1);
  CHECK(report.memory_free_bytes > 0);
  CHECK(report.memory_free_bytes <= report.memory_total_bytes);
  CHECK(report.read_bandwidth > 1e8);  // anything that runs AVX2 reads faster than 0.1 GB/s
  CHECK(report.matmul_rate > 1e8);
  CHECK((*device)->Report().read_bandwidth == report.read_bandwidth);  // measured once
}

TEST_CASE("the memory in which speed was measured becomes the first weights'", "[device]") {
  if (ProcessorsByNode().size() > 1) return;  // there each thread touches its own share
  const auto device = MakeDevice("cpu", 2).value();
  device->Report();
  constexpr size_t kBytes = size_t{48} << 20;
  const auto buffer = device->ops().Allocate(kBytes).value();
  constexpr size_t kPage = 4096;
  std::vector<unsigned char> present(kBytes / kPage);
  REQUIRE(mincore(buffer->data(), kBytes, present.data()) == 0);
  CHECK(std::all_of(present.begin(), present.end(), [](unsigned char page) { return page & 1; }));
  const auto* const bytes = static_cast<const uint8_t*>(buffer->data());
  CHECK(std::all_of(bytes, bytes + kBytes, [](uint8_t byte) { return byte == 0; }));
}

TEST_CASE("a device that is not known is named", "[device]") {
  const auto device = MakeDevice("tpu", 0);
  CHECK(device.status().message() == "device \"tpu\" is not known; known are auto, cpu and cuda:N");
}

TEST_CASE("a processor has one order of arithmetic and says so", "[device]") {
  const auto device = MakeDevice("cpu", 1).value();
  const absl::Status status = device->AllowAnyOrder();
  CHECK(status.code() == absl::StatusCode::kUnimplemented);
  CHECK(status.message() == "--determinism off: the cpu has one order of arithmetic");
}

TEST_CASE("a GPU that is not there is named", "[device]") {
  for (const std::string kind : {"cuda:77", "cuda:-1"}) {
    const auto device = MakeDevice(kind, 0);
    REQUIRE(!device.ok());
    CHECK(device.status().message().find("device " + kind) == 0);
  }
  CHECK(MakeDevice("cuda:x", 0).status().code() == absl::StatusCode::kInvalidArgument);
}

TEST_CASE("memory is the machine's, less the limits of the control groups", "[device]") {
  const TemporaryFolder root;
  root.Write("proc/meminfo",
             "MemTotal:       16000000 kB\nMemFree:  1000 kB\nMemAvailable:   12000000 kB\n");
  const auto write_group = [&](const std::string& folder, const std::string& limit) {
    root.Write("sys/fs/cgroup" + folder + "/memory.max", limit + "\n");
    root.Write("sys/fs/cgroup" + folder + "/memory.current", "3000000000\n");
    root.Write("sys/fs/cgroup" + folder + "/memory.stat", "anon 5\ninactive_file 1000000000\n");
  };
  SECTION("none without groups") {
    const HostMemory memory = ReadHostMemory(root.path());
    CHECK(memory.total_bytes == 16'384'000'000);
    CHECK(memory.free_bytes == 12'288'000'000);
  }
  SECTION("the own group's, file caches counted as free") {
    root.Write("proc/self/cgroup", "0::/app/worker\n");
    write_group("/app/worker", "4000000000");
    write_group("/app", "max");
    const HostMemory memory = ReadHostMemory(root.path());
    CHECK(memory.total_bytes == 4'000'000'000);
    CHECK(memory.free_bytes == 2'000'000'000);
  }
  SECTION("a parent's, when it is tighter") {
    root.Write("proc/self/cgroup", "0::/app/worker\n");
    write_group("/app/worker", "9000000000");
    write_group("/app", "5000000000");
    CHECK(ReadHostMemory(root.path()).total_bytes == 5'000'000'000);
    CHECK(ReadHostMemory(root.path()).free_bytes == 3'000'000'000);
  }
  SECTION("a wider one's, when its other groups have filled it") {
    root.Write("proc/self/cgroup", "0::/app/worker\n");
    write_group("/app/worker", "4000000000");
    write_group("/app", "9000000000");
    root.Write("sys/fs/cgroup/app/memory.current", "9500000000\n");
    CHECK(ReadHostMemory(root.path()).total_bytes == 4'000'000'000);
    CHECK(ReadHostMemory(root.path()).free_bytes == 500'000'000);
  }
  SECTION("the root's, as a container sees its own") {
    root.Write("proc/self/cgroup", "0::/\n");
    write_group("", "3500000000");
    CHECK(ReadHostMemory(root.path()).free_bytes == 1'500'000'000);
  }
  SECTION("version 1") {
    root.Write("proc/self/cgroup", "5:cpu:/x\n9:hugetlb,memory:/docker/abc\n");
    root.Write("sys/fs/cgroup/memory/docker/abc/memory.limit_in_bytes", "2000000000\n");
    root.Write("sys/fs/cgroup/memory/docker/abc/memory.usage_in_bytes", "500000000\n");
    CHECK(ReadHostMemory(root.path()).free_bytes == 1'500'000'000);
  }
  SECTION("usage above the limit leaves nothing") {
    root.Write("proc/self/cgroup", "0::/\n");
    write_group("", "1000000000");
    CHECK(ReadHostMemory(root.path()).free_bytes == 0);
  }
}

}  // namespace neurogrid
