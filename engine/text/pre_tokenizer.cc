#include "engine/text/pre_tokenizer.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "common/check.h"
#include "engine/text/byte_alphabet.h"
#include "engine/text/normalizer.h"
#include "engine/text/unicode.h"
#include "engine/text/unicode_forms.h"

namespace neurogrid {
namespace {

using Pieces = std::vector<ByteRange>;

struct Cut {
  ByteRange range;
  bool match;
};

/// Matches and what lies between them, over the whole of `text`; ranges count from its start.
absl::StatusOr<std::vector<Cut>> CutsOf(const SplitStep& step, absl::string_view text) {
  Pieces matches;
  if (step.scanner != nullptr) {
    for (size_t at = 0; at < text.size();) {
      const size_t end = step.scanner(CharClasses::Get(), text, at);
      matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(end)});
      at = end;
    }
  } else if (step.regex != nullptr) {
    NG_ASSIGN_OR_RETURN(matches, step.regex->Matches(text));
  } else {
    for (size_t at = 0; (at = text.find(step.literal, at)) != absl::string_view::npos;) {
      const size_t end = at + step.literal.size();
      matches.push_back({static_cast<uint32_t>(at), static_cast<uint32_t>(end)});
      at = end;
    }
  }
  std::vector<Cut> cuts;
  uint32_t done = 0;
  for (const ByteRange match : matches) {
    if (done < match.begin) cuts.push_back({{done, match.begin}, step.invert});
    cuts.push_back({match, !step.invert});
    done = match.end;
  }
  const uint32_t size = static_cast<uint32_t>(text.size());
  if (done < size) cuts.push_back({{done, size}, step.invert});
  return cuts;
}

/// The reference's meaning of each behaviour, runs of matches and empty matches included.
Pieces Behave(const std::vector<Cut>& cuts, SplitBehavior behavior) {
  Pieces pieces;
  bool previous = false;  // the cut before was a match
  switch (behavior) {
    case SplitBehavior::kIsolated:
      for (const Cut& cut : cuts) pieces.push_back(cut.range);
      break;
    case SplitBehavior::kRemoved:
      for (const Cut& cut : cuts) {
        if (!cut.match) pieces.push_back(cut.range);
      }
      break;
    case SplitBehavior::kContiguous:
      for (const Cut& cut : cuts) {
        if (cut.match == previous && !pieces.empty()) {
          pieces.back().end = cut.range.end;
        } else {
          pieces.push_back(cut.range);
        }
        previous = cut.match;
      }
      break;
    case SplitBehavior::kMergedWithPrevious:
      for (const Cut& cut : cuts) {
        if (cut.match && !previous && !pieces.empty()) {
          pieces.back().end = cut.range.end;
        } else {
          pieces.push_back(cut.range);
        }
        previous = cut.match;
      }
      break;
    case SplitBehavior::kMergedWithNext:
      for (auto cut = cuts.rbegin(); cut != cuts.rend(); ++cut) {
        if (cut->match && !previous && !pieces.empty()) {
          pieces.back().begin = cut->range.begin;
        } else {
          pieces.push_back(cut->range);
        }
        previous = cut->match;
      }
      std::reverse(pieces.begin(), pieces.end());
      break;
  }
  std::erase_if(pieces, [](ByteRange piece) { return piece.size() == 0; });
  return pieces;
}

absl::StatusOr<Pieces> Split(const SplitStep& step, const MarkedText& section,
                             const Pieces& pieces) {
  Pieces out;
  if (step.scanner != nullptr && step.behavior == SplitBehavior::kIsolated) {
    // The usual case: matches are the pieces.
    const CharClasses& classes = CharClasses::Get();
    for (const ByteRange piece : pieces) {
      const absl::string_view text = section.View(piece);
      for (size_t at = 0; at < text.size();) {
        const size_t end = step.scanner(classes, text, at);
        out.push_back(
            {piece.begin + static_cast<uint32_t>(at), piece.begin + static_cast<uint32_t>(end)});
        at = end;
      }
    }
    return out;
  }
  for (const ByteRange piece : pieces) {
    NG_ASSIGN_OR_RETURN(const std::vector<Cut> cuts, CutsOf(step, section.View(piece)));
    for (const ByteRange cut : Behave(cuts, step.behavior)) {
      out.push_back({piece.begin + cut.begin, piece.begin + cut.end});
    }
  }
  return out;
}

bool IsIn(SetStep::Set set, char32_t code) {
  if (set == SetStep::kPunctuation) return IsPunctuation(code);
  const CharClass c = CharClasses::Get().Of(code);
  if (set == SetStep::kSpace) return c == CharClass::kSpace;
  return c == CharClass::kNumber || c == CharClass::kNumberOther || c == CharClass::kNumber17;
}

/// Every member alone, and what lies between.
Pieces SplitAtSet(const SetStep& step, const MarkedText& section, const Pieces& pieces) {
  Pieces out;
  for (const ByteRange piece : pieces) {
    std::vector<Cut> cuts;
    for (size_t at = piece.begin; at < piece.end;) {
      const uint32_t begin = static_cast<uint32_t>(at);
      const bool member = IsIn(step.set, NextCodePoint(section.bytes, at));
      const uint32_t end = static_cast<uint32_t>(at);
      if (!member && !cuts.empty() && !cuts.back().match) {
        cuts.back().range.end = end;
      } else {
        cuts.push_back({{begin, end}, member});
      }
    }
    const Pieces behaved = Behave(cuts, step.behavior);
    out.insert(out.end(), behaved.begin(), behaved.end());
  }
  return out;
}

Pieces SplitWords(const MarkedText& section, const Pieces& pieces) {
  const CharClasses& classes = CharClasses::Get();
  enum Kind { kNothing, kWord, kOther };
  Pieces out;
  for (const ByteRange piece : pieces) {
    Kind previous = kNothing;
    for (size_t at = piece.begin; at < piece.end;) {
      const uint32_t begin = static_cast<uint32_t>(at);
      const char32_t code = NextCodePoint(section.bytes, at);
      const Kind kind = IsWord(code) ? kWord : classes.IsSpace(code) ? kNothing : kOther;
      if (kind != kNothing && kind == previous) {
        out.back().end = static_cast<uint32_t>(at);
      } else if (kind != kNothing) {
        out.push_back({begin, static_cast<uint32_t>(at)});
      }
      previous = kind;
    }
  }
  return out;
}

Pieces ApplyByteAlphabet(MarkedText& section, const Pieces& pieces) {
  MarkedText out;
  Pieces places;
  for (const ByteRange range : pieces) {
    const uint32_t begin = static_cast<uint32_t>(out.bytes.size());
    for (uint32_t at = range.begin; at < range.end; ++at) {
      AppendUtf8(out.bytes, CodePointOfByte(static_cast<unsigned char>(section.bytes[at])));
      out.origins.resize(out.bytes.size(), section.origins[at]);
    }
    places.push_back({begin, static_cast<uint32_t>(out.bytes.size())});
  }
  section = std::move(out);
  return places;
}

/// Appends a piece to `out`, with `prefix` in front, and returns where it lies now.
ByteRange AppendPiece(MarkedText& out, const MarkedText& piece, absl::string_view prefix) {
  const uint32_t begin = static_cast<uint32_t>(out.bytes.size());
  if (!prefix.empty()) out.Append(prefix, static_cast<Origin>(piece.origins[0]));
  out.Append(piece, {0, static_cast<uint32_t>(piece.bytes.size())});
  return {begin, static_cast<uint32_t>(out.bytes.size())};
}

Pieces ApplyMetaspace(const MetaspaceStep& step, bool at_start, MarkedText& section,
                      const Pieces& pieces) {
  MarkedText out;
  Pieces places;
  for (const ByteRange range : pieces) {
    MarkedText piece;
    piece.Append(section, range);
    piece = Replaced(piece, " ", step.replacement);
    const bool wanted = step.prepend == MetaspaceStep::kAlways ||
                        (step.prepend == MetaspaceStep::kFirst && at_start && range.begin == 0);
    const bool prepends = wanted && !absl::StartsWith(piece.bytes, step.replacement);
    places.push_back(AppendPiece(out, piece, prepends ? step.replacement : ""));
  }
  section = std::move(out);
  if (!step.split) return places;
  SplitStep cut;
  cut.literal = step.replacement;
  cut.behavior = SplitBehavior::kMergedWithNext;
  return Split(cut, section, places).value();  // a literal cannot pass a limit
}

Pieces ApplyPrefixSpace(MarkedText& section, const Pieces& pieces) {
  MarkedText out;
  Pieces places;
  for (const ByteRange range : pieces) {
    MarkedText piece;
    piece.Append(section, range);
    places.push_back(AppendPiece(out, piece, absl::StartsWith(piece.bytes, " ") ? "" : " "));
  }
  section = std::move(out);
  return places;
}

}  // namespace

SplitStep IsolatedBy(absl::string_view known_pattern) {
  SplitStep step;
  step.scanner = ScannerFor(known_pattern);
  NG_CHECK(step.scanner != nullptr);
  return step;
}

absl::StatusOr<std::vector<ByteRange>> PreTokenizer::Apply(MarkedText& section,
                                                           bool at_start) const {
  Pieces pieces;
  if (section.bytes.empty()) return pieces;
  pieces.push_back({0, static_cast<uint32_t>(section.bytes.size())});
  for (const PreTokenizerStep& step : steps_) {
    if (const auto* split = std::get_if<SplitStep>(&step)) {
      NG_ASSIGN_OR_RETURN(pieces, Split(*split, section, pieces));
    } else if (const auto* set = std::get_if<SetStep>(&step)) {
      pieces = SplitAtSet(*set, section, pieces);
    } else if (std::holds_alternative<WordsStep>(step)) {
      pieces = SplitWords(section, pieces);
    } else if (std::holds_alternative<ByteAlphabetStep>(step)) {
      pieces = ApplyByteAlphabet(section, pieces);
    } else if (const auto* metaspace = std::get_if<MetaspaceStep>(&step)) {
      pieces = ApplyMetaspace(*metaspace, at_start, section, pieces);
    } else {
      pieces = ApplyPrefixSpace(section, pieces);
    }
  }
  return pieces;
}

}  // namespace neurogrid
