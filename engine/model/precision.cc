#include "engine/model/precision.h"

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace neurogrid {

absl::string_view NameOf(Precision precision) {
  switch (precision) {
    case Precision::kF32:
      return "f32";
    case Precision::kBf16:
      return "bf16";
    case Precision::kInt8:
      return "int8";
    case Precision::kInt8A8:
      return "int8-a8";
    case Precision::kAuto:
      return "auto";
    case Precision::kBlocksA8:
      return "blocks-a8";
  }
  NG_CHECK(false);
}

absl::StatusOr<Precision> ParsePrecision(absl::string_view name) {
  for (const Precision precision : {Precision::kAuto, Precision::kF32, Precision::kBf16,
                                    Precision::kInt8, Precision::kInt8A8, Precision::kBlocksA8}) {
    if (name == NameOf(precision)) return precision;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("precision \"", name,
                   "\" is not known; known are auto, f32, bf16, int8, int8-a8, blocks-a8"));
}

}  // namespace neurogrid
