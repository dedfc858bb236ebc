// A model whose matrices are blocks of many types: bytes, bits and the distance to its f32 mode.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "absl/strings/str_cat.h"
#include "engine/model/stage_memory.h"
#include "tests/engine/block_model.h"
#include "tests/engine/test_device.h"

namespace neurogrid {

TEST_CASE("a stage of blocks holds the bytes that were counted for it", "[memory][groups]") {
  const auto [query, value, gate, up, embedding] =
      GENERATE(table<DType, DType, DType, DType, DType>(
          {{DType::kQ4_0, DType::kQ4_0, DType::kQ4_1, DType::kQ4_1, DType::kQ8_0},
           {DType::kQ4_K, DType::kQ6_K, DType::kQ4_K, DType::kQ5_K, DType::kQ6_K},
           {DType::kQ2_K, DType::kQ3_K, DType::kQ3_K, DType::kBF16, DType::kBF16},
           {DType::kF16, DType::kIQ4_NL, DType::kF32, DType::kBF16, DType::kQ5_0}}));
  const LayerRange layers = GENERATE(LayerRange{0, 2}, LayerRange{0, 1}, LayerRange{1, 2});
  CAPTURE(InfoOf(query).name, InfoOf(value).name, layers.ToString());
  const BlockModel model(query, value, gate, up, embedding);
  const auto device = TestDevice();
  const StageOptions options{
      .layers = layers, .precision = Precision::kAuto, .limits = TestLimits(64)};
  const auto stage =
      Transformer::Load(model.config(), model.weights(), device->ops(), options, nullptr).value();
  const ModelMemory memory = MemoryOf(model.config(), model.weights(), Precision::kAuto);
  const int64_t counted = StageWeightBytes(memory, layers);
  const int64_t held = stage->memory().weight_bytes;
  const int64_t allocations = 6 * layers.count() + 3;
  if (ThisColumn() == Column::kCpu) {  // a GPU pads rows of 64 values, which only tests have
    CHECK(counted >= held);
    CHECK(counted - held < kMemoryGranuleBytes * allocations);
  }
  CHECK(PageBytes(memory, layers, kPageTokens) == stage->memory().page_bytes);
}

TEST_CASE("logits of a model of blocks stray from its f32 mode as bf16's do", "[groups]") {
  const BlockModel model(DType::kQ4_0, DType::kQ5_0, DType::kQ4_1, DType::kQ5_1, DType::kQ8_0);
  const auto device = TestDevice();
  const auto logits = [&](Precision precision) {
    Chain chain(model.config(), model.weights(), device->ops(), precision);
    return LogitsOf(chain, SomeIds(40));
  };
  const std::vector<float> exact = logits(Precision::kF32);
  const Error bf16_error = ErrorOf(logits(Precision::kBf16), exact);
  const Error error = ErrorOf(logits(Precision::kAuto), exact);
  CAPTURE(bf16_error.max, bf16_error.mean, error.max, error.mean);
  // Activations are rounded in both; the weights in one alone.
  CHECK(error.mean <= bf16_error.mean);
  CHECK(error.max <= 1.5 * bf16_error.max);
  CHECK(error.max > 0);
}

TEST_CASE("logits of a model of blocks have the same bits in any chunks and stages",
          "[groups][invariance]") {
  const BlockModel model(DType::kQ4_0, DType::kQ5_0, DType::kQ4_1, DType::kQ5_1, DType::kQ8_0);
  const auto device = TestDevice();
  const Precision precision = GENERATE(from_range(BlockPrecisions()));
  CAPTURE(NameOf(precision));
  Chain chain(model.config(), model.weights(), device->ops(), precision);
  Chain stages(model.config(), model.weights(), device->ops(), precision, {1});
  const std::vector<int32_t> ids = SomeIds(75);
  const std::vector<float> alone = LogitsOf(chain, ids);
  const bool all = UsualDepth() == Depth::kEverything;
  for (const int chunk : all ? std::vector<int>{1, 3, 7, 16, 0} : std::vector<int>{3, 16}) {
    CAPTURE(chunk);
    CHECK(LogitsOf(chain, ids, chunk) == alone);
    CHECK(LogitsOf(stages, ids, chunk) == alone);
  }
}

TEST_CASE("without blocks, blocks-a8 is refused by the file's name", "[groups]") {
  const auto checkpoint = Checkpoint::Open(Golden("tiny/llama")).value();
  const auto device = TestDevice();
  const StageOptions options{.layers = {0, checkpoint->config().layers_count()},
                             .precision = Precision::kBlocksA8,
                             .limits = TestLimits(64)};
  const auto stage = Transformer::Load(checkpoint->config(), checkpoint->weights(), device->ops(),
                                       options, nullptr);
  CHECK(stage.status() ==
        absl::InvalidArgumentError(absl::StrCat(
            checkpoint->weights().source(),
            ": blocks-a8 is for GGUF files with block types, of which this has none; int8-a8 "
            "rounds any weights")));
}

TEST_CASE("without blocks, auto is bf16", "[groups]") {
  const auto checkpoint = Checkpoint::Open(Golden("tiny/llama")).value();
  const auto device = TestDevice();
  Chain bf16_chain(*checkpoint, device->ops(), Precision::kBf16);
  Chain auto_chain(*checkpoint, device->ops(), Precision::kAuto);
  CHECK(LogitsOf(auto_chain, SomeIds(20)) == LogitsOf(bf16_chain, SomeIds(20)));
  const ModelMemory memory =
      MemoryOf(checkpoint->config(), checkpoint->weights(), Precision::kAuto);
  CHECK(StageWeightBytes(memory, {0, 4}) ==
        StageWeightBytes(MemoryOf(checkpoint->config(), Precision::kBf16), {0, 4}));
}

}  // namespace neurogrid
