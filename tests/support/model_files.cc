#include "tests/support/model_files.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace neurogrid {

GgufWriter& GgufWriter::Key(const std::string& key, uint32_t type, const std::string& value) {
  ++keys_;
  metadata_ += String(key) + Bytes(type) + value;
  return *this;
}

GgufWriter& GgufWriter::Text(const std::string& key, const std::string& value) {
  return Key(key, 8, String(value));
}

GgufWriter& GgufWriter::Tensor(const std::string& name, const std::vector<uint64_t>& dims,
                               uint32_t type, const std::string& data,
                               std::optional<uint64_t> offset) {
  ++tensors_;
  infos_ += String(name) + Bytes(static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) infos_ += Bytes(dim);
  infos_ += Bytes(type) + Bytes(offset.value_or(data_.size()));
  data_ += data;
  data_.resize((data_.size() + alignment - 1) / alignment * alignment);
  return *this;
}

std::string GgufWriter::File() const {
  std::string file = magic + Bytes(version) + Bytes(tensor_count.value_or(tensors_)) +
                     Bytes(key_count.value_or(keys_)) + metadata_ + infos_;
  file.resize((file.size() + alignment - 1) / alignment * alignment);
  return file + data_;
}

std::string SafetensorsBytes(const std::string& header, const std::string& data) {
  return Bytes(static_cast<uint64_t>(header.size())) + header + data;
}

std::string SafetensorsOf(const std::vector<FloatTensor>& tensors) {
  std::vector<std::string> entries;
  std::string data;
  for (const FloatTensor& tensor : tensors) {
    const size_t begin = data.size();
    for (const float value : tensor.values) {
      const std::string bytes = Bytes(value);
      data += tensor.dtype == "F32" ? bytes : bytes.substr(2);
    }
    entries.push_back(absl::StrCat("\"", tensor.name, "\":{\"dtype\":\"", tensor.dtype,
                                   "\",\"shape\":[", absl::StrJoin(tensor.shape, ","),
                                   "],\"data_offsets\":[", begin, ",", data.size(), "]}"));
  }
  return SafetensorsBytes(absl::StrCat("{", absl::StrJoin(entries, ","), "}"), data);
}

std::vector<FloatTensor> MicroLlama() {
  std::vector<FloatTensor> tensors;
  float next = 0;
  const auto add = [&](const std::string& name, const std::vector<int64_t>& shape) {
    int64_t elements = 1;
    for (const int64_t dimension : shape) elements *= dimension;
    FloatTensor tensor{name, shape, {}};
    for (int64_t i = 0; i < elements; ++i) tensor.values.push_back(next += 0.25f);
    tensors.push_back(std::move(tensor));
  };
  const std::string layer = "model.layers.0.";
  add("model.embed_tokens.weight", {6, 8});
  add("model.norm.weight", {8});
  add("lm_head.weight", {6, 8});
  add(layer + "input_layernorm.weight", {8});
  add(layer + "self_attn.q_proj.weight", {16, 8});
  add(layer + "self_attn.k_proj.weight", {8, 8});
  add(layer + "self_attn.v_proj.weight", {8, 8});
  add(layer + "self_attn.o_proj.weight", {8, 16});
  add(layer + "post_attention_layernorm.weight", {8});
  add(layer + "mlp.gate_proj.weight", {16, 8});
  add(layer + "mlp.up_proj.weight", {16, 8});
  add(layer + "mlp.down_proj.weight", {8, 16});
  return tensors;
}

std::string MicroConfig() {
  return R"({"model_type":"llama","architectures":["LlamaForCausalLM"],"hidden_size":8,
"intermediate_size":16,"num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,"head_dim":8,
"vocab_size":6,"max_position_embeddings":64,"rms_norm_eps":1e-5,"tie_word_embeddings":false})";
}

}  // namespace neurogrid
