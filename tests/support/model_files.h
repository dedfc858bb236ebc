// Writers of small model files, whole or deliberately broken.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/json.h"

namespace neurogrid {

/// The bytes of `value` in memory order.
template <typename T>
std::string Bytes(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof value);
}

/// A GGUF file piece by piece; fields may be set to lie about the rest.
class GgufWriter {
 public:
  GgufWriter& Key(const std::string& key, uint32_t type, const std::string& value);
  GgufWriter& Text(const std::string& key, const std::string& value);
  GgufWriter& U32(const std::string& key, uint32_t value) { return Key(key, 4, Bytes(value)); }
  GgufWriter& F32(const std::string& key, float value) { return Key(key, 6, Bytes(value)); }
  /// `dims` innermost first; the offset is where the data stands unless given.
  GgufWriter& Tensor(const std::string& name, const std::vector<uint64_t>& dims, uint32_t type,
                     const std::string& data, std::optional<uint64_t> offset = std::nullopt);
  std::string File() const;

  std::string magic = "GGUF";
  uint32_t version = 3;
  std::optional<uint64_t> tensor_count;
  std::optional<uint64_t> key_count;
  uint64_t alignment = 32;

  static std::string String(const std::string& text) {
    return Bytes(static_cast<uint64_t>(text.size())) + text;
  }

 private:
  uint64_t keys_ = 0;
  uint64_t tensors_ = 0;
  std::string metadata_;
  std::string infos_;
  std::string data_;
};

/// A safetensors file of this header text and data.
std::string SafetensorsBytes(const std::string& header, const std::string& data);

/// A tensor of a model under construction; float32 values.
struct FloatTensor {
  std::string name;
  std::vector<int64_t> shape;
  std::vector<float> values;
  std::string dtype = "F32";  // what the header says; BF16 and F16 halve the bytes
};

/// Header and data of these tensors, in this order.
std::string SafetensorsOf(const std::vector<FloatTensor>& tensors);

/// All tensors of a tiny llama of 1 layer: hidden 8, 2 heads of 8, 1 kv head, ffn 16, vocab 6, with
/// the config text that describes it.
std::vector<FloatTensor> MicroLlama();
std::string MicroConfig();

}  // namespace neurogrid
