// Template text that knows the origin of every byte (models.md 5.5), and the string operations that
// keep it.
#pragma once

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "engine/text/provenance.h"

namespace neurogrid::jinja {

/// UTF-8 bytes in runs of one origin. Positions are byte offsets.
class Text {
 public:
  Text() = default;
  Text(absl::string_view bytes, Origin origin) { Append(bytes, origin); }

  const std::string& bytes() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }

  void Append(absl::string_view bytes, Origin origin);
  void Append(const Text& text) { Append(text, 0, text.size()); }
  /// Appends bytes [begin, end) of `text`.
  void Append(const Text& text, size_t begin, size_t end);
  Text Slice(size_t begin, size_t end) const;

  Origin OriginAt(size_t position) const;
  /// Input if any byte is input, else assistant if any is, else template: what may be said of
  /// text generated from this one.
  Origin LeastTrusted() const;

  PromptText Segments() const;

 private:
  struct Run {
    size_t end;
    Origin origin;
  };
  std::string bytes_;
  std::vector<Run> runs_;  // [runs] by end; neighbours differ in origin
};

/// First place of `needle` in text at or after `from`, npos when absent. Linear in both lengths, so
/// that no pair of strings makes a search slow.
size_t Find(absl::string_view text, absl::string_view needle, size_t from = 0);
/// Last place of `needle`; linear too.
size_t FindLast(absl::string_view text, absl::string_view needle);

using ByteRange = std::pair<size_t, size_t>;  // [first, second)

/// str.split(separator, most), str.rsplit: byte ranges of the pieces; most < 0: no limit.
std::vector<ByteRange> Split(absl::string_view text, absl::string_view separator, int64_t most);
std::vector<ByteRange> SplitFromRight(absl::string_view text, absl::string_view separator,
                                      int64_t most);
/// Without separator: runs of white space separate and none is kept at the ends.
std::vector<ByteRange> SplitSpace(absl::string_view text, int64_t most);
std::vector<ByteRange> SplitSpaceFromRight(absl::string_view text, int64_t most);
/// str.splitlines.
std::vector<ByteRange> SplitLines(absl::string_view text, bool keep_ends);

/// str.strip and its halves. `characters` null: white space.
ByteRange Strip(absl::string_view text, const absl::string_view* characters, bool left, bool right);

}  // namespace neurogrid::jinja
