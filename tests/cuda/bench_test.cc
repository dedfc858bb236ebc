// The bench on a CUDA device: its figures are those of work done, whatever they are.
#include "engine/bench/bench.h"

#include "engine/model/synthetic.h"
#include "tests/cuda/cuda_support.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

TEST_CASE("a bench runs each case through the whole engine", "[bench]") {
  const std::unique_ptr<Device> device = Cuda();
  const auto checkpoint = MakeSyntheticCheckpoint(Golden("tiny/lfm2/config.json")).value();
  BenchOptions options;
  options.prompts = "24";
  options.depths = "0,40";
  options.batches = "3";
  options.batch_depth = 20;
  options.decode_tokens = 3;
  options.chunk_tokens = 16;
  options.rounds = 1;
  options.json = true;
  const auto results = RunBench(*checkpoint, "tiny", Precision::kBf16, *device, options).value();
  REQUIRE(results.size() == 4);
  CHECK(results[0].what.steps == 2);  // 16 and 8 rows
  CHECK(results[0].what.tokens_in_all() == 24);
  CHECK(results[2].what.depth == 40);
  CHECK(results[3].what.tokens_in_all() == 9);
  for (const BenchResult& r : results) {
    CHECK(r.tokens_per_s.median > 0);
    CHECK(r.launches_per_step >= 6 * 4);  // a layer has four matmuls at least
    CHECK(r.floor_share > 0);
    CHECK(r.host_us_per_step > 0);
  }
}

}  // namespace
}  // namespace neurogrid
