#include "engine/text/byte_alphabet.h"

#include <array>

#include "engine/text/unicode.h"

namespace neurogrid {
namespace {

constexpr int kAlphabetEnd = 0x100 + 68;

bool StandsForItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || byte >= 0xae;
}

/// Code point to byte, -1 for none. The 68 bytes that do not print get U+0100 and on, in order.
std::array<int, kAlphabetEnd> MakeBytes() {
  std::array<int, kAlphabetEnd> bytes;
  bytes.fill(-1);
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    bytes[static_cast<size_t>(StandsForItself(byte) ? byte : next++)] = byte;
  }
  return bytes;
}

}  // namespace

std::optional<std::string> BytesOfSpelling(absl::string_view spelling) {
  static const std::array<int, kAlphabetEnd> bytes = MakeBytes();
  std::string out;
  for (size_t at = 0; at < spelling.size();) {
    const char32_t code = NextCodePoint(spelling, at);
    if (code >= kAlphabetEnd || bytes[code] < 0) return std::nullopt;
    out += static_cast<char>(bytes[code]);
  }
  return out;
}

char32_t CodePointOfByte(unsigned char byte) {
  static const std::array<char32_t, 256> codes = [] {
    std::array<char32_t, 256> out{};
    const std::array<int, kAlphabetEnd> bytes = MakeBytes();
    for (size_t code = 0; code < bytes.size(); ++code) {
      if (bytes[code] >= 0) out[static_cast<size_t>(bytes[code])] = static_cast<char32_t>(code);
    }
    return out;
  }();
  return codes[byte];
}

}  // namespace neurogrid
