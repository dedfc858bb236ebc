// Tiny checkpoints of every family on a CUDA device, within the bounds that the CPU
// keeps to (models.md 7.1).
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "tests/cuda/cuda_support.h"
#include "tests/engine/golden_support.h"

namespace neurogrid {
TEST_CASE("float32 logits and hidden states are the reference's", "[cuda][golden]") {
  const std::string model = GENERATE(from_range(TinyModels()));
  CAPTURE(model);
  SeedFor(model);
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + model);
  const Reference reference(Golden("tiny/" + model + "/reference.safetensors"));
  const std::unique_ptr<Device> device = Cuda();
  Chain chain(*checkpoint, device->ops(), Precision::kF32, EveryLayer(*checkpoint));
  const auto layers = static_cast<size_t>(checkpoint->config().layers_count());
  for (const std::string p : {"p5.", "p47."}) {
    CAPTURE(p);
    const std::vector<float>& expected = reference[p + "logits"];
    const double tolerance = ToleranceOf(expected);
    CHECK(ErrorOf(LogitsOf(chain, reference.Ids(p + "ids")), expected).max <= tolerance);
    CheckHidden(chain, reference[p + "hidden"], layers, tolerance);
  }
}

TEST_CASE("float32 continues a prompt with the reference's tokens", "[cuda][golden]") {
  const std::string model = GENERATE(from_range(TinyModels()));
  CAPTURE(model);
  SeedFor(model);
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + model);
  const Reference reference(Golden("tiny/" + model + "/reference.safetensors"));
  const std::unique_ptr<Device> device = Cuda();
  Chain chain(*checkpoint, device->ops(), Precision::kF32);
  std::vector<std::vector<int32_t>> asked, expected;
  for (const std::string p : {"p1.", "p5.", "p47."}) {
    asked.push_back(reference.Ids(p + "ids"));
    expected.push_back(reference.Ids(p + "greedy"));
    expected.back().resize(6);
  }
  CHECK(GreedyOfAll(chain, asked, 6) == expected);
}

TEST_CASE("bfloat16 logits err no more than the reference's own bfloat16 run", "[cuda][golden]") {
  const std::string model = GENERATE(from_range(TinyModels()));
  CAPTURE(model);
  SeedFor(model);
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + model);
  const Reference reference(Golden("tiny/" + model + "/reference.safetensors"));
  const std::unique_ptr<Device> device = Cuda();
  Chain chain(*checkpoint, device->ops(), Precision::kBf16);
  for (const std::string& p : PromptsOf(reference)) {
    CAPTURE(p);
    const Error allowed = AllowedInBf16(reference, p);
    const Error error = ErrorOf(LogitsOf(chain, reference.Ids(p + "ids")), reference[p + "logits"]);
    CHECK(error.max <= allowed.max);
    CHECK(error.mean <= allowed.mean);
    const size_t decided =
        std::min<size_t>(3, DecidedTokens(reference[p + "greedy_margin"], 4 * error.max));
    std::vector<int32_t> greedy = reference.Ids(p + "greedy");
    greedy.resize(decided);
    CHECK(Greedy(chain, reference.Ids(p + "ids"), static_cast<int>(decided)) == greedy);
  }
}

TEST_CASE("int8 weights give the logits of the rounded weights", "[cuda][golden]") {
  const std::string model = GENERATE("llama", "lfm2");
  CAPTURE(model);
  SeedFor(model);
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + model);
  const Reference reference(Golden("tiny/" + model + "/reference.safetensors"));
  const Reference rounded(Golden("tiny/" + model + "/w8a16_reference.safetensors"));
  const std::unique_ptr<Device> device = Cuda();
  Chain chain(*checkpoint, device->ops(), Precision::kInt8);
  for (const std::string p : {"p1.", "p5.", "p47."}) {
    CAPTURE(p);
    // The bound is that of bfloat16 activations: the rounded weights themselves are exact.
    const std::vector<float>& expected = rounded[p + "logits"];
    const Error allowed = AllowedInBf16(reference, p);
    const Error error = ErrorOf(LogitsOf(chain, rounded.Ids(p + "ids")), expected);
    CHECK(error.max <= allowed.max);
    CHECK(error.mean <= allowed.mean);
  }
}

TEST_CASE("logits of a sequence have the same bits in any chunks and company", "[cuda]") {
  const auto [model, precision] = GENERATE(std::pair{std::string("llama"), Precision::kBf16},
                                           std::pair{std::string("gemma3"), Precision::kBf16},
                                           std::pair{std::string("lfm2"), Precision::kBf16},
                                           std::pair{std::string("lfm2"), Precision::kInt8},
                                           std::pair{std::string("llama"), Precision::kF32});
  CAPTURE(model, NameOf(precision));
  SeedFor(model);
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + model);
  const std::unique_ptr<Device> device = Cuda();
  Chain chain(*checkpoint, device->ops(), precision);
  // Past 256 positions attention merges two splits.
  const int length = model == "llama" && precision == Precision::kBf16 ? 280 : 60;
  std::vector<int32_t> ids;
  for (int i = 0; i < length; ++i) ids.push_back((i * 37 + 11) % 263);
  const std::vector<float> alone = LogitsOf(chain, ids);
  CHECK(SameBits(LogitsOf(chain, ids, 23), alone));
  Chain stages(*checkpoint, device->ops(), precision, {1, 3});
  CHECK(SameBits(LogitsOf(stages, ids, 50), alone));

  // The last token alone among mates, its pages in another order.
  std::vector<Slice> slices;
  slices.push_back({.ids = {1, 2, 3}, .first = 0, .pages = {90}, .source = -1, .slot = 3});
  Slice last{.ids = ids, .first = 0, .pages = {}, .source = -1, .slot = 7};
  for (int page = 0; page * kPageTokens < length; ++page) last.pages.push_back(80 - 3 * page);
  last.ids.pop_back();
  chain.Logits(BatchOf({last}));
  last.ids = {ids.back()};
  last.first = length - 1;
  last.source = 7;
  last.slot = 9;
  slices.push_back(last);
  slices.push_back(
      {.ids = std::vector<int32_t>(20, 5), .first = 0, .pages = {95, 93}, .source = -1, .slot = 4});
  const std::vector<float> mixed = chain.Logits(BatchOf(slices));
  const auto vocab = static_cast<std::ptrdiff_t>(chain.vocab());
  CHECK(SameBits(std::vector<float>(mixed.begin() + 3 * vocab, mixed.begin() + 4 * vocab),
                 std::vector<float>(alone.end() - vocab, alone.end())));
}

}  // namespace neurogrid
