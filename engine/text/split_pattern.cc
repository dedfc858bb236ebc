#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/text/split_pattern.h"

#include <pcre2.h>

#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace neurogrid {
namespace {

constexpr size_t kPatternBytesMax = 4096;
constexpr uint32_t kMatchLimitBase = 100'000;
constexpr uint32_t kHeapLimitKib = 64 * 1024;

/// The 25 code points of White_Space. PCRE2's own \s also takes U+180E; the reference's does not.
constexpr absl::string_view kSpaces =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";

/// The pattern with \s, and \S outside of classes, written out.
std::string WithSpacesListed(absl::string_view pattern) {
  std::string out;
  bool in_class = false;
  for (size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] == '\\' && i + 1 < pattern.size()) {
      const char escaped = pattern[++i];
      if (escaped == 's') {
        out += in_class ? std::string(kSpaces) : absl::StrCat("[", kSpaces, "]");
      } else if (escaped == 'S' && !in_class) {
        absl::StrAppend(&out, "[^", kSpaces, "]");
      } else {
        out += {'\\', escaped};
      }
      continue;
    }
    if (pattern[i] == '[') in_class = true;
    if (pattern[i] == ']') in_class = false;
    out += pattern[i];
  }
  return out;
}

std::string ErrorText(int code) {
  PCRE2_UCHAR text[200] = {};
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

struct FreeContext {
  void operator()(pcre2_match_context* context) const { pcre2_match_context_free(context); }
};
struct FreeMatch {
  void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
};

}  // namespace

struct SplitPattern::Compiled {
  pcre2_code* code = nullptr;
  ~Compiled() { pcre2_code_free(code); }
};

SplitPattern::SplitPattern(std::unique_ptr<Compiled> compiled) : compiled_(std::move(compiled)) {}
SplitPattern::~SplitPattern() = default;

absl::StatusOr<std::unique_ptr<SplitPattern>> SplitPattern::Compile(absl::string_view pattern) {
  if (pattern.size() > kPatternBytesMax) {
    return absl::InvalidArgumentError(absl::StrCat("a split pattern of ", pattern.size(),
                                                   " bytes is longer than ", kPatternBytesMax));
  }
  const std::string listed = WithSpacesListed(pattern);
  int error = 0;
  PCRE2_SIZE place = 0;
  auto compiled = std::make_unique<Compiled>();
  compiled->code =
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(listed.data()), listed.size(),
                    PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &error, &place, nullptr);
  if (compiled->code == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("the split pattern \"", pattern.substr(0, 200),
                                                   "\" does not compile: ", ErrorText(error)));
  }
  return std::unique_ptr<SplitPattern>(new SplitPattern(std::move(compiled)));
}

absl::StatusOr<std::vector<ByteRange>> SplitPattern::Matches(absl::string_view text) const {
  const std::unique_ptr<pcre2_match_context, FreeContext> context(
      pcre2_match_context_create(nullptr));
  const std::unique_ptr<pcre2_match_data, FreeMatch> match(
      pcre2_match_data_create_from_pattern(compiled_->code, nullptr));
  NG_CHECK(context != nullptr && match != nullptr);
  pcre2_set_match_limit(context.get(), kMatchLimitBase + 4 * static_cast<uint32_t>(text.size()));
  pcre2_set_heap_limit(context.get(), kHeapLimitKib);
  std::vector<ByteRange> matches;
  size_t at = 0;
  while (at < text.size()) {
    const int found = pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(text.data()),
                                  text.size(), at, PCRE2_NO_UTF_CHECK, match.get(), context.get());
    if (found == PCRE2_ERROR_NOMATCH) break;
    if (found < 0) {
      return absl::InvalidArgumentError(absl::StrCat("cannot split text: ", ErrorText(found)));
    }
    const PCRE2_SIZE* ends = pcre2_get_ovector_pointer(match.get());
    // \K in a look-around can put the start behind the end, or both behind the search.
    if (ends[0] > ends[1] || ends[0] < at) {
      return absl::InvalidArgumentError("cannot split text: the pattern moves backwards");
    }
    if (ends[1] > ends[0]) {
      matches.push_back({static_cast<uint32_t>(ends[0]), static_cast<uint32_t>(ends[1])});
      at = ends[1];
      continue;
    }
    at = ends[1];
    do ++at;
    while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80);
  }
  return matches;
}

}  // namespace neurogrid
