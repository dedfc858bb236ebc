#include "engine/model/tensor_table.h"

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/limits.h"

namespace neurogrid {
namespace {

struct GgufName {
  absl::string_view gguf;
  absl::string_view TensorNames::*part;
};

constexpr GgufName kOuterNames[] = {
    {"token_embd", &TensorNames::embedding},
    {"output", &TensorNames::head},
};

constexpr GgufName kLayerNames[] = {
    {"attn_norm", &TensorNames::attention_norm},
    {"attn_q", &TensorNames::query},
    {"attn_k", &TensorNames::key},
    {"attn_v", &TensorNames::value},
    {"attn_output", &TensorNames::output},
    {"attn_q_norm", &TensorNames::query_norm},
    {"attn_k_norm", &TensorNames::key_norm},
    {"post_attention_norm", &TensorNames::post_attention_norm},
    {"ffn_norm", &TensorNames::ffn_norm},
    {"ffn_gate", &TensorNames::gate},
    {"ffn_up", &TensorNames::up},
    {"ffn_down", &TensorNames::down},
    {"post_ffw_norm", &TensorNames::post_ffn_norm},
    {"shortconv.in_proj", &TensorNames::conv_in},
    {"shortconv.conv", &TensorNames::conv_taps},
    {"shortconv.out_proj", &TensorNames::conv_out},
};

template <size_t N>
absl::string_view PartOf(const Architecture& row, const GgufName (&table)[N],
                         absl::string_view name) {
  for (const GgufName& entry : table) {
    if (entry.gguf == name) return row.tensors.*entry.part;
  }
  return "";
}

}  // namespace

std::vector<ExpectedTensor> LayerTensors(const Architecture& row, const ModelConfig& config,
                                         int layer) {
  const TensorNames& names = row.tensors;
  const int64_t hidden = config.hidden_size;
  const int64_t ffn = config.ffn_size;
  const int64_t head = config.head_dim;
  const int64_t queries = config.query_heads * head;
  const int64_t keys = config.kv_heads * head;

  std::vector<ExpectedTensor> tensors;
  const auto add = [&](absl::string_view part, const Shape& shape, bool bias) {
    if (part.empty()) return;
    tensors.push_back({LayerTensor(layer, part), shape});
    if (bias) tensors.push_back({LayerTensor(layer, part, "bias"), {shape[0]}});
  };
  add(names.attention_norm, {hidden}, false);
  switch (config.layers[static_cast<size_t>(layer)].kind) {
    case BlockKind::kAttention:
      add(names.query, {queries, hidden}, config.qkv_bias);
      add(names.key, {keys, hidden}, config.qkv_bias);
      add(names.value, {keys, hidden}, config.qkv_bias);
      add(names.output, {hidden, queries}, config.output_bias);
      add(names.query_norm, {head}, false);
      add(names.key_norm, {head}, false);
      break;
    case BlockKind::kShortConvolution:
      add(names.conv_in, {3 * hidden, hidden}, config.conv_bias);
      add(names.conv_taps, {hidden, 1, config.conv_taps}, config.conv_bias);
      add(names.conv_out, {hidden, hidden}, config.conv_bias);
      break;
  }
  add(names.post_attention_norm, {hidden}, false);
  add(names.ffn_norm, {hidden}, false);
  add(names.gate, {ffn, hidden}, config.mlp_bias);
  add(names.up, {ffn, hidden}, config.mlp_bias);
  add(names.down, {hidden, ffn}, config.mlp_bias);
  add(names.post_ffn_norm, {hidden}, false);
  return tensors;
}

std::vector<ExpectedTensor> OuterTensors(const Architecture& row, const ModelConfig& config) {
  const Shape table = {config.vocab_size, config.hidden_size};
  std::vector<ExpectedTensor> tensors = {
      {absl::StrCat(row.tensors.embedding, ".weight"), table},
      {absl::StrCat(row.tensors.final_norm, ".weight"), {config.hidden_size}},
  };
  if (!config.tied_embeddings) {
    tensors.push_back({absl::StrCat(row.tensors.head, ".weight"), table});
  }
  return tensors;
}

std::string TranslateGgufName(const Architecture& row, absl::string_view name) {
  absl::string_view suffix = "weight";
  if (absl::ConsumeSuffix(&name, ".bias")) {
    suffix = "bias";
  } else if (!absl::ConsumeSuffix(&name, ".weight")) {
    return "";
  }
  if (!absl::ConsumePrefix(&name, "blk.")) {
    const absl::string_view whole =
        name == row.gguf_final_norm ? row.tensors.final_norm : PartOf(row, kOuterNames, name);
    return whole.empty() ? "" : absl::StrCat(whole, ".", suffix);
  }
  const size_t dot = name.find('.');
  int layer = 0;
  if (dot == absl::string_view::npos || !absl::SimpleAtoi(name.substr(0, dot), &layer) ||
      layer < 0 || layer >= kLayersMax || name.substr(0, dot) != absl::StrCat(layer)) {
    return "";
  }
  const absl::string_view part = PartOf(row, kLayerNames, name.substr(dot + 1));
  return part.empty() ? "" : LayerTensor(layer, part, suffix);
}

std::string GgufNameOf(const Architecture& row, absl::string_view name) {
  const auto name_of = [&row](const auto& table, absl::string_view part) -> absl::string_view {
    for (const GgufName& entry : table) {
      if (row.tensors.*entry.part == part) return entry.gguf;
    }
    return row.gguf_final_norm;
  };
  const size_t dot = name.rfind('.');
  absl::string_view part = name.substr(0, dot);
  const absl::string_view suffix = name.substr(dot);
  if (!absl::ConsumePrefix(&part, "model.layers.")) {
    return absl::StrCat(name_of(kOuterNames, part), suffix);
  }
  const size_t end = part.find('.');
  return absl::StrCat("blk.", part.substr(0, end), ".", name_of(kLayerNames, part.substr(end + 1)),
                      suffix);
}

}  // namespace neurogrid
