// Where a bfloat16 run rounds, as far as it shows in a model whose layer adds nothing: the scaled
// embedding passes through, and a head of unit rows shows the final norm.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>

#include "tests/engine/golden_support.h"
#include "tests/support/model_files.h"

namespace neurogrid {
namespace {

constexpr size_t kHidden = 8;
constexpr size_t kVocab = 6;

/// MicroLlama without effect: projections of zeros, a head whose row i takes element i.
std::vector<FloatTensor> IdleLlama() {
  std::vector<FloatTensor> tensors = MicroLlama();
  for (FloatTensor& tensor : tensors) {
    const auto size = static_cast<int64_t>(tensor.values.size());
    tensor.values = RandomFloats(tensor.name.size(), size);
    const bool projects = tensor.name.find("_proj") != std::string::npos;
    if (projects || tensor.name == "lm_head.weight") {
      std::fill(tensor.values.begin(), tensor.values.end(), 0.0f);
    }
    if (tensor.name == "lm_head.weight") {
      for (size_t i = 0; i < kVocab; ++i) tensor.values[i * kHidden + i] = 1;
    }
  }
  return tensors;
}

double Bf16(double value) { return ToFloat(ToBf16(static_cast<float>(value))); }

}  // namespace

TEST_CASE("a bfloat16 run rounds scale, embedding and norms where the family's reference does",
          "[golden]") {
  const bool gemma = GENERATE(false, true);
  CAPTURE(gemma);
  const std::vector<FloatTensor> tensors = IdleLlama();
  const TemporaryFolder folder;
  folder.Write("config.json", MicroConfig());
  folder.Write("model.safetensors", SafetensorsOf(tensors));
  const std::unique_ptr<Checkpoint> checkpoint = Checkpoint::Open(folder.path()).value();
  ModelConfig config = checkpoint->config();
  if (gemma) {
    config.embedding_scale = std::sqrt(96.0f);  // 9.798, and 9.8125 in bf16
    config.norm_offset = 1;
    config.norm_rounds_before_weight = false;
  }
  const std::unique_ptr<Device> device = TestDevice();
  Chain chain(config, checkpoint->weights(), device->ops(), Precision::kBf16);
  const std::vector<float> logits = LogitsOf(chain, {0, 1, 2, 3, 4, 5});

  const std::vector<float>& embedding = tensors[0].values;
  const std::vector<float>& weight = tensors[1].values;
  REQUIRE(tensors[1].name == "model.norm.weight");
  int wrong_hidden = 0;
  int wrong_logits = 0;
  for (size_t token = 0; token < kVocab; ++token) {
    std::vector<double> hidden;
    double squares = 0;
    for (size_t i = 0; i < kHidden; ++i) {
      const double scale = gemma ? 9.8125 : 1;
      hidden.push_back(Bf16(Bf16(embedding[token * kHidden + i]) * scale));
      squares += hidden[i] * hidden[i];
      wrong_hidden += double{chain.hidden(0)[token * kHidden + i]} != hidden[i];
    }
    for (size_t i = 0; i < kVocab; ++i) {
      const double quotient = hidden[i] / std::sqrt(squares / kHidden + 1e-5);
      const double normed = gemma ? Bf16(quotient * (1 + double{weight[i]}))
                                  : Bf16(Bf16(quotient) * double{weight[i]});
      wrong_logits += double{logits[token * kVocab + i]} != normed;
    }
  }
  CHECK(wrong_hidden == 0);
  CHECK(wrong_logits == 0);
}

}  // namespace neurogrid
