// What both programs say of words on the command line that they do not know.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace neurogrid {

/// `left`: the words that were not understood, in order; not empty. A flag among them is named
/// first: what follows it may be its value.
inline std::string UnknownArgument(const std::vector<std::string>& left) {
  for (const std::string& word : left) {
    if (absl::StartsWith(word, "-")) return absl::StrCat("unknown flag ", word, "; see --help");
  }
  return absl::StrCat("unexpected argument \"", left.front(), "\"; see --help");
}

}  // namespace neurogrid
