// What the planner counts is what a stage allocates.
#include "engine/model/stage_memory.h"

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "engine/batch.h"
#include "engine/stage.h"
#include "tests/engine/golden_support.h"

namespace neurogrid {
namespace {

/// As this program's device lays weights out.
WeightLayout ThisLayout() {
  return ThisColumn() == Column::kCpu ? WeightLayout::kPanels : WeightLayout::kTiles;
}

TEST_CASE("a stage holds the bytes that were counted for it", "[memory]") {
  const std::string name = GENERATE(from_range(TinyModels()));
  const Precision precision = GENERATE(from_range(WeightPrecisions()));
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + name);
  const int count = checkpoint->config().layers_count();
  const LayerRange layers =
      GENERATE_COPY(LayerRange{0, count}, LayerRange{0, count / 2}, LayerRange{count / 2, count},
                    LayerRange{count / 3, count - 1});
  CAPTURE(name, NameOf(precision), layers.ToString());
  if (layers.count() == 0) return;
  const std::unique_ptr<Device> device = TestDevice();
  StageOptions options;
  options.layers = layers;
  options.precision = precision;
  options.limits = {.rows_max = 16,
                    .sequences_max = 2,
                    .samples_max = 2,
                    .pages = 4,
                    .slots = 3,
                    .positions_max = 64,
                    .vocab_size = 263};
  options.limits.window = WidestWindow(checkpoint->config());
  if (options.limits.window > 0) options.limits.window_pages = 6;
  const auto stage = Stage::Load(*checkpoint, *device, options).value();

  const ModelMemory model = MemoryOf(checkpoint->config(), precision, ThisLayout());
  CHECK(StageWeightBytes(model, layers) == stage->memory().weight_bytes);
  CHECK(PageBytes(model, layers, kPageTokens) == stage->memory().page_bytes);
  CHECK(WindowPageBytes(model, layers, kPageTokens) == stage->memory().window_page_bytes);
  CHECK(StateBytes(model, layers) == stage->memory().state_bytes);
}

}  // namespace
}  // namespace neurogrid
