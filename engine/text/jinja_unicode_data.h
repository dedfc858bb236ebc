// Tables behind jinja_unicode.cc.
#pragma once

#include <cstdint>

#include "absl/types/span.h"

namespace neurogrid::jinja {

/// A set of code points as the distances between the places where membership changes, starting
/// outside the set at code point 0.
extern const absl::Span<const int32_t> kPrintableToggles;
extern const absl::Span<const int32_t> kAlphaToggles;
extern const absl::Span<const int32_t> kDecimalToggles;
extern const absl::Span<const int32_t> kDigitToggles;
extern const absl::Span<const int32_t> kNumericToggles;
extern const absl::Span<const int32_t> kOtherUpperToggles;
extern const absl::Span<const int32_t> kOtherLowerToggles;
extern const absl::Span<const int32_t> kTitleToggles;
extern const absl::Span<const int32_t> kIgnorableToggles;

/// Code points first, first + step, ..., last map to themselves + delta.
struct CaseRange {
  int32_t first;
  int32_t last;
  int32_t step;
  int32_t delta;
};
extern const absl::Span<const CaseRange> kUpperCase;
extern const absl::Span<const CaseRange> kLowerCase;
extern const absl::Span<const CaseRange> kTitleCase;

/// A code point whose case form is two or three code points (0: no third).
struct CaseExpansion {
  int32_t code;
  int32_t to[3];
};
extern const absl::Span<const CaseExpansion> kUpperSpecial;
extern const absl::Span<const CaseExpansion> kLowerSpecial;
extern const absl::Span<const CaseExpansion> kTitleSpecial;

}  // namespace neurogrid::jinja
