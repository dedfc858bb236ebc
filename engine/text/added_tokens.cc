#include "engine/text/added_tokens.h"

#include <algorithm>

#include "engine/text/unicode.h"

namespace neurogrid {
namespace {

bool TouchesWord(absl::string_view text, size_t begin, size_t end) {
  if (begin > 0) {
    size_t at = CodePointBefore(text, begin);
    if (IsWord(NextCodePoint(text, at))) return true;
  }
  return end < text.size() && IsWord(NextCodePoint(text, end));
}

size_t SkipSpacesBackward(absl::string_view text, size_t begin, size_t least) {
  while (begin > least) {
    const size_t start = CodePointBefore(text, begin);
    size_t at = start;
    if (!CharClasses::Get().IsSpace(NextCodePoint(text, at))) break;
    begin = start;
  }
  return std::max(begin, least);
}

size_t SkipSpacesForward(absl::string_view text, size_t end) {
  while (end < text.size()) {
    size_t at = end;
    if (!CharClasses::Get().IsSpace(NextCodePoint(text, at))) break;
    end = at;
  }
  return end;
}

ByteRange RangeOf(size_t begin, size_t end) {
  return {static_cast<uint32_t>(begin), static_cast<uint32_t>(end)};
}

}  // namespace

AddedTokenMatcher::AddedTokenMatcher(std::vector<Pattern> patterns)
    : patterns_(std::move(patterns)) {
  std::erase_if(patterns_, [](const Pattern& p) { return p.spelling.empty(); });
  std::stable_sort(patterns_.begin(), patterns_.end(),
                   [](const Pattern& a, const Pattern& b) { return a.spelling < b.spelling; });
  const auto same = [](const Pattern& a, const Pattern& b) { return a.spelling == b.spelling; };
  patterns_.erase(std::unique(patterns_.begin(), patterns_.end(), same), patterns_.end());
  uint32_t next = 0;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    first_byte_[byte] = next;
    while (next < patterns_.size() &&
           static_cast<unsigned char>(patterns_[next].spelling[0]) == byte) {
      ++next;
    }
  }
  first_byte_[256] = next;
}

const AddedTokenMatcher::Pattern* AddedTokenMatcher::LongestAt(
    absl::string_view text, size_t begin,
    absl::FunctionRef<bool(int32_t, ByteRange)> allowed) const {
  const unsigned char first = static_cast<unsigned char>(text[begin]);
  auto low = patterns_.begin() + first_byte_[first];
  auto high = patterns_.begin() + first_byte_[first + 1u];
  const Pattern* longest = nullptr;
  // [low, high) are the patterns that begin with the `length` bytes read so far.
  for (size_t length = 1; low != high; ++length) {
    if (low->spelling.size() == length) {
      if (allowed(low->token.id, RangeOf(begin, begin + length))) longest = &*low;
      ++low;
    }
    if (begin + length == text.size()) break;
    const auto byte = static_cast<unsigned char>(text[begin + length]);
    const auto at = [length](const Pattern& p) {
      return static_cast<unsigned char>(p.spelling[length]);
    };
    low = std::partition_point(low, high, [&](const Pattern& p) { return at(p) < byte; });
    high = std::partition_point(low, high, [&](const Pattern& p) { return at(p) <= byte; });
  }
  return longest;
}

std::vector<TextPart> AddedTokenMatcher::Split(
    absl::string_view text, absl::FunctionRef<bool(int32_t, ByteRange)> allowed) const {
  std::vector<TextPart> parts;
  size_t done = 0;  // everything before is in parts
  for (size_t at = 0; at < text.size();) {
    const unsigned char first = static_cast<unsigned char>(text[at]);
    const Pattern* found = nullptr;
    if (first_byte_[first] != first_byte_[first + 1u]) found = LongestAt(text, at, allowed);
    if (found == nullptr) {
      ++at;
      continue;
    }
    size_t begin = at;
    size_t end = at + found->spelling.size();
    at = end;
    if (found->token.single_word && TouchesWord(text, begin, end)) continue;
    if (found->token.lstrip) begin = SkipSpacesBackward(text, begin, done);
    if (found->token.rstrip) end = SkipSpacesForward(text, end);
    if (done < begin) parts.push_back({RangeOf(done, begin)});
    parts.push_back({RangeOf(begin, end), found->token.id});
    // A match inside white space that rstrip swallowed still counts, as in the reference.
    done = end;
  }
  if (done < text.size()) parts.push_back({RangeOf(done, text.size())});
  return parts;
}

}  // namespace neurogrid
