// How weights are held and computed on (design.md 5).
#pragma once

#include "absl/strings/string_view.h"
#include "common/status.h"

namespace neurogrid {

/// kAuto: block types of GGUF as they are, all else in bf16. The others convert every matrix.
/// kInt8A8: kInt8 that also rounds activations to 8 bits, in groups of 128 whose outliers an
/// orthogonal matrix spreads before: for processors alone.
enum class Precision { kF32, kBf16, kInt8, kInt8A8, kAuto };

/// "f32", "bf16", "int8", "int8-a8" or "auto".
absl::string_view NameOf(Precision precision);

/// InvalidArgument naming the word and the known ones.
absl::StatusOr<Precision> ParsePrecision(absl::string_view name);

}  // namespace neurogrid
