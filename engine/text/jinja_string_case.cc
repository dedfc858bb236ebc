// Case, padding, stripping, replacing and joining of strings with their origins.
#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/text/jinja_string_methods.h"

namespace neurogrid::jinja {
namespace {

/// A capital sigma at the end of a word becomes a final one (Unicode 3.13).
bool IsFinalSigma(absl::string_view text, size_t place) {
  bool cased_before = false;
  for (size_t i = place; i > 0;) {
    --i;
    while (i > 0 && (static_cast<unsigned char>(text[i]) & 0xc0) == 0x80) --i;
    const int32_t code = DecodeAt(text, i).code;
    if (IsCaseIgnorable(code)) continue;
    cased_before = IsCased(code);
    break;
  }
  if (!cased_before) return false;
  for (size_t i = place + 2; i < text.size();) {
    const CodePoint point = DecodeAt(text, i);
    if (!IsCaseIgnorable(point.code)) return !IsCased(point.code);
    i += static_cast<size_t>(point.length);
  }
  return true;
}

constexpr int32_t kCapitalSigma = 0x3a3;
constexpr int32_t kFinalSigma = 0x3c2;

/// Appends the case form of the code point at `place`; returns the place after it.
size_t AppendCase(Text& out, const Text& text, size_t place, Case to) {
  const CodePoint point = DecodeAt(text.bytes(), place);
  std::string form;
  if (to == Case::kLower && point.code == kCapitalSigma && IsFinalSigma(text.bytes(), place)) {
    AppendUtf8(form, kFinalSigma);
  } else {
    const CaseForm codes = ToCase(point.code, to);
    for (int i = 0; i < codes.count; ++i) AppendUtf8(form, codes.codes[i]);
  }
  out.Append(form, text.OriginAt(place));
  return place + static_cast<size_t>(point.length);
}

bool AllCasedAre(absl::string_view text, bool (*wanted)(int32_t), bool (*other)(int32_t)) {
  bool any = false;
  for (size_t i = 0; i < text.size();) {
    const CodePoint point = DecodeAt(text, i);
    if (other(point.code) || IsTitle(point.code)) return false;
    any = any || wanted(point.code);
    i += static_cast<size_t>(point.length);
  }
  return any;
}

}  // namespace

bool StringIsUpper(absl::string_view text) { return AllCasedAre(text, IsUpper, IsLower); }
bool StringIsLower(absl::string_view text) { return AllCasedAre(text, IsLower, IsUpper); }

absl::StatusOr<Value> StringToCase(Runtime& runtime, const Value& string, Case to) {
  const Text& text = string.text();
  // Looking each letter up costs more than copying it.
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(text.size() * 8));
  Text out;
  for (size_t i = 0; i < text.size();) i = AppendCase(out, text, i, to);
  return runtime.NewString(std::move(out));
}

absl::StatusOr<Value> StringTitle(Runtime& runtime, const Value& string) {
  const Text& text = string.text();
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(text.size() * 8));
  Text out;
  bool in_word = false;
  for (size_t i = 0; i < text.size();) {
    const bool cased = IsCased(DecodeAt(text.bytes(), i).code);
    i = AppendCase(out, text, i, in_word ? Case::kLower : Case::kTitle);
    in_word = cased;
  }
  return runtime.NewString(std::move(out));
}

absl::StatusOr<Value> StringCapitalize(Runtime& runtime, const Value& string) {
  const Text& text = string.text();
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(text.size() * 8));
  Text out;
  for (size_t i = 0; i < text.size();) {
    i = AppendCase(out, text, i, i == 0 ? Case::kTitle : Case::kLower);
  }
  return runtime.NewString(std::move(out));
}

absl::StatusOr<Value> StringSwapCase(Runtime& runtime, const Value& string) {
  const Text& text = string.text();
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(text.size() * 8));
  Text out;
  for (size_t i = 0; i < text.size();) {
    const int32_t code = DecodeAt(text.bytes(), i).code;
    if (IsUpper(code) || IsLower(code)) {
      i = AppendCase(out, text, i, IsUpper(code) ? Case::kLower : Case::kUpper);
    } else {
      const size_t next = i + static_cast<size_t>(DecodeAt(text.bytes(), i).length);
      out.Append(text, i, next);
      i = next;
    }
  }
  return runtime.NewString(std::move(out));
}

absl::StatusOr<Value> StringStrip(Runtime& runtime, const Value& string, const Value* characters,
                                  bool left, bool right) {
  const Text& text = string.text();
  ByteRange kept;
  if (characters == nullptr || characters->is_none()) {
    NG_RETURN_IF_ERROR(runtime.ChargeBytes(text.size()));
    kept = Strip(text.bytes(), nullptr, left, right);
  } else {
    if (!characters->is_string()) return TypeError("strip arg must be None or str");
    const absl::string_view set = characters->bytes();
    NG_RETURN_IF_ERROR(runtime.ChargeBytes(text.size() * (set.size() / 16 + 1)));
    kept = Strip(text.bytes(), &set, left, right);
  }
  if (kept.first == 0 && kept.second == text.size()) return string;
  return runtime.NewString(text.Slice(kept.first, kept.second));
}

absl::StatusOr<Value> StringReplace(Runtime& runtime, const Value& string, const Value& from,
                                    const Value& to, int64_t most) {
  const Text& text = string.text();
  const std::string& needle = from.bytes();
  NG_RETURN_IF_ERROR(runtime.ChargeBytes(text.size()));
  // Where each replacement goes; an empty needle stands before every code point and at the end.
  std::vector<size_t> places;
  for (size_t i = 0; most < 0 || static_cast<int64_t>(places.size()) < most;) {
    const size_t place = needle.empty() ? i : Find(text.bytes(), needle, i);
    if (place == absl::string_view::npos || place > text.size()) break;
    places.push_back(place);
    if (!needle.empty()) {
      i = place + needle.size();
    } else if (place == text.size()) {
      break;
    } else {
      i += static_cast<size_t>(DecodeAt(text.bytes(), i).length);
    }
  }
  const auto count = static_cast<double>(places.size());
  NG_RETURN_IF_ERROR(runtime.Reserve(static_cast<double>(text.size()) +
                                     count * static_cast<double>(to.bytes().size())));
  NG_RETURN_IF_ERROR(runtime.Charge(static_cast<int64_t>(places.size() / 8)));
  Text out;
  size_t begin = 0;
  for (const size_t place : places) {
    out.Append(text, begin, place);
    out.Append(to.text());
    begin = place + needle.size();
  }
  out.Append(text, begin, text.size());
  return runtime.NewString(std::move(out));
}

absl::StatusOr<Value> StringJoin(Runtime& runtime, const Text& separator,
                                 const std::vector<Value>& items) {
  double size = 0;
  for (const Value& item : items) {
    size += static_cast<double>(item.bytes().size() + separator.size());
  }
  NG_RETURN_IF_ERROR(runtime.Reserve(size));
  Text out;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0) out.Append(separator);
    out.Append(items[i].text());
  }
  return runtime.NewString(std::move(out));
}

absl::StatusOr<Value> StringPad(Runtime& runtime, const Value& string, int64_t width,
                                const Text& fill, Align align) {
  NG_ASSIGN_OR_RETURN(const int64_t length, Length(runtime, string));
  if (CountCodePoints(fill.bytes()) != 1) {
    return TypeError("The fill character must be exactly one character long");
  }
  const int64_t missing = width - length;
  if (missing <= 0) return string;
  NG_RETURN_IF_ERROR(
      runtime.Reserve(static_cast<double>(missing) * static_cast<double>(fill.size())));
  int64_t left = 0;
  if (align == Align::kRight) left = missing;
  if (align == Align::kCenter) left = missing / 2 + (missing & width & 1);  // CPython's rounding
  Text out;
  for (int64_t i = 0; i < left; ++i) out.Append(fill);
  out.Append(string.text());
  for (int64_t i = left; i < missing; ++i) out.Append(fill);
  return runtime.NewString(std::move(out));
}

}  // namespace neurogrid::jinja
