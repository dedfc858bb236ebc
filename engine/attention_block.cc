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
  block.norms_ = {.query = NormOf(config, block.q_norm_), .key = NormOf(config, block.k_norm_)};
  return block;
}

ConstTensor AttentionBlock::Forward(Ops& ops, const Batch& batch, const Activations& a) const {
  ops.MatMul(a.qkv, a.normed, *qkv_);
  ops.RopeAndWriteKv(a.qkv, spec_.query_heads, norms_, *rotation_, kv_, batch);
  ops.Attention(a.attended, a.qkv, kv_, batch, spec_);
  return a.attended;
}

}  // namespace neurogrid
