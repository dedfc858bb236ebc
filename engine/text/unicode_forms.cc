#include "engine/text/unicode_forms.h"

#include <algorithm>
#include <array>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/types/span.h"
#include "engine/text/unicode.h"
#include "engine/text/unicode_forms_data.h"

namespace neurogrid {
namespace {

// Hangul syllables are computed (Unicode 9.0, 3.12).
constexpr char32_t kSyllables = 0xAC00, kLeads = 0x1100, kVowels = 0x1161, kTails = 0x11A7;
constexpr char32_t kLeadCount = 19, kVowelCount = 21, kTailCount = 28;
constexpr char32_t kSyllableCount = kLeadCount * kVowelCount * kTailCount;

bool IsSyllable(char32_t code) { return code >= kSyllables && code < kSyllables + kSyllableCount; }

/// One byte a code point, in two stages of lookup.
class CodePointBytes {
 public:
  CodePointBytes() : blocks_(1) {}
  uint8_t& At(char32_t code) {
    uint16_t& block = block_of_[code >> 8];
    if (block == 0) {
      block = static_cast<uint16_t>(blocks_.size());
      blocks_.emplace_back();
    }
    return blocks_[block][code & 0xff];
  }
  uint8_t Of(char32_t code) const { return blocks_[block_of_[code >> 8]][code & 0xff]; }

 private:
  std::array<uint16_t, 0x1100> block_of_{};
  std::vector<std::array<uint8_t, 256>> blocks_;
};

/// Reads lists whose code points are distances from the last one.
class NumberReader {
 public:
  explicit NumberReader(absl::Span<const int32_t> numbers) : numbers_(numbers) {}
  bool done() const { return numbers_.empty(); }
  char32_t Number() {
    const char32_t number = static_cast<char32_t>(numbers_.front());
    numbers_.remove_prefix(1);
    return number;
  }
  char32_t Code() { return last_ += Number(); }

 private:
  absl::Span<const int32_t> numbers_;
  char32_t last_ = 0;
};

uint8_t BitOf(NormalForm form) { return static_cast<uint8_t>(1 << static_cast<int>(form)); }

struct Tables {
  CodePointBytes combining;                                  // canonical combining class
  CodePointBytes unsafe;                                     // bit of a form: see NeedsWork
  absl::flat_hash_map<char32_t, std::u32string> canonical;   // whole decompositions
  absl::flat_hash_map<char32_t, std::u32string> compatible;  // where they differ from those
  absl::flat_hash_map<uint64_t, char32_t> composed;          // first << 32 | second
  static const Tables& Get() {
    static const Tables tables;
    return tables;
  }

 private:
  Tables();
  void ReadCanonical();
  void ReadCompatible();
  void MarkUnsafe();
};

uint64_t PairKey(char32_t first, char32_t second) { return (uint64_t{first} << 32) | second; }

void Tables::ReadCanonical() {
  NumberReader excluded(kNotComposed);
  char32_t next_excluded = excluded.Code();
  for (NumberReader pairs(kCanonicalPairs); !pairs.done();) {
    const char32_t code = pairs.Code();
    const char32_t first = pairs.Number(), second = pairs.Number();
    canonical[code] = {first, second};
    if (code != next_excluded) {
      composed[PairKey(first, second)] = code;
    } else if (!excluded.done()) {
      next_excluded = excluded.Code();
    }
  }
  for (NumberReader singles(kCanonicalSingles); !singles.done();) {
    const char32_t code = singles.Code();
    const char32_t count = singles.Number(), to = singles.Number();
    for (char32_t i = 0; i < count; ++i) canonical[code + i] = {to + i};
  }
  // Decompositions of what they decompose to; three rounds are enough for Unicode 9.0, the loop
  // ends by itself.
  for (bool changed = true; changed;) {
    changed = false;
    for (auto& [code, to] : canonical) {
      std::u32string whole;
      for (const char32_t part : to) {
        const auto deeper = canonical.find(part);
        whole += deeper == canonical.end() ? std::u32string(1, part) : deeper->second;
      }
      changed = changed || whole != to;
      to = whole;
    }
  }
}

void Tables::ReadCompatible() {
  for (NumberReader singles(kCompatibilitySingles); !singles.done();) {
    const char32_t code = singles.Code();
    const char32_t count = singles.Number(), to = singles.Number();
    for (char32_t i = 0; i < count; ++i) compatible[code + i] = {to + i};
  }
  for (NumberReader lists(kCompatibilityLists); !lists.done();) {
    std::u32string& to = compatible[lists.Code()];
    for (char32_t left = lists.Number(); left > 0; --left) to += lists.Number();
  }
}

/// A code point is unsafe for a form when it changes, reorders or may join what stands before it.
void Tables::MarkUnsafe() {
  using enum NormalForm;
  const uint8_t decomposing = BitOf(kNfd) | BitOf(kNfkd);
  const uint8_t composing = BitOf(kNfc) | BitOf(kNfkc);
  const uint8_t compatibility = BitOf(kNfkc) | BitOf(kNfkd);
  for (const auto& [code, to] : canonical) unsafe.At(code) |= decomposing | composing;
  for (const auto& [pair, code] : composed) {  // comes apart and together again
    unsafe.At(code) = static_cast<uint8_t>(unsafe.At(code) & ~composing);
  }
  for (const auto& [code, to] : compatible) unsafe.At(code) |= compatibility;
  for (const auto& [pair, code] : composed) unsafe.At(static_cast<char32_t>(pair)) |= composing;
  for (char32_t i = 0; i < kSyllableCount; ++i) unsafe.At(kSyllables + i) |= decomposing;
  for (char32_t i = 0; i < kVowelCount; ++i) unsafe.At(kVowels + i) |= composing;
  for (char32_t i = 1; i < kTailCount; ++i) unsafe.At(kTails + i) |= composing;
}

Tables::Tables() {
  ReadCanonical();
  ReadCompatible();
  MarkUnsafe();
  for (NumberReader classes(kCombiningClasses); !classes.done();) {
    const char32_t code = classes.Code();
    const char32_t count = classes.Number(), value = classes.Number();
    for (char32_t i = 0; i < count; ++i) {
      combining.At(code + i) = static_cast<uint8_t>(value);
      unsafe.At(code + i) = 0xf;
    }
  }
}

struct Unit {
  char32_t code;
  uint8_t combining;
  char origin;
};

void PushDecomposed(const Tables& tables, char32_t code, char origin, bool compatible,
                    std::vector<Unit>& out) {
  const auto push = [&](char32_t part) {
    out.push_back({part, tables.combining.Of(part), origin});
  };
  if (IsSyllable(code)) {
    const char32_t index = code - kSyllables;
    push(kLeads + index / (kVowelCount * kTailCount));
    push(kVowels + index / kTailCount % kVowelCount);
    if (index % kTailCount != 0) push(kTails + index % kTailCount);
    return;
  }
  if (compatible) {
    const auto found = tables.compatible.find(code);
    if (found != tables.compatible.end()) {
      for (const char32_t part : found->second) push(part);
      return;
    }
  }
  const auto found = tables.canonical.find(code);
  if (found == tables.canonical.end()) return push(code);
  for (const char32_t part : found->second) push(part);
}

/// Canonical ordering: marks between starters by class, equal classes as they stood.
void Reorder(std::vector<Unit>& units) {
  for (auto at = units.begin(); at != units.end();) {
    if (at->combining == 0) {
      ++at;
      continue;
    }
    const auto end = std::find_if(at, units.end(), [](const Unit& u) { return u.combining == 0; });
    std::stable_sort(at, end,
                     [](const Unit& a, const Unit& b) { return a.combining < b.combining; });
    at = end;
  }
}

/// What the two make together, 0 for nothing.
char32_t Compose(const Tables& tables, char32_t first, char32_t second) {
  if (first >= kLeads && first < kLeads + kLeadCount && second >= kVowels &&
      second < kVowels + kVowelCount) {
    return kSyllables + ((first - kLeads) * kVowelCount + (second - kVowels)) * kTailCount;
  }
  if (IsSyllable(first) && (first - kSyllables) % kTailCount == 0 && second > kTails &&
      second < kTails + kTailCount) {
    return first + (second - kTails);
  }
  const auto found = tables.composed.find(PairKey(first, second));
  return found == tables.composed.end() ? 0 : found->second;
}

/// Canonical composition: each unit joins the last starter unless something between blocks it.
void ComposeAll(const Tables& tables, std::vector<Unit>& units) {
  size_t kept = 0;
  size_t starter = units.size();  // of the kept ones; none yet
  for (const Unit& unit : units) {
    const bool adjacent = starter < kept && starter + 1 == kept;
    const bool reaches = starter < kept && (adjacent || units[kept - 1].combining < unit.combining);
    const char32_t whole = reaches ? Compose(tables, units[starter].code, unit.code) : 0;
    if (whole != 0) {
      units[starter].code = whole;
      units[starter].origin = std::max(units[starter].origin, unit.origin);
      continue;
    }
    if (unit.combining == 0) starter = kept;
    units[kept++] = unit;
  }
  units.resize(kept);
}

void Append(MarkedText& out, char32_t code, char origin) {
  AppendUtf8(out.bytes, code);
  out.origins.resize(out.bytes.size(), origin);
}

/// Replaces the code points [begin, end) of `text` by their normal form.
void AppendNormalized(const MarkedText& text, ByteRange range, NormalForm form,
                      std::vector<Unit>& units, MarkedText& out) {
  const Tables& tables = Tables::Get();
  units.clear();
  for (size_t at = range.begin; at < range.end;) {
    const char origin = text.origins[at];
    PushDecomposed(tables, NextCodePoint(text.bytes, at), origin,
                   form == NormalForm::kNfkc || form == NormalForm::kNfkd, units);
  }
  Reorder(units);
  if (form == NormalForm::kNfc || form == NormalForm::kNfkc) ComposeAll(tables, units);
  for (const Unit& unit : units) Append(out, unit.code, unit.origin);
}

/// Membership from distances between the places where it changes, beginning outside.
class ToggledSet {
 public:
  explicit ToggledSet(absl::Span<const int32_t> toggles) {
    bool inside = false;
    char32_t begin = 0;
    for (const int32_t distance : toggles) {
      const char32_t end = begin + static_cast<char32_t>(distance);
      for (; inside && begin < end; ++begin) members_.At(begin) = 1;
      begin = end;
      inside = !inside;
    }
  }
  bool Has(char32_t code) const { return members_.Of(code) != 0; }

 private:
  CodePointBytes members_;
};

absl::flat_hash_map<char32_t, char32_t> MakeLowerCase() {
  absl::flat_hash_map<char32_t, char32_t> lower;
  for (absl::Span<const int32_t> left = kLowerCase; !left.empty(); left.remove_prefix(4)) {
    for (int32_t code = left[0]; code <= left[1]; code += left[2]) {
      lower[static_cast<char32_t>(code)] = static_cast<char32_t>(code + left[3]);
    }
  }
  return lower;
}

}  // namespace

MarkedText Normalized(MarkedText text, NormalForm form) {
  const CodePointBytes& unsafe = Tables::Get().unsafe;
  const uint8_t bit = BitOf(form);
  const auto is_unsafe = [&](char32_t code) { return (unsafe.Of(code) & bit) != 0; };
  const size_t size = text.bytes.size();
  MarkedText out;
  std::vector<Unit> units;
  size_t done = 0;       // everything before is in out
  size_t last_safe = 0;  // the code point that an unsafe one may join
  for (size_t at = 0; at < size;) {
    size_t next = at;
    if (!is_unsafe(NextCodePoint(text.bytes, next))) {
      last_safe = at;
      at = next;
      continue;
    }
    size_t end = next;
    while (end < size) {
      next = end;
      if (!is_unsafe(NextCodePoint(text.bytes, next))) break;
      end = next;
    }
    const uint32_t begin = static_cast<uint32_t>(last_safe);
    out.Append(text, {static_cast<uint32_t>(done), begin});
    AppendNormalized(text, {begin, static_cast<uint32_t>(end)}, form, units, out);
    done = last_safe = at = end;
  }
  if (done == 0) return text;
  out.Append(text, {static_cast<uint32_t>(done), static_cast<uint32_t>(size)});
  return out;
}

MarkedText LowerCased(const MarkedText& text) {
  static const auto lower = MakeLowerCase();
  constexpr char32_t kDottedI = 0x130, kDot = 0x307;
  MarkedText out;
  for (size_t at = 0; at < text.bytes.size();) {
    const char origin = text.origins[at];
    const char32_t code = NextCodePoint(text.bytes, at);
    const auto found = lower.find(code == kDottedI ? 'I' : code);
    Append(out, found == lower.end() ? code : found->second, origin);
    if (code == kDottedI) Append(out, kDot, origin);
  }
  return out;
}

MarkedText WithoutAccents(const MarkedText& text) {
  static const ToggledSet accents(kAccentToggles);
  MarkedText out;
  for (size_t at = 0; at < text.bytes.size();) {
    const uint32_t begin = static_cast<uint32_t>(at);
    const bool accent = accents.Has(NextCodePoint(text.bytes, at));
    if (!accent) out.Append(text, {begin, static_cast<uint32_t>(at)});
  }
  return out;
}

bool IsPunctuation(char32_t code) {
  static const ToggledSet punctuation(kPunctuationToggles);
  return punctuation.Has(code);
}

}  // namespace neurogrid
