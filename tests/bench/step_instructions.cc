// Steps of a model of true widths, for tests/instructions_test.py to count their instructions.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "common/check.h"
#include "common/rng.h"
#include "engine/bench/bench_batches.h"
#include "engine/cpu/cpu_device.h"
#include "engine/model/synthetic.h"
#include "engine/transformer.h"

namespace neurogrid {
namespace {

constexpr int kLayers = 1;
constexpr int kVocab = 1024;
constexpr int kPromptRows = 24;
constexpr int kDepth = 232;  // tokens before the prompt
constexpr int kDeep = 2048;  // tokens before one whose step is mostly attention
constexpr int kPages = 129;

struct Held {
  const char* name;
  DType stored;
  Precision precision;
};
constexpr Held kHeld[] = {{"bf16", DType::kBF16, Precision::kAuto},
                          {"int8", DType::kBF16, Precision::kInt8},
                          {"int8-a8", DType::kBF16, Precision::kInt8A8},
                          {"q4_1", DType::kQ4_1, Precision::kAuto},
                          {"q8_0", DType::kQ8_0, Precision::kAuto},
                          {"q8_0-a8", DType::kQ8_0, Precision::kBlocksA8},
                          {"q4_k-a8", DType::kQ4_K, Precision::kBlocksA8},
                          {"q6_k-a8", DType::kQ6_K, Precision::kBlocksA8}};

/// A layer of SmolLM2-135M's widths and a short head, of twelve heads instead of nine where a block
/// is 256 inputs; all matrices are views of the same random bytes.
class WideModel {
 public:
  explicit WideModel(DType dtype) : dtype_(dtype) {
    config_ = MakeSyntheticCheckpoint("smollm2-135m").value()->config();
    config_.layers.resize(kLayers);
    config_.vocab_size = kVocab;
    if (InfoOf(dtype).block_elements == 256) {
      config_.query_heads = 12;
      config_.hidden_size = config_.query_heads * config_.head_dim;
    }
    const int64_t hidden = config_.hidden_size, ffn = config_.ffn_size;
    const int64_t attended = int64_t{config_.query_heads} * config_.head_dim;
    const int64_t kv = int64_t{config_.kv_heads} * config_.head_dim;
    bytes_.resize(static_cast<size_t>(BytesOf(dtype, std::max<int64_t>(ffn, kVocab) * hidden)));
    // Small and normal as bf16 numbers, and as f16 scales.
    for (size_t i = 0; i < bytes_.size(); ++i) {
      const auto byte = static_cast<uint8_t>(SplitMix64(i));
      bytes_[i] = dtype != DType::kBF16 ? byte & 0x9f
                  : i % 2 == 0          ? byte
                                        : static_cast<uint8_t>(0x3c | (byte & 0x80));
    }
    ones_.assign(static_cast<size_t>(hidden), 1.0f);
    Add("model.embed_tokens.weight", {kVocab, hidden});
    AddNorm("model.norm.weight");
    for (int layer = 0; layer < kLayers; ++layer) {
      const std::string prefix = "model.layers." + std::to_string(layer) + ".";
      AddNorm(prefix + "input_layernorm.weight");
      Add(prefix + "self_attn.q_proj.weight", {attended, hidden});
      Add(prefix + "self_attn.k_proj.weight", {kv, hidden});
      Add(prefix + "self_attn.v_proj.weight", {kv, hidden});
      Add(prefix + "self_attn.o_proj.weight", {hidden, attended});
      AddNorm(prefix + "post_attention_layernorm.weight");
      Add(prefix + "mlp.gate_proj.weight", {ffn, hidden});
      Add(prefix + "mlp.up_proj.weight", {ffn, hidden});
      Add(prefix + "mlp.down_proj.weight", {hidden, ffn});
    }
  }
  const ModelConfig& config() const { return config_; }
  const WeightStore& weights() const { return weights_; }

 private:
  void Add(const std::string& name, const Shape& shape) {
    weights_.Add(name, {.tensor = ConstTensor(bytes_.data(), dtype_, shape), .file = "random"});
  }
  void AddNorm(const std::string& name) {
    const Shape shape({config_.hidden_size});
    weights_.Add(name, {.tensor = ConstTensor(ones_.data(), DType::kF32, shape), .file = "random"});
  }

  DType dtype_;
  std::vector<uint8_t> bytes_;
  std::vector<float> ones_;
  ModelConfig config_;
  WeightStore weights_{"random"};
};

}  // namespace
}  // namespace neurogrid

/// What is counted: a name that callgrind finds.
extern "C" [[gnu::noinline]] void CountedStep(neurogrid::Transformer& model,
                                              const neurogrid::Batch& batch) {
  model.Forward(batch, neurogrid::ConstTensor());
  model.Logits(batch.sampled_rows);
}

/// Prints the name of each count in the order in which callgrind dumps them.
int main() {
  using namespace neurogrid;
  for (const Held& held : kHeld) {
    const WideModel model(held.stored);
    CpuDevice device(1, DetectInstructionSet().value());
    BatchLimits limits;
    limits.rows_max = kPromptRows;
    limits.sequences_max = limits.samples_max = 1;
    limits.pages = kPages;
    limits.positions_max = kPages * kPageTokens;
    limits.vocab_size = kVocab;
    const StageOptions options{
        .layers = {0, kLayers}, .precision = held.precision, .limits = limits};
    const std::unique_ptr<Transformer> transformer =
        Transformer::Load(model.config(), model.weights(), device.ops(), options, nullptr).value();
    const auto step = [&](int position, int rows) {
      CountedStep(*transformer, BenchBatch(limits, 1, kPages, position, rows));
      NG_CHECK(device.ops().Health().ok());
    };
    std::printf("%s prompt\n%s token\n", held.name, held.name);
    step(kDepth, kPromptRows);
    step(kDepth + kPromptRows, 1);
    if (&held != kHeld) continue;  // the same for all
    std::printf("%s deep token\n", held.name);
    step(kDeep, 1);
  }
  return 0;
}
