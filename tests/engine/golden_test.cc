// Tiny checkpoints of every family against the reference implementation's own runs (models.md 7.1).
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <catch2/generators/catch_generators_range.hpp>
#include <cstdio>

#include "tests/engine/golden_support.h"

namespace neurogrid {
namespace {

/// Largest errors of a model's logits beside their bounds.
struct Parity {
  double f32 = 0, f32_bound = 0;  // of the prompt that comes closest to its bound
  double bf16 = 0, bf16_bound = 0;
};

Parity ParityOf(const std::string& model) {
  Parity parity;
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + model);
  const Reference reference(Golden("tiny/" + model + "/reference.safetensors"));
  const std::unique_ptr<Device> device = TestDevice();
  Chain f32(*checkpoint, device->ops(), Precision::kF32);
  Chain bf16(*checkpoint, device->ops(), Precision::kBf16);
  const auto keep = [](double error, double bound, double& worst, double& worst_bound) {
    if (worst_bound != 0 && error / bound <= worst / worst_bound) return;
    worst = error;
    worst_bound = bound;
  };
  for (const std::string& p : PromptsOf(reference)) {
    const std::vector<int32_t> ids = reference.Ids(p + "ids");
    const std::vector<float>& exact = reference[p + "logits"];
    keep(ErrorOf(LogitsOf(f32, ids), exact).max, ToleranceOf(exact), parity.f32, parity.f32_bound);
    keep(ErrorOf(LogitsOf(bf16, ids), exact).max, AllowedInBf16(reference, p).max, parity.bf16,
         parity.bf16_bound);
  }
  return parity;
}

}  // namespace

TEST_CASE("float32 logits and hidden states are the reference's", "[golden]") {
  const std::string model = GENERATE(from_range(TinyModels()));
  const DeviceVariant kernels = GENERATE(from_range(KernelVariants()));
  CAPTURE(model, kernels.name);
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + model);
  const Reference reference(Golden("tiny/" + model + "/reference.safetensors"));
  const std::unique_ptr<Device> device = kernels.make();
  Chain chain(*checkpoint, device->ops(), Precision::kF32, EveryLayer(*checkpoint));
  const auto layers = static_cast<size_t>(checkpoint->config().layers_count());
  const std::vector<std::string> prompts = PromptsOf(reference);
  REQUIRE(prompts.size() >= 5);
  for (const std::string& p : prompts) {
    CAPTURE(p);
    const std::vector<float>& expected = reference[p + "logits"];
    const double tolerance = ToleranceOf(expected);
    const std::vector<float> logits = LogitsOf(chain, reference.Ids(p + "ids"));
    CHECK(ErrorOf(logits, expected).max <= tolerance);
    CheckHidden(chain, reference[p + "hidden"], layers, tolerance);
  }
}

TEST_CASE("float32 continues a prompt with the reference's tokens", "[golden]") {
  const std::string model = GENERATE(from_range(TinyModels()));
  CAPTURE(model);
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + model);
  const Reference reference(Golden("tiny/" + model + "/reference.safetensors"));
  const std::unique_ptr<Device> device = TestDevice();
  Chain chain(*checkpoint, device->ops(), Precision::kF32);
  std::vector<std::vector<int32_t>> asked, expected;
  for (const std::string& p : PromptsOf(reference)) {
    asked.push_back(reference.Ids(p + "ids"));
    expected.push_back(reference.Ids(p + "greedy"));
    REQUIRE(expected.back().size() == 32);
    if (Sanitized()) expected.back().resize(6);
  }
  CheckGreedy(chain, asked, expected);
}

TEST_CASE("bfloat16 logits err no more than the reference's own bfloat16 run", "[golden]") {
  const std::string model = GENERATE(from_range(TinyModels()));
  CAPTURE(model);
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/" + model);
  const Reference reference(Golden("tiny/" + model + "/reference.safetensors"));
  const std::unique_ptr<Device> device = TestDevice();
  Chain chain(*checkpoint, device->ops(), Precision::kBf16);
  std::vector<std::vector<int32_t>> asked, expected;
  for (const std::string& p : PromptsOf(reference)) {
    CAPTURE(p);
    asked.push_back(reference.Ids(p + "ids"));
    const Error allowed = AllowedInBf16(reference, p);
    const Error error = ErrorOf(LogitsOf(chain, asked.back()), reference[p + "logits"]);
    CHECK(error.max <= allowed.max);
    CHECK(error.mean <= allowed.mean);
    expected.push_back(reference.Ids(p + "greedy"));
    expected.back().resize(DecidedTokens(reference[p + "greedy_margin"], 4 * error.max));
  }
  CheckGreedy(chain, asked, expected);
}

TEST_CASE("a file of bfloat16 weights gives float32 logits of those weights", "[golden]") {
  const std::unique_ptr<Checkpoint> checkpoint = OpenGolden("tiny/llama/bf16");
  const Reference reference(Golden("tiny/llama/reference.safetensors"));
  const std::unique_ptr<Device> device = TestDevice();
  Chain chain(*checkpoint, device->ops(), Precision::kF32);
  for (const std::string& p : PromptsOf(reference)) {
    CAPTURE(p);
    const std::vector<float>& expected = reference[p + "logits_f32_run_of_bf16_weights"];
    const std::vector<float> logits = LogitsOf(chain, reference.Ids(p + "ids"));
    CHECK(ErrorOf(logits, expected).max <= ToleranceOf(expected));
  }
}

TEST_CASE("a GGUF copy gives the bits of the safetensors", "[golden]") {
  const std::string model = GENERATE("llama", "qwen3", "lfm2", "gemma3");
  CAPTURE(model);
  const std::unique_ptr<Checkpoint> directory = OpenGolden("tiny/" + model);
  const std::unique_ptr<Checkpoint> gguf = OpenGolden("gguf/" + model + "-F32.gguf");
  const Reference reference(Golden("tiny/" + model + "/reference.safetensors"));
  const std::unique_ptr<Device> device = TestDevice();
  Chain from_directory(*directory, device->ops(), Precision::kF32);
  Chain from_gguf(*gguf, device->ops(), Precision::kF32);
  for (const std::string& p : PromptsOf(reference)) {
    CAPTURE(p);
    const std::vector<int32_t> ids = reference.Ids(p + "ids");
    CHECK(SameBits(LogitsOf(from_directory, ids), LogitsOf(from_gguf, ids)));
  }
}

TEST_CASE("parity of every family, as a table", "[.parity]") {
  std::printf("%-15s %11s %11s %11s %11s\n", "model", "f32 error", "bound", "bf16 error", "bound");
  for (const std::string& model : TinyModels()) {
    const Parity parity = ParityOf(model);
    std::printf("%-15s %11.2e %11.2e %11.2e %11.2e\n", model.c_str(), parity.f32, parity.f32_bound,
                parity.bf16, parity.bf16_bound);
    CHECK(parity.f32 <= parity.f32_bound);
    CHECK(parity.bf16 <= parity.bf16_bound);
  }
}

}  // namespace neurogrid
