#include "tests/text/gguf_file.h"

#include <cstring>

namespace neurogrid {
namespace {

template <typename T>
void Put(std::string& out, T value) {
  char bytes[sizeof value];
  std::memcpy(bytes, &value, sizeof value);
  out.append(bytes, sizeof value);
}

void PutString(std::string& out, const std::string& text) {
  Put(out, uint64_t{text.size()});
  out += text;
}

}  // namespace

void GgufFile::Begin(const std::string& key, uint32_t type) {
  ++keys_;
  PutString(body_, key);
  Put(body_, type);
}

void GgufFile::BeginArray(const std::string& key, uint32_t type, uint64_t count) {
  Begin(key, 9);
  Put(body_, type);
  Put(body_, count);
}

GgufFile& GgufFile::String(const std::string& key, const std::string& value) {
  Begin(key, 8);
  PutString(body_, value);
  return *this;
}

GgufFile& GgufFile::Bool(const std::string& key, bool value) {
  Begin(key, 7);
  Put(body_, static_cast<uint8_t>(value));
  return *this;
}

GgufFile& GgufFile::Integer(const std::string& key, int32_t value) {
  Begin(key, 5);
  Put(body_, value);
  return *this;
}

GgufFile& GgufFile::Strings(const std::string& key, const std::vector<std::string>& values) {
  BeginArray(key, 8, values.size());
  for (const std::string& value : values) PutString(body_, value);
  return *this;
}

GgufFile& GgufFile::Integers(const std::string& key, const std::vector<int32_t>& values) {
  BeginArray(key, 5, values.size());
  for (const int32_t value : values) Put(body_, value);
  return *this;
}

GgufFile& GgufFile::Floats(const std::string& key, const std::vector<float>& values) {
  BeginArray(key, 6, values.size());
  for (const float value : values) Put(body_, value);
  return *this;
}

std::string GgufFile::Bytes() const {
  std::string file = "GGUF";
  Put(file, uint32_t{3});
  Put(file, uint64_t{0});
  Put(file, keys_);
  file += body_;
  file.append((32 - file.size() % 32) % 32, '\0');
  return file;
}

}  // namespace neurogrid
