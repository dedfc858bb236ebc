// Hand-written scanners for the split patterns that known tokenizers use (models.md 5.2).
#pragma once

#include <cstddef>

#include "absl/strings/string_view.h"
#include "engine/text/unicode.h"

namespace neurogrid {

/// End of the match that begins at `at` (at < text.size()). Every one of these patterns matches at
/// every place, so the matches are the whole text. Linear over a whole text.
using SplitScanner = size_t (*)(const CharClasses& classes, absl::string_view text, size_t at);

extern const absl::string_view kGpt2Pattern;
extern const absl::string_view kQwen2Pattern;
extern const absl::string_view kLlama3Pattern;
extern const absl::string_view kTekkenPattern;

/// The scanner for exactly this pattern, or null.
SplitScanner ScannerFor(absl::string_view pattern);

}  // namespace neurogrid
