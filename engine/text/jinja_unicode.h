// Code points of UTF-8 text and Python's view of them, for chat templates (models.md 6.3).
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace neurogrid::jinja {

struct CodePoint {
  int32_t code = 0;
  int length = 1;  // bytes
};

/// The code point at `position` < text.size(). A byte that starts no sequence counts as one of its
/// own.
CodePoint DecodeAt(absl::string_view text, size_t position);
void AppendUtf8(std::string& out, int32_t code);
bool IsUtf8(absl::string_view text);

int64_t CountCodePoints(absl::string_view text);
/// Byte offset of code point `index`; text.size() when there are fewer.
size_t OffsetOf(absl::string_view text, int64_t index);

/// str.isspace, str.isprintable, str.isalpha, ... of one code point.
bool IsSpace(int32_t code);
bool IsPrintable(int32_t code);
bool IsAlpha(int32_t code);
bool IsDecimal(int32_t code);
bool IsDigit(int32_t code);
bool IsNumeric(int32_t code);
bool IsUpper(int32_t code);
bool IsLower(int32_t code);
bool IsTitle(int32_t code);
inline bool IsAlnum(int32_t code) { return IsAlpha(code) || IsNumeric(code); }
inline bool IsCased(int32_t code) { return IsUpper(code) || IsLower(code) || IsTitle(code); }
/// Skipped when looking for the letters around a capital sigma (Unicode 3.13, Final_Sigma).
bool IsCaseIgnorable(int32_t code);

enum class Case { kUpper, kLower, kTitle };
struct CaseForm {
  int32_t codes[3];
  int count;
};
CaseForm ToCase(int32_t code, Case to);

}  // namespace neurogrid::jinja
