// What NVIDIA's management library says, in place of it a library of our own.
#include "engine/cuda/nvml.h"

#include <catch2/catch_test_macros.hpp>

#include "absl/strings/match.h"
#include "tests/cuda/cuda_support.h"

namespace neurogrid {
namespace {

TEST_CASE("a machine without the management library knows less of its GPU, and says so once",
          "[cuda][nvml]") {
  const auto none = Nvml::Open("0000:41:00.0", "libneurogrid-no-such-library.so");
  CHECK(absl::IsUnimplemented(none.status()));
  CHECK(absl::StrContains(none.status().message(), "libneurogrid-no-such-library.so"));
}

#if defined(NG_FAKE_NVML)
TEST_CASE("the management library's answers are the device's figures, in our units",
          "[cuda][nvml]") {
  const auto nvml = Nvml::Open("0000:41:00.0", NG_FAKE_NVML);
  INFO(nvml.status().ToString());
  REQUIRE(nvml.ok());
  DeviceReport report;
  report.name = "as it was";
  (*nvml)->Describe(report);
  CHECK(report.name == "as it was");
  CHECK(report.uuid == "GPU-fake");
  CHECK(report.driver == "580.1.2");
  CHECK(report.power_limit_w == 700);
  CHECK(report.clock_max_mhz == 1980);
  const DeviceGauges gauges = (*nvml)->Gauges();
  CHECK(gauges.temperature_c == 41);
  CHECK(gauges.power_w == 136.159);
  CHECK(gauges.clock_mhz == 1755);
  CHECK(gauges.utilization == 0.75);
  CHECK(gauges.memory_used_bytes == 1'197'342'720);
  CHECK(gauges.throttle == Throttle::kPower);
  CHECK_FALSE(gauges.ecc_errors.has_value());
}

TEST_CASE("a GPU that the management library does not know is as good as none", "[cuda][nvml]") {
  const auto other = Nvml::Open("0000:42:00.0", NG_FAKE_NVML);
  CHECK(absl::IsUnimplemented(other.status()));
  CHECK(absl::StrContains(other.status().message(), "0000:42:00.0"));
}
#endif

#if !defined(NG_SIMT)
TEST_CASE("a GPU with its management library reports plausible figures", "[cuda][nvml]") {
  const auto device = Cuda();
  const DeviceReport report = device->Report();
  if (report.uuid.empty()) SKIP("this machine has no management library");
  CHECK(absl::StartsWith(report.uuid, "GPU-"));
  CHECK_FALSE(report.driver.empty());
  const DeviceGauges gauges = device->Gauges();
  REQUIRE(gauges.temperature_c.has_value());
  CHECK(*gauges.temperature_c > 0);
  CHECK(*gauges.temperature_c < 120);
  CHECK(*gauges.power_w > 1);
  CHECK(*gauges.power_w < 2 * report.power_limit_w);
  CHECK(*gauges.utilization <= 1);
  CHECK(*gauges.memory_used_bytes < report.memory_total_bytes);
  WARN("condition: " << device->Condition());
}
#endif

}  // namespace
}  // namespace neurogrid
