// int8-a8 against float32 on the same rounded weights: what it may err is what rounding the inputs
// of its products to 8 bits costs in float32, and what bfloat16 costs beside it.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "tests/engine/golden_support.h"
#include "tests/engine/input_rounding.h"
#include "tests/engine/rounded_weights.h"

namespace neurogrid {

TEST_CASE("int8-a8 errs by the rounding of its inputs", "[golden]") {
  const std::string model = GENERATE(from_range(TinyModels()));
  CAPTURE(model);
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + model);
  const ModelConfig& config = checkpoint->config();
  const RoundedWeights rounded(checkpoint->weights(), /*group=*/0, /*spreads=*/true);
  const Reference reference(Golden("tiny/" + model + "/reference.safetensors"));
  const std::unique_ptr<Device> device = TestDevice();
  // A tied head, known by its outputs, is the embedding, which is not quantised.
  InputRoundingOps rounding(
      device->ops(),
      [&](const Matrix& w) {
        return config.tied_embeddings && w.outputs() == config.vocab_size ? 0 : 128;
      },
      /*spreads=*/true);
  Chain exact(config, rounded.store(), device->ops(), Precision::kF32);
  Chain of_rounded_inputs(config, rounded.store(), rounding, Precision::kF32);
  Chain chain(*checkpoint, device->ops(), Precision::kInt8A8);
  std::vector<std::vector<int32_t>> asked;
  std::vector<double> errors;
  for (const std::string& p : PromptsOf(reference)) {
    CAPTURE(p);
    asked.push_back(reference.Ids(p + "ids"));
    const std::vector<int32_t>& ids = asked.back();
    const std::vector<float> expected = LogitsOf(exact, ids);
    const Error of_inputs = ErrorOf(LogitsOf(of_rounded_inputs, ids), expected);
    const Error of_bf16 = AllowedInBf16(reference, p);
    const Error error = ErrorOf(LogitsOf(chain, ids), expected);
    // Both errors are there at once; the factor of AllowedInBf16 is models.md 7.1's.
    CHECK(error.max <= 1.5 * of_inputs.max + of_bf16.max);
    CHECK(error.mean <= 1.5 * of_inputs.mean + of_bf16.mean);
    errors.push_back(error.max);
  }
  CheckDecidedGreedy(chain, exact, asked, errors);
}

}  // namespace neurogrid
