// Normalisers of tokenizer.json: what happens to a section before it is split (models.md 5.1).
#pragma once

#include <string>
#include <vector>

#include "engine/text/marked_text.h"

namespace neurogrid {

class Normalizer {
 public:
  struct Step {
    enum Kind { kPrepend, kReplace };
    Kind kind = kPrepend;
    std::string from;  // kReplace: the text that goes, not empty
    std::string to;    // what comes; kPrepend puts it before every section that is not empty
  };

  explicit Normalizer(std::vector<Step> steps = {}) : steps_(std::move(steps)) {}

  bool empty() const { return steps_.empty(); }

  /// New bytes take the origin of the first byte (kPrepend) or the worst one of what they replace.
  MarkedText Apply(MarkedText section) const;

 private:
  std::vector<Step> steps_;
};

/// `text` with every `from` (not empty) replaced, left to right.
MarkedText Replaced(const MarkedText& text, absl::string_view from, absl::string_view to);

}  // namespace neurogrid
