// What the planner counts is what a stage allocates.
#include "engine/model/stage_memory.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "engine/batch.h"
#include "engine/device.h"
#include "engine/stage.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

TEST_CASE("a stage holds the bytes that were counted for it", "[memory]") {
  const auto* name = GENERATE("tiny/llama", "tiny/llama3-rope");
  const Precision precision = GENERATE(Precision::kF32, Precision::kBf16, Precision::kInt8);
  const LayerRange layers =
      GENERATE(LayerRange{0, 4}, LayerRange{0, 2}, LayerRange{2, 4}, LayerRange{1, 3});
  CAPTURE(name, NameOf(precision), layers.ToString());
  const auto checkpoint = Checkpoint::Open(Golden(name)).value();
  const auto device = MakeDevice("cpu", 1).value();
  StageOptions options;
  options.layers = layers;
  options.precision = precision;
  options.limits = {.rows_max = 16,
                    .sequences_max = 2,
                    .samples_max = 2,
                    .pages = 4,
                    .slots = 0,
                    .positions_max = 64,
                    .vocab_size = 263};
  const auto stage = Stage::Load(*checkpoint, *device, options).value();

  const ModelMemory model = MemoryOf(checkpoint->config(), precision);
  const int64_t counted = StageWeightBytes(model, layers);
  const int64_t held = stage->memory().weight_bytes;
  const int64_t allocations = 6 * layers.count() + 3;
  CHECK(counted >= held);
  CHECK(counted - held < 2 * kMemoryGranuleBytes * allocations);  // int8: scales beside the weights
  CHECK(PageBytes(model, layers, kPageTokens) == stage->memory().page_bytes);
  CHECK(StateBytes(model, layers) == stage->memory().state_bytes);
}

}  // namespace
}  // namespace neurogrid
