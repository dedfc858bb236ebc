// The byte alphabet of byte-level BPE: one printable code point for each byte (models.md 5.3).
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace neurogrid {

/// The bytes that a vocabulary spelling stands for ("Ġthe" is " the"); nothing when one of its code
/// points is not of the alphabet.
std::optional<std::string> BytesOfSpelling(absl::string_view spelling);

/// The code point that stands for a byte.
char32_t CodePointOfByte(unsigned char byte);

}  // namespace neurogrid
