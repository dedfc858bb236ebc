// Normal forms and the like, against what the reference makes of every code point.
#include "engine/text/unicode_forms.h"

#include <catch2/catch_test_macros.hpp>
#include <string>
#include <vector>

#include "common/json.h"
#include "engine/text/unicode.h"
#include "tests/support/test_data.h"

namespace neurogrid {
namespace {

constexpr char32_t kCodeEnd = 0x110000;
constexpr NormalForm kForms[] = {NormalForm::kNfc, NormalForm::kNfd, NormalForm::kNfkc,
                                 NormalForm::kNfkd};

const Json& Answers() {
  static const Json answers = ReadJson(TestData("golden/tokenizers/normal_forms.json.xz"));
  return answers;
}

MarkedText Marked(absl::string_view text, Origin origin = Origin::kInput) {
  MarkedText marked;
  marked.Append(text, origin);
  return marked;
}

std::string Utf8(char32_t code) {
  std::string text;
  AppendUtf8(text, code);
  return text;
}

bool IsSurrogate(char32_t code) { return code >= 0xD800 && code < 0xE000; }

/// Rows of [text, NFC, NFD, NFKC, NFKD] where one of the forms is another than ours.
std::vector<std::string> Wrong(const Json::Array& rows) {
  std::vector<std::string> wrong;
  for (const Json& row : rows) {
    const std::string& text = row.as_array()[0].as_string();
    for (size_t form = 0; form < 4; ++form) {
      const std::string& expected = row.as_array()[form + 1].as_string();
      const MarkedText got = Normalized(Marked(text), kForms[form]);
      if (got.bytes != expected || got.origins.size() != expected.size()) wrong.push_back(text);
    }
  }
  return wrong;
}

std::vector<bool> Members(const std::string& name) {
  std::vector<bool> flags(kCodeEnd, false);
  for (const Json& range : Answers().Find(name)->as_array()) {
    for (int64_t code = range.as_array()[0].as_integer(); code <= range.as_array()[1].as_integer();
         ++code) {
      flags[static_cast<size_t>(code)] = true;
    }
  }
  return flags;
}

}  // namespace

TEST_CASE("code points have the reference's normal forms", "[unicode]") {
  const Json::Array& changed = Answers().Find("code_points")->as_array();
  CHECK(Wrong(changed).empty());
  std::vector<bool> changes(kCodeEnd, false);
  for (const Json& row : changed) {
    size_t at = 0;
    changes[NextCodePoint(row.as_array()[0].as_string(), at)] = true;
  }
  int wrong = 0;
  for (char32_t code = 0; code < kCodeEnd; ++code) {
    const bool syllable = code >= 0xAC00 && code <= 0xD7A3;
    if (changes[code] || syllable || IsSurrogate(code)) continue;
    for (const NormalForm form : kForms) {
      wrong += Normalized(Marked(Utf8(code)), form).bytes != Utf8(code);
    }
  }
  CHECK(wrong == 0);
}

TEST_CASE("strings of marks, jamo and parts have the reference's normal forms", "[unicode]") {
  const Json::Array& strings = Answers().Find("strings")->as_array();
  CHECK(strings.size() == 800);
  CHECK(Wrong(strings).empty());
}

TEST_CASE("every Hangul syllable comes apart and together again", "[unicode]") {
  int wrong = 0;
  for (char32_t code = 0xAC00; code <= 0xD7A3; ++code) {
    const MarkedText apart = Normalized(Marked(Utf8(code)), NormalForm::kNfd);
    wrong += apart.bytes.size() != ((code - 0xAC00) % 28 == 0 ? 6 : 9);
    wrong += Normalized(apart, NormalForm::kNfc).bytes != Utf8(code);
    wrong += Normalized(Marked(Utf8(code)), NormalForm::kNfc).bytes != Utf8(code);
  }
  CHECK(wrong == 0);
}

TEST_CASE("a composed code point is trusted as its least trusted part", "[unicode]") {
  MarkedText text = Marked("xe", Origin::kTemplate);
  text.Append("\xcc\x81", Origin::kInput);  // U+0301, the acute accent
  text.Append("y", Origin::kTemplate);
  const MarkedText composed = Normalized(text, NormalForm::kNfc);
  CHECK(composed.bytes == "x\xc3\xa9y");
  CHECK(composed.WorstOrigin({0, 1}) == Origin::kTemplate);
  CHECK(composed.WorstOrigin({1, 3}) == Origin::kInput);
  CHECK(composed.WorstOrigin({3, 4}) == Origin::kTemplate);
}

TEST_CASE("a megabyte of one mark is normalised whole", "[unicode]") {
  std::string marks = "a";
  while (marks.size() < (size_t{1} << 20)) marks += "\xcc\x81\xcc\xa3";  // above, below
  for (const NormalForm form : kForms) {
    CHECK(Normalized(Marked(marks), form).bytes.size() >= marks.size() - 3);
  }
}

TEST_CASE("accents, punctuation and lower case are the reference's", "[unicode]") {
  const std::vector<bool> accents = Members("StripAccents drops");
  const std::vector<bool> punctuation = Members("Punctuation cuts");
  std::vector<std::string> lower(kCodeEnd);
  for (const Json& row : Answers().Find("Lowercase")->as_array()) {
    size_t at = 0;
    lower[NextCodePoint(row.as_array()[0].as_string(), at)] = row.as_array()[1].as_string();
  }
  int wrong = 0;
  for (char32_t code = 0; code < kCodeEnd; ++code) {
    if (IsSurrogate(code)) continue;
    const MarkedText text = Marked(Utf8(code));
    wrong += WithoutAccents(text).bytes.empty() != accents[code];
    wrong += IsPunctuation(code) != punctuation[code];
    wrong += LowerCased(text).bytes != (lower[code].empty() ? text.bytes : lower[code]);
  }
  CHECK(wrong == 0);
}

}  // namespace neurogrid
