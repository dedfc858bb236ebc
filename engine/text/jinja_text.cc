#include "engine/text/jinja_text.h"

#include <algorithm>

#include "engine/text/jinja_unicode.h"

namespace neurogrid::jinja {
namespace {

constexpr size_t kShortNeedle = 16;

/// Knuth, Morris and Pratt 1977: failure[i] is the length of the longest proper border of the
/// first i + 1 characters.
template <typename Iterator>
std::vector<uint32_t> Borders(Iterator needle, size_t length) {
  std::vector<uint32_t> borders(length, 0);
  uint32_t k = 0;
  for (size_t i = 1; i < length; ++i) {
    while (k > 0 && needle[i] != needle[k]) k = borders[k - 1];
    if (needle[i] == needle[k]) ++k;
    borders[i] = k;
  }
  return borders;
}

/// Offset of the first match in characters read through the iterators; `text_length` when none.
template <typename Text, typename Needle>
size_t Search(Text text, size_t text_length, Needle needle, size_t needle_length) {
  const std::vector<uint32_t> borders = Borders(needle, needle_length);
  for (size_t i = 0, k = 0; i < text_length; ++i) {
    while (k > 0 && text[i] != needle[k]) k = borders[k - 1];
    if (text[i] == needle[k]) ++k;
    if (k == needle_length) return i + 1 - k;
  }
  return text_length;
}

template <typename T>
using Difference = typename std::iterator_traits<T>::difference_type;

/// Random access by size_t over an iterator, so that signedness stays in one place.
template <typename Iterator>
struct At {
  Iterator begin;
  char operator[](size_t i) const { return begin[static_cast<Difference<Iterator>>(i)]; }
};
template <typename Iterator>
At(Iterator) -> At<Iterator>;

/// Byte offset of the code point before `end`.
size_t PreviousStart(absl::string_view text, size_t end) {
  size_t start = end - 1;
  while (start > 0 && (static_cast<unsigned char>(text[start]) & 0xc0) == 0x80) --start;
  return start;
}

bool ContainsCode(absl::string_view characters, int32_t code) {
  for (size_t i = 0; i < characters.size();) {
    const CodePoint point = DecodeAt(characters, i);
    if (point.code == code) return true;
    i += static_cast<size_t>(point.length);
  }
  return false;
}

bool IsLineBreak(int32_t code) {
  return (code >= 0x0a && code <= 0x0d) || (code >= 0x1c && code <= 0x1e) || code == 0x85 ||
         code == 0x2028 || code == 0x2029;
}

}  // namespace

void Text::Append(absl::string_view bytes, Origin origin) {
  if (bytes.empty()) return;
  bytes_.append(bytes.data(), bytes.size());
  if (!runs_.empty() && runs_.back().origin == origin) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), origin});
  }
}

void Text::Append(const Text& text, size_t begin, size_t end) {
  if (begin >= end) return;
  auto run = std::upper_bound(text.runs_.begin(), text.runs_.end(), begin,
                              [](size_t place, const Run& r) { return place < r.end; });
  for (; begin < end; ++run) {
    const size_t stop = std::min(run->end, end);
    Append(absl::string_view(text.bytes_).substr(begin, stop - begin), run->origin);
    begin = stop;
  }
}

Text Text::Slice(size_t begin, size_t end) const {
  Text slice;
  slice.Append(*this, begin, end);
  return slice;
}

Origin Text::OriginAt(size_t position) const {
  return std::upper_bound(runs_.begin(), runs_.end(), position,
                          [](size_t place, const Run& run) { return place < run.end; })
      ->origin;
}

Origin Text::LeastTrusted() const {
  Origin least = Origin::kTemplate;
  for (const Run& run : runs_) least = std::max(least, run.origin);
  return least;
}

PromptText Text::Segments() const {
  PromptText segments;
  size_t begin = 0;
  for (const Run& run : runs_) {
    segments.push_back({bytes_.substr(begin, run.end - begin), run.origin});
    begin = run.end;
  }
  return segments;
}

size_t Find(absl::string_view text, absl::string_view needle, size_t from) {
  if (from > text.size()) return absl::string_view::npos;
  if (needle.size() <= kShortNeedle) return text.find(needle, from);
  const absl::string_view rest = text.substr(from);
  if (needle.size() > rest.size()) return absl::string_view::npos;
  const size_t place = Search(At{rest.begin()}, rest.size(), At{needle.begin()}, needle.size());
  return place == rest.size() ? absl::string_view::npos : from + place;
}

size_t FindLast(absl::string_view text, absl::string_view needle) {
  if (needle.size() <= kShortNeedle) return text.rfind(needle);
  if (needle.size() > text.size()) return absl::string_view::npos;
  const size_t place = Search(At{text.rbegin()}, text.size(), At{needle.rbegin()}, needle.size());
  return place == text.size() ? absl::string_view::npos : text.size() - place - needle.size();
}

std::vector<ByteRange> Split(absl::string_view text, absl::string_view separator, int64_t most) {
  std::vector<ByteRange> pieces;
  size_t begin = 0;
  while (most < 0 || static_cast<int64_t>(pieces.size()) < most) {
    const size_t place = Find(text, separator, begin);
    if (place == absl::string_view::npos) break;
    pieces.push_back({begin, place});
    begin = place + separator.size();
  }
  pieces.push_back({begin, text.size()});
  return pieces;
}

std::vector<ByteRange> SplitFromRight(absl::string_view text, absl::string_view separator,
                                      int64_t most) {
  std::vector<ByteRange> pieces;
  size_t end = text.size();
  while (most < 0 || static_cast<int64_t>(pieces.size()) < most) {
    const size_t place = FindLast(text.substr(0, end), separator);
    if (place == absl::string_view::npos) break;
    pieces.push_back({place + separator.size(), end});
    end = place;
  }
  pieces.push_back({0, end});
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

std::vector<ByteRange> SplitSpace(absl::string_view text, int64_t most) {
  std::vector<ByteRange> pieces;
  size_t i = 0;
  while (true) {
    while (i < text.size() && IsSpace(DecodeAt(text, i).code)) {
      i += static_cast<size_t>(DecodeAt(text, i).length);
    }
    if (i == text.size()) return pieces;
    const size_t begin = i;
    if (most >= 0 && static_cast<int64_t>(pieces.size()) == most) {
      pieces.push_back({begin, text.size()});
      return pieces;
    }
    while (i < text.size() && !IsSpace(DecodeAt(text, i).code)) {
      i += static_cast<size_t>(DecodeAt(text, i).length);
    }
    pieces.push_back({begin, i});
  }
}

std::vector<ByteRange> SplitSpaceFromRight(absl::string_view text, int64_t most) {
  std::vector<ByteRange> pieces;
  size_t i = text.size();
  const auto space_before = [&] { return IsSpace(DecodeAt(text, PreviousStart(text, i)).code); };
  while (true) {
    while (i > 0 && space_before()) i = PreviousStart(text, i);
    if (i == 0) break;
    const size_t end = i;
    if (most >= 0 && static_cast<int64_t>(pieces.size()) == most) {
      pieces.push_back({0, end});
      break;
    }
    while (i > 0 && !space_before()) i = PreviousStart(text, i);
    pieces.push_back({i, end});
  }
  std::reverse(pieces.begin(), pieces.end());
  return pieces;
}

std::vector<ByteRange> SplitLines(absl::string_view text, bool keep_ends) {
  std::vector<ByteRange> lines;
  size_t begin = 0;
  for (size_t i = 0; i < text.size();) {
    const CodePoint point = DecodeAt(text, i);
    size_t next = i + static_cast<size_t>(point.length);
    if (IsLineBreak(point.code)) {
      if (point.code == '\r' && next < text.size() && text[next] == '\n') ++next;
      lines.push_back({begin, keep_ends ? next : i});
      begin = next;
    }
    i = next;
  }
  if (begin < text.size()) lines.push_back({begin, text.size()});
  return lines;
}

ByteRange Strip(absl::string_view text, const absl::string_view* characters, bool left,
                bool right) {
  const auto goes = [&](size_t place) {
    const int32_t code = DecodeAt(text, place).code;
    return characters == nullptr ? IsSpace(code) : ContainsCode(*characters, code);
  };
  size_t begin = 0;
  size_t end = text.size();
  while (left && begin < end && goes(begin)) {
    begin += static_cast<size_t>(DecodeAt(text, begin).length);
  }
  while (right && end > begin && goes(PreviousStart(text, end))) end = PreviousStart(text, end);
  return {begin, end};
}

}  // namespace neurogrid::jinja
