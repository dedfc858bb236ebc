// Generated tokens to text as they arrive: whole code points, stop strings held back
// (models.md 5.4).
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace neurogrid {

/// Bytes in, whole code points out. At most 3 bytes wait; each maximal invalid subpart of a
/// sequence becomes one U+FFFD (Unicode 16, 3.9, table 3-8).
class Utf8Stream {
 public:
  /// Text that is complete after `bytes`.
  std::string Push(absl::string_view bytes);
  /// What waited, as U+FFFD; call once at the end.
  std::string Finish();

 private:
  std::string tail_;
};

/// Finds the first stop string in text that arrives in pieces. Text that may begin a stop string
/// waits; linear time (Aho and Corasick 1975).
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops, bool include_stop_text);
  struct Result {
    std::string text;  // released: before the match, or before what may become one
    int matched = -1;  // index of the stop string that ended the text; -1: none yet
  };
  /// After a match nothing more is released.
  Result Push(absl::string_view text);
  /// What was held back, when something other than text follows: no match goes across it.
  std::string Release();
  /// The same, when the text ends without a match.
  std::string Finish();

 private:
  struct Node {
    int next[256];
    int fail = 0;
    int match = -1;
    int depth = 0;
  };
  std::vector<std::string> stops_;
  bool include_stop_text_;
  std::vector<Node> nodes_;
  int state_ = 0;
  bool ended_ = false;
  std::string held_;
};

}  // namespace neurogrid
