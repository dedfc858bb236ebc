// Biases of every projection, which no tiny model has all of: matrices of zeros leave sums that can
// be written down.
#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <map>

#include "tests/engine/golden_support.h"
#include "tests/support/model_files.h"

namespace neurogrid {
namespace {

/// MicroLlama with q, k, v, gate and up zero, and a bias on each of the seven projections.
std::vector<FloatTensor> BiasedLlama() {
  std::vector<FloatTensor> tensors;
  uint64_t seed = 1;
  for (FloatTensor tensor : MicroLlama()) {
    tensor.values = RandomFloats(++seed, static_cast<int64_t>(tensor.values.size()));
    for (const char* zero : {"q_proj", "k_proj", "v_proj", "gate_proj", "up_proj"}) {
      if (tensor.name.find(zero) == std::string::npos) continue;
      std::fill(tensor.values.begin(), tensor.values.end(), 0.0f);
    }
    if (const size_t end = tensor.name.find("_proj.weight"); end != std::string::npos) {
      tensors.push_back({tensor.name.substr(0, end) + "_proj.bias",
                         {tensor.shape[0]},
                         RandomFloats(++seed, tensor.shape[0])});
    }
    tensors.push_back(tensor);
  }
  return tensors;
}

/// y += W x + b
void AddProjection(std::vector<double>& y, const std::vector<float>& w,
                   const std::vector<double>& x, const std::vector<float>& bias) {
  for (size_t i = 0; i < y.size(); ++i) {
    y[i] += double{bias[i]};
    for (size_t k = 0; k < x.size(); ++k) y[i] += double{w[i * x.size() + k]} * x[k];
  }
}

}  // namespace

TEST_CASE("a bias enters behind each projection that has one", "[golden]") {
  std::map<std::string, std::vector<float>> of;
  const std::vector<FloatTensor> tensors = BiasedLlama();
  for (const FloatTensor& tensor : tensors) of[tensor.name] = tensor.values;
  const TemporaryFolder folder;
  const std::string config = MicroConfig();
  folder.Write("config.json", "{\"attention_bias\":true,\"mlp_bias\":true," + config.substr(1));
  folder.Write("model.safetensors", SafetensorsOf(tensors));
  const auto checkpoint = Checkpoint::Open(folder.path());
  INFO(checkpoint.status().ToString());
  REQUIRE(checkpoint.ok());
  const std::unique_ptr<Device> device = TestDevice();
  Chain chain(**checkpoint, device->ops(), Precision::kF32);
  const std::vector<int32_t> ids = {3, 0, 5};
  LogitsOf(chain, ids);

  // Every v is its bias, so attention over any of them gives it to both heads.
  const std::string attention = "model.layers.0.self_attn.";
  const std::string mlp = "model.layers.0.mlp.";
  std::vector<double> attended;
  for (size_t i = 0; i < 16; ++i) attended.push_back(of[attention + "v_proj.bias"][i % 8]);
  std::vector<double> gated;
  for (size_t i = 0; i < 16; ++i) {
    const double gate = of[mlp + "gate_proj.bias"][i];
    gated.push_back(gate / (1 + std::exp(-gate)) * of[mlp + "up_proj.bias"][i]);
  }
  std::vector<float> expected;
  for (const int32_t id : ids) {
    std::vector<double> hidden;
    for (size_t i = 0; i < 8; ++i) {
      hidden.push_back(of["model.embed_tokens.weight"][static_cast<size_t>(id) * 8 + i]);
    }
    AddProjection(hidden, of[attention + "o_proj.weight"], attended, of[attention + "o_proj.bias"]);
    AddProjection(hidden, of[mlp + "down_proj.weight"], gated, of[mlp + "down_proj.bias"]);
    expected.insert(expected.end(), hidden.begin(), hidden.end());
  }
  // Sums of some twenty products of values below ten.
  CHECK(ErrorOf(chain.hidden(0), expected).max <= 1e-5);
}

}  // namespace neurogrid
