// Pre-tokenizers of tokenizer.json: a section becomes the pieces that are encoded one by one.
#pragma once

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "common/status.h"
#include "engine/text/marked_text.h"
#include "engine/text/split_pattern.h"
#include "engine/text/split_scanners.h"

namespace neurogrid {

enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

/// Cuts at a pattern: exactly one of scanner, regex and literal is set.
struct SplitStep {
  SplitScanner scanner = nullptr;
  std::shared_ptr<const SplitPattern> regex;
  std::string literal;
  SplitBehavior behavior = SplitBehavior::kIsolated;
  bool invert = false;
};

/// Cuts at every code point of a set.
struct SetStep {
  enum Set { kDigits, kPunctuation, kSpace };  // kDigits: category N of Unicode 17.0
  Set set = kDigits;
  SplitBehavior behavior = SplitBehavior::kIsolated;
};

/// Runs of word characters, and runs of what is neither word nor white space.
struct WordsStep {};

/// Bytes become the printable code points of the byte alphabet, for steps that come after it.
struct ByteAlphabetStep {};

/// Spaces become `replacement`, which is also put in front of a piece.
struct MetaspaceStep {
  enum Prepend { kNever, kFirst, kAlways };
  std::string replacement;
  Prepend prepend = kAlways;
  bool split = true;
};

/// A space is put in front of a piece that does not begin with one.
struct PrefixSpaceStep {};

/// Cuts a text into the matches of one of the patterns that have a scanner.
SplitStep IsolatedBy(absl::string_view known_pattern);

using PreTokenizerStep =
    std::variant<SplitStep, SetStep, WordsStep, ByteAlphabetStep, MetaspaceStep, PrefixSpaceStep>;

class PreTokenizer {
 public:
  explicit PreTokenizer(std::vector<PreTokenizerStep> steps = {}) : steps_(std::move(steps)) {}

  bool empty() const { return steps_.empty(); }

  /// Pieces of `section` in order, none empty. Steps that insert text change the section.
  /// at_start: the section begins where the whole input begins.
  /// InvalidArgument "cannot split text: ..." when a pattern passes its limits.
  absl::StatusOr<std::vector<ByteRange>> Apply(MarkedText& section, bool at_start) const;

 private:
  std::vector<PreTokenizerStep> steps_;
};

}  // namespace neurogrid
