#include "engine/attention_block.h"

namespace neurogrid {

absl::StatusOr<AttentionBlock> AttentionBlock::Load(WeightLoader& loader, const ModelConfig& config,
                                                    const TensorNames& names, int layer,
                                                    const Rotation* rotation,
                                                    const KvLayerView& kv) {
  const int64_t d = config.head_dim;
  const float offset = config.norm_offset;
  AttentionBlock block;
  NG_ASSIGN_OR_RETURN(block.qkv_,
                      loader.Linear({{LayerPart(layer, names.query), config.query_heads * d},
                                     {LayerPart(layer, names.key), config.kv_heads * d},
                                     {LayerPart(layer, names.value), config.kv_heads * d}},
                                    config.hidden_size));
  NG_ASSIGN_OR_RETURN(block.q_norm_,
                      loader.VectorIfPresent(LayerPart(layer, names.query_norm), d, offset));
  NG_ASSIGN_OR_RETURN(block.k_norm_,
                      loader.VectorIfPresent(LayerPart(layer, names.key_norm), d, offset));
  NG_ASSIGN_OR_RETURN(block.output_,
                      loader.Linear({{LayerPart(layer, names.output), config.hidden_size}},
                                    config.query_heads * d));
  block.rotation_ = rotation;
  block.kv_ = kv;
  block.spec_ = {.query_heads = config.query_heads,
                 .scale = config.attention_scale,
                 .softcap = config.attention_softcap,
                 .window = config.layers[static_cast<size_t>(layer)].window};
  block.epsilon_ = config.norm_epsilon;
  block.norm_rounds_before_weight_ = config.norm_rounds_before_weight;
  return block;
}

ConstTensor AttentionBlock::Forward(Ops& ops, const Batch& batch, const Activations& a) const {
  ops.MatMul(a.qkv, a.normed, *qkv_);
  const auto norm_heads = [&](const DeviceVector& weight, int first_head, int heads) {
    if (!weight) return;
    ops.RmsNormHeads(a.qkv, first_head, heads, weight.view, epsilon_, norm_rounds_before_weight_);
  };
  norm_heads(q_norm_, 0, spec_.query_heads);
  norm_heads(k_norm_, spec_.query_heads, kv_.kv_heads);
  ops.RopeAndWriteKv(a.qkv, spec_.query_heads, *rotation_, kv_, batch);
  ops.Attention(a.attended, a.qkv, kv_, batch, spec_);
  return a.attended;
}

}  // namespace neurogrid
