// Patterns without a scanner of their own: Oniguruma's dialect, as far as PCRE2 can follow, with
// limits.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/status.h"
#include "engine/text/marked_text.h"

namespace neurogrid {

class SplitPattern {
 public:
  /// InvalidArgument saying what is wrong with the pattern, or which of the reference's constructs
  /// is not supported; at most 4 KiB of pattern.
  static absl::StatusOr<std::unique_ptr<SplitPattern>> Compile(absl::string_view pattern);
  ~SplitPattern();

  /// The matches, left to right; empty ones too, but none where another match just ended.
  /// InvalidArgument "cannot split text: ..." past the match limit (100,000 + 4 x bytes) or the
  /// heap limit (64 MiB). Several threads may call it.
  absl::StatusOr<std::vector<ByteRange>> Matches(absl::string_view text) const;

 private:
  struct Compiled;
  explicit SplitPattern(std::unique_ptr<Compiled> compiled);
  std::unique_ptr<Compiled> compiled_;
};

}  // namespace neurogrid
