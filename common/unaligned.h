// Values at addresses of any alignment, in the machine's order of bytes.
#pragma once

#include <cstdint>
#include <cstring>

namespace neurogrid {

template <typename T>
T LoadUnaligned(const uint8_t* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

template <typename T>
void StoreUnaligned(uint8_t* bytes, T value) {
  std::memcpy(bytes, &value, sizeof value);
}

}  // namespace neurogrid
