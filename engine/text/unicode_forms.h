// Normal forms, lower case and accents of text, as the reference's normalisers have them.
#pragma once

#include "engine/text/marked_text.h"

namespace neurogrid {

enum class NormalForm { kNfc, kNfd, kNfkc, kNfkd };

/// The normal form (Unicode Standard Annex 15) by the tables of Unicode 9.0, which the reference
/// uses: younger code points stay as they are. A composed code point has the least trusted origin
/// of its parts. n log n in the longest run of combining marks, otherwise linear.
MarkedText Normalized(MarkedText text, NormalForm form);

/// Every code point's lower case (Unicode 17.0), without regard to its neighbours.
MarkedText LowerCased(const MarkedText& text);

/// Without the marks (category M of Unicode 9.0).
MarkedText WithoutAccents(const MarkedText& text);

/// Cut by the Punctuation pre-tokenizer: category P of Unicode 8.0, and the symbols of ASCII.
bool IsPunctuation(char32_t code);

}  // namespace neurogrid
