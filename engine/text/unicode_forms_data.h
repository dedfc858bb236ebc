// Number lists behind unicode_forms.cc; each one's layout stands beside it.
#pragma once

#include <cstdint>

#include "absl/types/span.h"

namespace neurogrid {

extern const absl::Span<const int32_t> kCanonicalPairs;
extern const absl::Span<const int32_t> kCanonicalSingles;
extern const absl::Span<const int32_t> kNotComposed;
extern const absl::Span<const int32_t> kCombiningClasses;
extern const absl::Span<const int32_t> kCompatibilitySingles;
extern const absl::Span<const int32_t> kCompatibilityLists;
extern const absl::Span<const int32_t> kAccentToggles;
extern const absl::Span<const int32_t> kPunctuationToggles;
extern const absl::Span<const int32_t> kLowerCase;

}  // namespace neurogrid
