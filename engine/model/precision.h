// How weights are held and computed on (design.md 5).
#pragma once

#include "absl/strings/string_view.h"
#include "common/status.h"

namespace neurogrid {

/// kAuto: block types of GGUF as they are, all else in bf16. The others convert every matrix.
/// kInt8A8: kInt8 that also rounds activations to 8 bits, in groups of 128 whose outliers an
/// orthogonal matrix spreads before: for processors alone.
/// kBlocksA8: kAuto that also rounds activations beside blocks to 8 bits, as llama.cpp does: for
/// processors alone.
enum class Precision { kF32, kBf16, kInt8, kInt8A8, kAuto, kBlocksA8 };

/// Whether block types of a file stay as they are.
inline bool KeepsBlocks(Precision precision) {
  return precision == Precision::kAuto || precision == Precision::kBlocksA8;
}
/// Whether only processors have kernels for it.
inline bool RoundsActivations(Precision precision) {
  return precision == Precision::kInt8A8 || precision == Precision::kBlocksA8;
}

/// "f32", "bf16", "int8", "int8-a8", "auto" or "blocks-a8".
absl::string_view NameOf(Precision precision);

/// InvalidArgument naming the word and the known ones.
absl::StatusOr<Precision> ParsePrecision(absl::string_view name);

}  // namespace neurogrid
