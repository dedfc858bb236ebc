// The head of an HTTP/1.x request, read strictly: what two parsers could read differently is
// refused.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"
#include "coordinator/api_error.h"
#include "coordinator/http_types.h"

namespace neurogrid {

inline constexpr size_t kHttpLineBytesMax = 8192;
inline constexpr size_t kHttpHeadersMax = 100;
/// No head that passes the two limits above is longer.
inline constexpr size_t kHttpHeadBytesMax = (kHttpHeadersMax + 1) * (kHttpLineBytesMax + 2) + 2;

struct HttpHead {
  std::string method;
  std::string path;   // percent-decoded
  std::string query;  // as sent
  bool http_1_0 = false;
  HttpHeaders headers;  // names in lower case
  int64_t content_length = 0;
  bool chunked = false;
  bool keep_alive = true;
  bool expects_continue = false;
};

/// Judges a head that is still arriving: an error as soon as no continuation could be accepted, so
/// that endless lines and endless headers are refused early.
MaybeError CheckPartialHttpHead(absl::string_view bytes);

/// Parses a head, from the request line to the empty line included. Refused: bare LF or CR, folded
/// lines, control bytes, other than one Host, repeated or unclean lengths, a length beside
/// chunking, encodings, trailers, upgrades, ranges, and bodies that are not JSON (security.md 2).
MaybeError ParseHttpHead(absl::string_view bytes, HttpHead* head);

/// "%41" becomes "A"; a '%' without two hex digits stays.
std::string PercentDecode(absl::string_view text);

}  // namespace neurogrid
