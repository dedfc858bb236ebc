// What a chain's devices mean for its scheduler.
#include "coordinator/chain_shape.h"

#include <catch2/catch_test_macros.hpp>

namespace neurogrid {
namespace {

constexpr char kGpu[] = "cuda/mma/NVIDIA H200/bf16";
constexpr char kCpu[] = "cpu-1/bf16";
constexpr char kBoth[] = "cpu-1/bf16+cuda/mma/NVIDIA H200/bf16";
constexpr char kAnyOrder[] = "cuda/mma/NVIDIA H200/any order/bf16";

SchedulerOptions ShapeOf(int stages, absl::string_view determinism_class,
                         absl::string_view speculation = "auto") {
  Plan plan;
  plan.stages.resize(static_cast<size_t>(stages));
  plan.decode_groups = 2;
  BatchLimits limits;
  limits.rows_max = 64;
  return ChainShape(plan, limits, determinism_class, speculation);
}

TEST_CASE("a chain has a GPU, or nothing else, by the classes of its stages", "[chain_shape]") {
  CHECK(HasGpu(kGpu));
  CHECK(HasGpu(kBoth));
  CHECK_FALSE(HasGpu(kCpu));
  CHECK(GpusAlone(kGpu));
  CHECK_FALSE(GpusAlone(kBoth));
  CHECK_FALSE(GpusAlone(kCpu));
}

TEST_CASE("the scheduler has the plan's limits, stages and groups", "[chain_shape]") {
  const SchedulerOptions shape = ShapeOf(3, kCpu);
  CHECK(shape.limits.rows_max == 64);
  CHECK(shape.stages == 3);
  CHECK(shape.prefill_depth == 3);
  CHECK(shape.decode_groups == 2);
}

TEST_CASE("guesses are on by themselves on processors and on a GPU that is the whole chain",
          "[chain_shape]") {
  CHECK(ShapeOf(1, kCpu).speculates);
  CHECK(ShapeOf(3, kCpu).speculates);
  CHECK(ShapeOf(1, kGpu).speculates);
  CHECK_FALSE(ShapeOf(2, kGpu).speculates);
  CHECK_FALSE(ShapeOf(2, kBoth).speculates);
  SECTION("on every chain where they are asked for, on none where they are not wanted") {
    CHECK(ShapeOf(2, kGpu, "on").speculates);
    CHECK(ShapeOf(2, kBoth, "on").speculates);
    CHECK_FALSE(ShapeOf(1, kCpu, "off").speculates);
  }
  SECTION("and never where they would change an answer") {
    CHECK_FALSE(ShapeOf(1, kAnyOrder, "on").speculates);
  }
}

TEST_CASE("a GPU runs first steps slowly, and alone in its chain one step ahead", "[chain_shape]") {
  CHECK(ShapeOf(1, kGpu).ahead);
  CHECK(ShapeOf(1, kGpu).first_slow == 2);
  CHECK_FALSE(ShapeOf(2, kGpu).ahead);
  CHECK(ShapeOf(2, kBoth).first_slow == 2);
  CHECK_FALSE(ShapeOf(1, kCpu).ahead);
  CHECK(ShapeOf(1, kCpu).first_slow == 0);
}

}  // namespace
}  // namespace neurogrid
