#include "engine/text/normalizer.h"

#include <algorithm>

#include "engine/text/unicode.h"

namespace neurogrid {
namespace {

ByteRange RangeOf(size_t begin, size_t end) {
  return {static_cast<uint32_t>(begin), static_cast<uint32_t>(end)};
}

/// Whom to trust for what replaces `place`: what stood there, or for nothing its neighbours.
Origin OriginAt(const MarkedText& text, ByteRange place) {
  if (place.begin < place.end) return text.WorstOrigin(place);
  const uint32_t size = static_cast<uint32_t>(text.bytes.size());
  return text.WorstOrigin({place.begin - (place.begin > 0), place.end + (place.end < size)});
}

MarkedText Stripped(const MarkedText& text, const StripStep& step) {
  const CharClasses& classes = CharClasses::Get();
  size_t begin = 0, end = text.bytes.size();
  while (step.left && begin < end) {
    size_t next = begin;
    if (!classes.IsSpace(NextCodePoint(text.bytes, next))) break;
    begin = next;
  }
  while (step.right && end > begin) {
    const size_t last = CodePointBefore(text.bytes, end);
    size_t at = last;
    if (!classes.IsSpace(NextCodePoint(text.bytes, at))) break;
    end = last;
  }
  MarkedText out;
  out.Append(text, RangeOf(begin, end));
  return out;
}

}  // namespace

MarkedText Replaced(const MarkedText& text, absl::string_view from, absl::string_view to) {
  MarkedText out;
  out.bytes.reserve(text.bytes.size());
  out.origins.reserve(text.bytes.size());
  size_t done = 0;
  while (true) {
    const size_t found = text.bytes.find(from.data(), done, from.size());
    const size_t stop = found == std::string::npos ? text.bytes.size() : found;
    out.Append(text, RangeOf(done, stop));
    if (found == std::string::npos) return out;
    done = found + from.size();
    out.Append(to, text.WorstOrigin(RangeOf(found, done)));
  }
}

absl::StatusOr<MarkedText> Replaced(const MarkedText& text, const SplitPattern& from,
                                    absl::string_view to) {
  NG_ASSIGN_OR_RETURN(const std::vector<ByteRange> matches, from.Matches(text.bytes));
  MarkedText out;
  size_t done = 0;
  for (const ByteRange match : matches) {
    out.Append(text, RangeOf(done, match.begin));
    out.Append(to, OriginAt(text, match));
    done = match.end;
  }
  out.Append(text, RangeOf(done, text.bytes.size()));
  return out;
}

absl::StatusOr<MarkedText> Normalizer::Apply(MarkedText section) const {
  for (const NormalizerStep& step : steps_) {
    if (section.bytes.empty()) break;
    if (const auto* prepend = std::get_if<PrependStep>(&step)) {
      section.origins.insert(0, prepend->text.size(), section.origins[0]);
      section.bytes.insert(0, prepend->text);
    } else if (const auto* replace = std::get_if<ReplaceStep>(&step)) {
      if (replace->regex == nullptr) {
        section = Replaced(section, replace->literal, replace->to);
      } else {
        NG_ASSIGN_OR_RETURN(section, Replaced(section, *replace->regex, replace->to));
      }
    } else if (const auto* form = std::get_if<NormalForm>(&step)) {
      section = Normalized(std::move(section), *form);
    } else if (const auto* strip = std::get_if<StripStep>(&step)) {
      section = Stripped(section, *strip);
    } else {
      const bool lower = std::holds_alternative<LowercaseStep>(step);
      section = lower ? LowerCased(section) : WithoutAccents(section);
    }
  }
  return section;
}

}  // namespace neurogrid
