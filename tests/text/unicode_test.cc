// UTF-8 and character classes against the Unicode standard and the reference's regex engine.
#include "engine/text/unicode.h"

#include <catch2/catch_test_macros.hpp>
#include <string>
#include <vector>

#include "common/json.h"
#include "tests/support/test_data.h"

namespace neurogrid {
namespace {

constexpr char32_t kCodeEnd = 0x110000;

/// One flag a code point, from [first, last] ranges.
std::vector<bool> FlagsOf(const Json& classes, const std::string& name) {
  std::vector<bool> flags(kCodeEnd, false);
  for (const Json& range : classes.Find("ranges")->Find(name)->as_array()) {
    const int64_t last = range.as_array()[1].as_integer();
    for (int64_t code = range.as_array()[0].as_integer(); code <= last; ++code) {
      flags[static_cast<size_t>(code)] = true;
    }
  }
  return flags;
}

/// Lengths of the steps that StepUtf8 takes, a minus sign before those that are not code points.
std::string Steps(absl::string_view bytes) {
  std::string out;
  while (!bytes.empty()) {
    const Utf8Step step = StepUtf8(bytes);
    out += step.kind == Utf8Step::kValid ? "" : step.kind == Utf8Step::kInvalid ? "-" : "~";
    out += std::to_string(step.length) + " ";
    bytes.remove_prefix(static_cast<size_t>(step.length));
  }
  return out;
}

}  // namespace

TEST_CASE("every code point has the class that the reference's patterns see", "[unicode]") {
  const Json file = ReadJson(TestData("golden/tokenizers/char_classes.json.xz"));
  const CharClasses& classes = CharClasses::Get();
  struct Named {
    const char* name;
    std::vector<CharClass> members;
  };
  using enum CharClass;
  for (const Named& named : {Named{"\\s", {kSpace}},
                             {"\\p{Lu}", {kLu}},
                             {"\\p{Ll}", {kLl}},
                             {"\\p{Lt}", {kLt}},
                             {"\\p{Lm}", {kLm}},
                             {"\\p{Lo}", {kLo}},
                             {"\\p{L}", {kLu, kLl, kLt, kLm, kLo}},
                             {"\\p{M}", {kMark}},
                             {"\\p{N}", {kNumber, kNumberOther}},
                             {"Digits pre-tokeniser", {kNumber, kNumberOther, kNumber17}}}) {
    CAPTURE(named.name);
    const std::vector<bool> expected = FlagsOf(file, named.name);
    int wrong = 0;
    for (char32_t code = 0; code < kCodeEnd; ++code) {
      bool member = false;
      for (const CharClass c : named.members) member = member || classes.Of(code) == c;
      if (member != expected[code]) ++wrong;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("every code point survives UTF-8", "[unicode]") {
  int wrong = 0;
  for (char32_t code = 0; code < kCodeEnd; ++code) {
    if (code >= 0xD800 && code < 0xE000) continue;
    std::string text;
    AppendUtf8(text, code);
    size_t at = 0;
    const bool back = NextCodePoint(text, at) == code && at == text.size();
    const Utf8Step step = StepUtf8(text);
    if (!back || step.kind != Utf8Step::kValid || step.code != code) ++wrong;
  }
  CHECK(wrong == 0);
}

TEST_CASE("bytes that are not UTF-8 are found where they stand", "[unicode]") {
  CHECK(FirstInvalidUtf8("") == 0);
  CHECK(FirstInvalidUtf8("abc\xc3\xa9") == 5);
  CHECK(FirstInvalidUtf8("\xff") == 0);
  CHECK(FirstInvalidUtf8("abc\x80") == 3);
  CHECK(FirstInvalidUtf8("ab\xc3") == 2);            // cut short
  CHECK(FirstInvalidUtf8("\xc0\x80") == 0);          // overlong
  CHECK(FirstInvalidUtf8("a\xe0\x9f\xbf") == 1);     // overlong
  CHECK(FirstInvalidUtf8("\xed\xa0\x80") == 0);      // surrogate
  CHECK(FirstInvalidUtf8("\xf4\x90\x80\x80") == 0);  // above U+10FFFF
}

TEST_CASE("maximal subparts are those of the standard's tables 3-8 to 3-11", "[unicode]") {
  CHECK(Steps("\xc0\xaf\xe0\x80\xbf\xf0\x81\x82\x41") == "-1 -1 -1 -1 -1 -1 -1 -1 1 ");
  CHECK(Steps("\xed\xa0\x80\xed\xbf\xbf\xed\xaf\x41") == "-1 -1 -1 -1 -1 -1 -1 -1 1 ");
  CHECK(Steps("\xf4\x91\x92\x93\xff\x41\x80\xbf\x42") == "-1 -1 -1 -1 -1 1 -1 -1 1 ");
  CHECK(Steps("\xe1\x80\xe2\xf0\x91\x92\xf1\xbf\x41") == "-2 -1 -3 -2 1 ");
  CHECK(Steps("a\xf0\x9f\x98") == "1 ~3 ");
}

}  // namespace neurogrid
