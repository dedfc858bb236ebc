#include "engine/text/unicode.h"

#include <algorithm>

#include "engine/text/unicode_tables.h"

namespace neurogrid {
namespace {

struct SecondByte {
  unsigned char first, last;
};

/// Unicode 16, table 3-7: what may follow a lead byte. Only the second byte depends on the lead.
SecondByte SecondByteAfter(unsigned char lead) {
  if (lead == 0xe0) return {0xa0, 0xbf};
  if (lead == 0xed) return {0x80, 0x9f};
  if (lead == 0xf0) return {0x90, 0xbf};
  if (lead == 0xf4) return {0x80, 0x8f};
  return {0x80, 0xbf};
}

}  // namespace

Utf8Step StepUtf8(absl::string_view bytes) {
  const auto byte = [&](int i) {
    return static_cast<unsigned char>(bytes[static_cast<size_t>(i)]);
  };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {Utf8Step::kValid, 1, lead};
  if (lead < 0xc2 || lead > 0xf4) return {};
  const int length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  char32_t code = lead & (0x7fu >> length);
  SecondByte allowed = SecondByteAfter(lead);
  for (int i = 1; i < length; ++i) {
    if (i == static_cast<int>(bytes.size())) return {Utf8Step::kTruncated, i, 0xFFFD};
    if (byte(i) < allowed.first || byte(i) > allowed.last) return {Utf8Step::kInvalid, i, 0xFFFD};
    code = (code << 6) | (byte(i) & 0x3fu);
    allowed = {0x80, 0xbf};
  }
  return {Utf8Step::kValid, length, code};
}

size_t FirstInvalidUtf8(absl::string_view bytes) {
  size_t at = 0;
  while (at < bytes.size()) {
    if (static_cast<unsigned char>(bytes[at]) < 0x80) {
      ++at;
      continue;
    }
    const Utf8Step step = StepUtf8(bytes.substr(at));
    if (step.kind != Utf8Step::kValid) return at;
    at += static_cast<size_t>(step.length);
  }
  return bytes.size();
}

void AppendUtf8(std::string& out, char32_t code) {
  const auto put = [&](char32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xc0 | (code >> 6));
    put(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    put(0xe0 | (code >> 12));
    put(0x80 | ((code >> 6) & 0x3f));
    put(0x80 | (code & 0x3f));
  } else {
    put(0xf0 | (code >> 18));
    put(0x80 | ((code >> 12) & 0x3f));
    put(0x80 | ((code >> 6) & 0x3f));
    put(0x80 | (code & 0x3f));
  }
}

const CharClasses& CharClasses::Get() {
  static const CharClasses classes;
  return classes;
}

CharClasses::CharClasses() {
  int run = 0;
  for (size_t block = 0; block < block_of_.size(); ++block) {
    std::array<uint8_t, 256> classes;
    for (size_t i = 0; i < 256; ++i) {
      const uint32_t code = static_cast<uint32_t>(block * 256 + i);
      while (run + 1 < kCharClassRunCount && (kCharClassRuns[run + 1] >> 4) <= code) ++run;
      classes[i] = static_cast<uint8_t>(kCharClassRuns[run] & 0xf);
    }
    const auto same = std::find(blocks_.begin(), blocks_.end(), classes);
    block_of_[block] = static_cast<uint16_t>(same - blocks_.begin());
    if (same == blocks_.end()) blocks_.push_back(classes);
  }
}

bool IsWord(char32_t code) {
  struct Range {
    char32_t first, last;
  };
  // Beyond what the general categories say: Pc, the joiners, and circled and squared letters.
  static constexpr Range kMore[] = {{'_', '_'},         {0x200C, 0x200D},  {0x203F, 0x2040},
                                    {0x2054, 0x2054},   {0x24B6, 0x24E9},  {0xFE33, 0xFE34},
                                    {0xFE4D, 0xFE4F},   {0xFF3F, 0xFF3F},  {0x1F130, 0x1F149},
                                    {0x1F150, 0x1F169}, {0x1F170, 0x1F189}};
  const CharClass c = CharClasses::Get().Of(code);
  if (c >= CharClass::kLu && c <= CharClass::kNumber) return true;
  return std::any_of(std::begin(kMore), std::end(kMore),
                     [code](const Range& r) { return r.first <= code && code <= r.last; });
}

}  // namespace neurogrid
