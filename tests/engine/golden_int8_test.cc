// Weights in int8 against float32 on the same rounded weights (models.md 7.1, row "int8 W8A16").
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>

#include "tests/engine/golden_support.h"
#include "tests/engine/rounded_weights.h"

namespace neurogrid {

TEST_CASE("rounded weights in float32 give the reference's logits of them", "[golden]") {
  const std::string model = GENERATE("llama", "lfm2");
  CAPTURE(model);
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + model);
  const RoundedWeights rounded(checkpoint->weights());
  const Reference reference(Golden("tiny/" + model + "/w8a16_reference.safetensors"));
  const std::unique_ptr<Device> device = TestDevice();
  Chain chain(checkpoint->config(), rounded.store(), device->ops(), Precision::kF32);
  std::vector<std::vector<int32_t>> asked, greedy;
  for (const std::string& p : PromptsOf(reference)) {
    CAPTURE(p);
    asked.push_back(reference.Ids(p + "ids"));
    greedy.push_back(reference.Ids(p + "greedy"));
    const std::vector<float>& expected = reference[p + "logits"];
    CHECK(ErrorOf(LogitsOf(chain, asked.back()), expected).max <= ToleranceOf(expected));
  }
  CheckGreedy(chain, asked, greedy);
}

TEST_CASE("int8 weights give the logits of the rounded weights", "[golden]") {
  const std::string model = GENERATE(from_range(TinyModels()));
  CAPTURE(model);
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + model);
  const RoundedWeights rounded(checkpoint->weights());
  const Reference reference(Golden("tiny/" + model + "/reference.safetensors"));
  const std::unique_ptr<Device> device = TestDevice();
  // The processor's float32 is the reference's, as the test above and golden_test show.
  const std::unique_ptr<Device> cpu = MakeDevice("cpu", 2).value();
  Chain exact(checkpoint->config(), rounded.store(), cpu->ops(), Precision::kF32);
  Chain chain(*checkpoint, device->ops(), Precision::kInt8);
  std::vector<std::vector<int32_t>> asked;
  std::vector<double> errors;
  for (const std::string& p : PromptsOf(reference)) {
    CAPTURE(p);
    asked.push_back(reference.Ids(p + "ids"));
    const std::vector<int32_t>& ids = asked.back();
    // The bound is that of bfloat16 activations: the rounded weights themselves are exact.
    const Error allowed = AllowedInBf16(reference, p);
    const Error error = ErrorOf(LogitsOf(chain, ids), LogitsOf(exact, ids));
    CHECK(error.max <= allowed.max);
    CHECK(error.mean <= allowed.mean);
    errors.push_back(error.max);
  }
  CheckDecidedGreedy(chain, exact, asked, errors);
}

}  // namespace neurogrid
