#include "engine/text/jinja_unicode.h"

#include <algorithm>
#include <string>
#include <vector>

#include "engine/text/jinja_unicode_data.h"
#include "engine/text/unicode.h"

namespace neurogrid::jinja {
namespace {

/// A set as its places of change, for binary search.
class CodeSet {
 public:
  explicit CodeSet(absl::Span<const int32_t> distances) {
    int32_t place = 0;
    for (const int32_t distance : distances) places_.push_back(place += distance);
  }
  bool Contains(int32_t code) const {
    return (std::upper_bound(places_.begin(), places_.end(), code) - places_.begin()) % 2 == 1;
  }

 private:
  std::vector<int32_t> places_;
};

CaseForm MapCase(int32_t code, absl::Span<const CaseRange> ranges,
                 absl::Span<const CaseExpansion> special) {
  const auto expansion =
      std::lower_bound(special.begin(), special.end(), code,
                       [](const CaseExpansion& row, int32_t wanted) { return row.code < wanted; });
  if (expansion != special.end() && expansion->code == code) {
    return {{expansion->to[0], expansion->to[1], expansion->to[2]}, expansion->to[2] != 0 ? 3 : 2};
  }
  auto range =
      std::upper_bound(ranges.begin(), ranges.end(), code,
                       [](int32_t wanted, const CaseRange& row) { return wanted < row.first; });
  if (range != ranges.begin()) {
    --range;
    if (code <= range->last && (code - range->first) % range->step == 0) {
      return {{code + range->delta, 0, 0}, 1};
    }
  }
  return {{code, 0, 0}, 1};
}

bool IsSameCode(const CaseForm& form, int32_t code) {
  return form.count == 1 && form.codes[0] == code;
}

}  // namespace

CodePoint DecodeAt(absl::string_view text, size_t position) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[position + i]); };
  const unsigned char lead = byte(0);
  if (lead < 0x80) return {lead, 1};
  const int length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (lead < 0xc2 || lead > 0xf4 || text.size() - position < static_cast<size_t>(length)) {
    return {lead, 1};
  }
  int32_t code = lead & (0x7f >> length);
  for (int i = 1; i < length; ++i) {
    const unsigned char next = byte(static_cast<size_t>(i));
    if ((next & 0xc0) != 0x80) return {lead, 1};
    code = (code << 6) | (next & 0x3f);
  }
  return {code, length};
}

void AppendUtf8(std::string& out, int32_t code) {
  neurogrid::AppendUtf8(out, static_cast<char32_t>(code));
}

bool IsUtf8(absl::string_view text) {
  static constexpr int32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  for (size_t i = 0; i < text.size();) {
    const CodePoint point = DecodeAt(text, i);
    const bool ascii = static_cast<unsigned char>(text[i]) < 0x80;
    if (point.length == 1 && !ascii) return false;
    if (!ascii && point.code < kSmallest[point.length]) return false;
    if (point.code > 0x10ffff || (point.code >= 0xd800 && point.code < 0xe000)) return false;
    i += static_cast<size_t>(point.length);
  }
  return true;
}

int64_t CountCodePoints(absl::string_view text) {
  return std::count_if(text.begin(), text.end(),
                       [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; });
}

size_t OffsetOf(absl::string_view text, int64_t index) {
  size_t offset = 0;
  for (; index > 0 && offset < text.size(); --index) {
    offset += static_cast<size_t>(DecodeAt(text, offset).length);
  }
  return offset;
}

bool IsSpace(int32_t code) {
  return (code >= 9 && code <= 13) || (code >= 0x1c && code <= 0x20) || code == 0x85 ||
         code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
         code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

bool IsPrintable(int32_t code) {
  if (code < 0x7f) return code >= 0x20;
  static const CodeSet* const set = new CodeSet(kPrintableToggles);
  return set->Contains(code);
}

bool IsAlpha(int32_t code) {
  static const CodeSet* const set = new CodeSet(kAlphaToggles);
  return set->Contains(code);
}

bool IsDecimal(int32_t code) {
  static const CodeSet* const set = new CodeSet(kDecimalToggles);
  return set->Contains(code);
}

bool IsDigit(int32_t code) {
  static const CodeSet* const set = new CodeSet(kDigitToggles);
  return set->Contains(code);
}

bool IsNumeric(int32_t code) {
  static const CodeSet* const set = new CodeSet(kNumericToggles);
  return set->Contains(code);
}

bool IsTitle(int32_t code) {
  static const CodeSet* const set = new CodeSet(kTitleToggles);
  return set->Contains(code);
}

bool IsUpper(int32_t code) {
  static const CodeSet* const others = new CodeSet(kOtherUpperToggles);
  if (others->Contains(code)) return true;
  return !IsSameCode(ToCase(code, Case::kLower), code) && !IsTitle(code);
}

bool IsLower(int32_t code) {
  static const CodeSet* const others = new CodeSet(kOtherLowerToggles);
  if (others->Contains(code)) return true;
  return !IsSameCode(ToCase(code, Case::kUpper), code) && !IsTitle(code);
}

bool IsCaseIgnorable(int32_t code) {
  static const CodeSet* const set = new CodeSet(kIgnorableToggles);
  return set->Contains(code);
}

CaseForm ToCase(int32_t code, Case to) {
  switch (to) {
    case Case::kUpper:
      return MapCase(code, kUpperCase, kUpperSpecial);
    case Case::kLower:
      return MapCase(code, kLowerCase, kLowerSpecial);
    case Case::kTitle:
      return MapCase(code, kTitleCase, kTitleSpecial);
  }
  return {{code, 0, 0}, 1};
}

}  // namespace neurogrid::jinja
