#include "engine/text/pre_tokenizer.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "common/check.h"
#include "engine/text/normalizer.h"

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

/// The reference's meaning of each behaviour, runs of matches included.
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

Pieces SplitDigits(const DigitsStep& step, const MarkedText& section, const Pieces& pieces) {
  const CharClasses& classes = CharClasses::Get();
  Pieces out;
  for (const ByteRange piece : pieces) {
    bool previous = false;
    for (size_t at = piece.begin; at < piece.end;) {
      const uint32_t begin = static_cast<uint32_t>(at);
      const CharClass c = classes.Of(NextCodePoint(section.bytes, at));
      const bool digit =
          c == CharClass::kNumber || c == CharClass::kNumberOther || c == CharClass::kNumber17;
      const bool joins = begin != piece.begin && digit == previous && !(digit && step.individual);
      if (joins) {
        out.back().end = static_cast<uint32_t>(at);
      } else {
        out.push_back({begin, static_cast<uint32_t>(at)});
      }
      previous = digit;
    }
  }
  return out;
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
    } else if (const auto* digits = std::get_if<DigitsStep>(&step)) {
      pieces = SplitDigits(*digits, section, pieces);
    } else if (const auto* metaspace = std::get_if<MetaspaceStep>(&step)) {
      pieces = ApplyMetaspace(*metaspace, at_start, section, pieces);
    } else {
      pieces = ApplyPrefixSpace(section, pieces);
    }
  }
  return pieces;
}

}  // namespace neurogrid
