// Normalisers of tokenizer.json: what happens to a section before it is split (models.md 5.1).
#pragma once

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "common/status.h"
#include "engine/text/marked_text.h"
#include "engine/text/split_pattern.h"
#include "engine/text/unicode_forms.h"

namespace neurogrid {

/// Put before every section that is not empty.
struct PrependStep {
  std::string text;
};

/// Every match, left to right, becomes `to`. Exactly one of literal and regex is set.
struct ReplaceStep {
  std::string literal;
  std::shared_ptr<const SplitPattern> regex;
  std::string to;
};

struct LowercaseStep {};
struct StripAccentsStep {};

/// White space at the ends of a section goes.
struct StripStep {
  bool left = true;
  bool right = true;
};

using NormalizerStep =
    std::variant<PrependStep, ReplaceStep, NormalForm, LowercaseStep, StripAccentsStep, StripStep>;

class Normalizer {
 public:
  explicit Normalizer(std::vector<NormalizerStep> steps = {}) : steps_(std::move(steps)) {}

  bool empty() const { return steps_.empty(); }

  /// New bytes take the origin of the first byte (Prepend) or the worst one of what they replace.
  /// InvalidArgument "cannot split text: ..." when a pattern passes its limits.
  absl::StatusOr<MarkedText> Apply(MarkedText section) const;

 private:
  std::vector<NormalizerStep> steps_;
};

/// `text` with every `from` (not empty) replaced, left to right.
MarkedText Replaced(const MarkedText& text, absl::string_view from, absl::string_view to);

/// `text` with every match of a pattern replaced, empty ones included.
absl::StatusOr<MarkedText> Replaced(const MarkedText& text, const SplitPattern& from,
                                    absl::string_view to);

}  // namespace neurogrid
