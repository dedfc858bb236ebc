// Writes GGUF files of metadata alone, for tests of what is read from it.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace neurogrid {

class GgufFile {
 public:
  GgufFile& String(const std::string& key, const std::string& value);
  GgufFile& Bool(const std::string& key, bool value);
  GgufFile& Integer(const std::string& key, int32_t value);
  GgufFile& Strings(const std::string& key, const std::vector<std::string>& values);
  GgufFile& Integers(const std::string& key, const std::vector<int32_t>& values);
  GgufFile& Floats(const std::string& key, const std::vector<float>& values);

  /// The file: version 3, little-endian, no tensors.
  std::string Bytes() const;

 private:
  void Begin(const std::string& key, uint32_t type);
  void BeginArray(const std::string& key, uint32_t type, uint64_t count);
  std::string body_;
  uint64_t keys_ = 0;
};

}  // namespace neurogrid
