// A decoding sequence beside many others: products, convolutions and attention of many rows take
// other kernels than those of a few, some of them on weights of real shapes alone.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "engine/bench/bench_batches.h"
#include "engine/model/synthetic.h"
#include "engine/stage.h"
#include "tests/cuda/cuda_support.h"
#include "tests/support/golden.h"

namespace neurogrid {
namespace {

#if defined(NG_SIMT)
constexpr bool kOnGpu = false;
#else
constexpr bool kOnGpu = true;
#endif
constexpr int kSequencesMax = 64;
constexpr int kPositions = kOnGpu ? 40 : 6;

/// What the first of so many sequences draws at each position, and how likely it was.
std::vector<SampledToken> FirstOf(Stage& stage, int sequences) {
  const BatchLimits& limits = stage.options().limits;
  std::vector<SampledToken> drawn;
  for (int position = 0; position < kPositions; ++position) {
    Batch batch = BenchBatch(limits, sequences, limits.pages / kSequencesMax, position, 1);
    for (SamplingRow& row : batch.sampling) row.top_logprobs = 5;
    const auto output = stage.Run(batch, ConstTensor());
    INFO(output.status().ToString());
    REQUIRE(output.ok());
    drawn.push_back(output->sampled.at(0));
  }
  return drawn;
}

}  // namespace

TEST_CASE("a decoding sequence has the same bits alone and among 63 others", "[cuda]") {
  const Precision precision = GENERATE(Precision::kBf16, Precision::kInt8);
  CAPTURE(NameOf(precision));
  const auto checkpoint =
      MakeSyntheticCheckpoint(kOnGpu ? "lfm2.5-1.2b" : Golden("tiny/lfm2/config.json")).value();
  const std::unique_ptr<Device> device = Cuda();
  const StageOptions options{.layers = {0, checkpoint->config().layers_count()},
                             .precision = precision,
                             .limits = {.rows_max = kSequencesMax,
                                        .sequences_max = kSequencesMax,
                                        .samples_max = kSequencesMax,
                                        .pages = kSequencesMax * (kPositions / kPageTokens + 1),
                                        .slots = kSequencesMax,
                                        .positions_max = 64,
                                        .vocab_size = checkpoint->config().vocab_size}};
  const auto stage = Stage::Load(*checkpoint, *device, options).value();
  const std::vector<SampledToken> alone = FirstOf(*stage, 1);
  for (const int sequences : {2, 8, 17, 32, 40, 64}) {
    if (!kOnGpu && sequences > 17) continue;
    CAPTURE(sequences);
    const std::vector<SampledToken> beside = FirstOf(*stage, sequences);
    for (size_t i = 0; i < alone.size(); ++i) {
      CAPTURE(i);
      CHECK(beside[i].token == alone[i].token);
      CHECK(beside[i].logprob == alone[i].logprob);
      REQUIRE(beside[i].top.size() == alone[i].top.size());
      for (size_t j = 0; j < alone[i].top.size(); ++j) {
        CHECK(beside[i].top[j].id == alone[i].top[j].id);
        CHECK(beside[i].top[j].logprob == alone[i].top[j].logprob);
      }
    }
  }
}

}  // namespace neurogrid
