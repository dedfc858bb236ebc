// A model whose matrices are blocks, small enough for every test.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "engine/model/checkpoint.h"
#include "engine/model/gguf.h"
#include "tests/engine/chain.h"
#include "tests/support/golden.h"

namespace neurogrid {

/// Two layers of Llama's form, 512 wide, out of the golden blocks.
class BlockModel {
 public:
  BlockModel(DType query, DType value, DType gate, DType up, DType table) {
    config_ = Checkpoint::Open(Golden("tiny/llama")).value()->config();
    config_.hidden_size = 512;
    config_.query_heads = 2;
    config_.kv_heads = 1;
    config_.head_dim = 32;
    config_.ffn_size = 64;
    config_.vocab_size = 64;
    config_.tied_embeddings = true;
    config_.layers.resize(2);
    config_.attention_scale = 1 / std::sqrt(32.0f);
    Add("model.embed_tokens.weight", table, {64, 512});
    AddNorm("model.norm.weight");
    for (const char* layer : {"model.layers.0.", "model.layers.1."}) {
      const std::string prefix = layer;
      AddNorm(prefix + "input_layernorm.weight");
      Add(prefix + "self_attn.q_proj.weight", query, {64, 512});
      Add(prefix + "self_attn.k_proj.weight", query, {32, 512});
      Add(prefix + "self_attn.v_proj.weight", value, {32, 512});
      Add(prefix + "self_attn.o_proj.weight", DType::kQ5_1, {512, 64});
      AddNorm(prefix + "post_attention_layernorm.weight");
      Add(prefix + "mlp.gate_proj.weight", gate, {64, 512});
      Add(prefix + "mlp.up_proj.weight", up, {64, 512});
      Add(prefix + "mlp.down_proj.weight", DType::kQ8_0, {512, 64});
    }
  }

  const ModelConfig& config() const { return config_; }
  const WeightStore& weights() const { return weights_; }

 private:
  /// The first elements of the golden tensor of this type, whatever its rows.
  void Add(const std::string& name, DType dtype, const Shape& shape) {
    for (const Gguf::TensorInfo& info : gguf_->tensors()) {
      if (info.tensor.dtype != dtype) continue;
      weights_.Add(name, {.tensor = ConstTensor(info.tensor.data, dtype, shape), .file = "blocks"});
    }
  }
  void AddNorm(const std::string& name) {
    weights_.Add(
        name, {.tensor = ConstTensor(ones_.data(), DType::kF32, Shape({512})), .file = "blocks"});
  }

  std::unique_ptr<Gguf> gguf_ = Gguf::Open(Golden("gguf/blocks.gguf")).value();
  std::vector<float> ones_ = std::vector<float>(512, 1.0f);
  ModelConfig config_;
  WeightStore weights_{"blocks"};
};

/// Of its vocabulary.
inline std::vector<int32_t> SomeIds(int count) {
  std::vector<int32_t> ids;
  for (int i = 0; i < count; ++i) ids.push_back((i * 37 + i * i) % 64);
  return ids;
}

}  // namespace neurogrid
