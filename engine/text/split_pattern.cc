#define PCRE2_CODE_UNIT_WIDTH 8
#include "engine/text/split_pattern.h"

#include <pcre2.h>

#include "absl/strings/ascii.h"
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

/// \w: Alphabetic, marks, Nd, connector punctuation, and six numbers of Latin-1.
constexpr absl::string_view kWords =
    R"(\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{b2}\x{b3}\x{b9}\x{bc}-\x{be}\x{24b6}-\x{24e9})"
    R"(\x{1f130}-\x{1f149}\x{1f150}-\x{1f169}\x{1f170}-\x{1f189})";

/// What an escaped letter stands for inside of a class; "" for what both engines mean alike.
absl::string_view ClassOf(char escaped) {
  switch (escaped) {
    case 's':
      return kSpaces;
    case 'w':
      return kWords;
    case 'h':
      return "0-9A-Fa-f";
    default:
      return "";
  }
}

/// Oniguruma's pattern in PCRE2's words: classes that the two see differently are written out.
class Translation {
 public:
  explicit Translation(absl::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (at_ < pattern_.size()) {
      if (pattern_[at_] == '\\' && at_ + 1 < pattern_.size()) {
        NG_RETURN_IF_ERROR(Escape());
      } else if (in_class_) {
        NG_RETURN_IF_ERROR(ClassCharacter());
      } else {
        NG_RETURN_IF_ERROR(Character());
      }
    }
    return std::move(out_);
  }

 private:
  bool TakeIf(absl::string_view text) {
    if (pattern_.substr(at_, text.size()) != text) return false;
    at_ += text.size();
    return true;
  }
  absl::Status Unsupported(absl::string_view what) const {
    return absl::InvalidArgumentError(absl::StrCat("the pattern \"", pattern_.substr(0, 200),
                                                   "\" has ", what, " at byte ", at_,
                                                   ", which is not supported"));
  }

  absl::Status Escape() {
    const char escaped = pattern_[at_ + 1];
    const absl::string_view members = ClassOf(escaped);
    const absl::string_view complement = ClassOf(absl::ascii_tolower(escaped));
    size_t length = 2;
    if (!in_class_ && (escaped == 'b' || escaped == 'B')) {
      const bool at_border = escaped == 'b';
      absl::StrAppend(&out_, "(?:(?<=[", kWords, at_border ? "])(?![" : "])(?=[", kWords,
                      "])|(?<![", kWords, at_border ? "])(?=[" : "])(?![", kWords, "]))");
    } else if (!members.empty()) {
      absl::StrAppend(&out_, in_class_ ? "" : "[", members, in_class_ ? "" : "]");
    } else if (complement.empty()) {
      // The braces of \p{...} and \x{...} are no repeat.
      const bool named = escaped == 'p' || escaped == 'P' || escaped == 'x';
      const bool braces = named && pattern_.substr(at_ + 2, 1) == "{";
      const size_t end = braces ? pattern_.find('}', at_) : absl::string_view::npos;
      if (end != absl::string_view::npos) length = end + 1 - at_;
      absl::StrAppend(&out_, pattern_.substr(at_, length));
    } else if (in_class_) {
      return Unsupported(absl::StrCat("\\", pattern_.substr(at_ + 1, 1), " inside of a class"));
    } else {
      absl::StrAppend(&out_, "[^", complement, "]");
    }
    at_ += length;
    return absl::OkStatus();
  }

  absl::Status ClassCharacter() {
    if (TakeIf("[:space:]")) {
      absl::StrAppend(&out_, kSpaces);
    } else if (TakeIf("[:punct:]")) {
      absl::StrAppend(&out_, "\\p{P}\\p{S}");
    } else if (pattern_.substr(at_, 2) == "[:") {
      const size_t end = pattern_.find(":]", at_);
      if (end == absl::string_view::npos) return Unsupported("a class inside of a class");
      absl::StrAppend(&out_, pattern_.substr(at_, end + 2 - at_));
      at_ = end + 2;
    } else if (pattern_[at_] == '[') {
      return Unsupported("a class inside of a class");
    } else if (pattern_.substr(at_, 2) == "&&") {
      return Unsupported("an intersection of classes");
    } else {
      if (pattern_[at_] == ']') in_class_ = false;
      out_ += pattern_[at_++];
    }
    return absl::OkStatus();
  }

  absl::Status Character() {
    if (TakeIf("[^]") || TakeIf("[]")) return Unsupported("a class that begins with ]");
    if (pattern_.substr(at_, 2) == "}+") return Unsupported("+ after a counted repeat");
    if (pattern_.substr(at_, 2) == "(?") return Group();
    if (pattern_[at_] == '[') in_class_ = true;
    out_ += pattern_[at_++];
    return absl::OkStatus();
  }

  /// (?m...) lets the dot match line ends, which PCRE2 calls s; ^ and $ always mean lines.
  absl::Status Group() {
    out_ += "(?";
    at_ += 2;
    const size_t end = pattern_.find_first_not_of("imx-", at_);
    const bool options = end != absl::string_view::npos && end > at_ &&
                         (pattern_[end] == ':' || pattern_[end] == ')');
    if (!options && at_ < pattern_.size() && pattern_[at_] == 's') return Unsupported("(?s");
    for (; options && at_ < end; ++at_) out_ += pattern_[at_] == 'm' ? 's' : pattern_[at_];
    return absl::OkStatus();
  }

  const absl::string_view pattern_;
  size_t at_ = 0;
  bool in_class_ = false;
  std::string out_;
};

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
    return absl::InvalidArgumentError(
        absl::StrCat("a pattern of ", pattern.size(), " bytes is longer than ", kPatternBytesMax));
  }
  NG_ASSIGN_OR_RETURN(const std::string translated, Translation(pattern).Run());
  int error = 0;
  PCRE2_SIZE place = 0;
  auto compiled = std::make_unique<Compiled>();
  compiled->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                                 PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C,
                                 &error, &place, nullptr);
  if (compiled->code == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat("the pattern \"", pattern.substr(0, 200),
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
  for (size_t at = 0; at <= text.size();) {
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
    const bool after_match = !matches.empty() && matches.back().end == ends[0];
    at = ends[1];
    if (ends[0] < ends[1] || !after_match) {
      matches.push_back({static_cast<uint32_t>(ends[0]), static_cast<uint32_t>(ends[1])});
    }
    if (ends[0] < ends[1]) continue;
    do ++at;
    while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xc0) == 0x80);
  }
  return matches;
}

}  // namespace neurogrid
