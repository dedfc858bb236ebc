// A step of one row, whose products may be one kernel, beside steps of two.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "engine/model/synthetic.h"
#include "engine/stage.h"
#include "tests/cuda/cuda_support.h"
#include "tests/engine/golden_support.h"

namespace neurogrid {
namespace {

#if defined(NG_SIMT)
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

/// What the first of so many equal sequences draws, a prompt and then row by row.
std::vector<SampledToken> Draws(Stage& stage, int sequences) {
  constexpr int kPrompt = 20;
  constexpr int kSteps = 8;
  std::vector<SampledToken> first;
  for (int step = 0; step < kSteps; ++step) {
    const int begin = step == 0 ? 0 : kPrompt + step - 1;
    const int rows = step == 0 ? kPrompt : 1;
    std::vector<SequencePart> slices;
    for (int s = 0; s < sequences; ++s) {
      SequencePart slice{
          .ids = {}, .first = begin, .pages = {s, 2 + s}, .source = step == 0 ? -1 : s, .slot = s};
      for (int i = 0; i < rows; ++i) slice.ids.push_back((begin + i) * 37 % 250);
      slices.push_back(slice);
    }
    Batch batch = BatchOf(slices, stage.options().limits.window);
    for (int s = 0; s < sequences; ++s) {
      batch.sampled_rows.push_back(batch.sequence_offsets[static_cast<size_t>(s) + 1] - 1);
      SamplingRow row;
      row.position = begin + rows;
      row.top_logprobs = 5;  // so that a bit of the logits shows
      batch.sampling.push_back(row);
    }
    const auto output = stage.Run(batch, {});
    INFO(output.status().ToString());
    REQUIRE(output.ok());
    first.push_back(output->sampled.front());
  }
  return first;
}

TEST_CASE("a sequence alone draws in the bits that it draws beside another", "[cuda][sequence]") {
  const Precision precision = GENERATE(Precision::kBf16, Precision::kInt8);
  CAPTURE(NameOf(precision));
  const std::unique_ptr<Checkpoint> checkpoint =
      !kEmulated ? MakeSyntheticCheckpoint("lfm2.5-1.2b").value() : OpenGolden("tiny/lfm2");
  const ModelConfig& config = checkpoint->config();
  const StageOptions options{.layers = {0, config.layers_count()},
                             .precision = precision,
                             .limits = TestLimits(config.vocab_size, 0)};
  const auto device = Cuda();
  const auto stage = Stage::Load(*checkpoint, *device, options).value();
  const std::vector<SampledToken> alone = Draws(*stage, 1);
  const std::vector<SampledToken> beside = Draws(*stage, 2);
  for (size_t i = 0; i < alone.size(); ++i) {
    CAPTURE(i);
    CHECK(alone[i].token == beside[i].token);
    CHECK(alone[i].logprob == beside[i].logprob);
  }
}

}  // namespace
}  // namespace neurogrid
