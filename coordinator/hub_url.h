// Addresses of the hub and of the hosts it redirects to. Pure.
#pragma once

#include <string>

#include "absl/strings/string_view.h"
#include "common/status.h"

namespace neurogrid {

struct Url {
  bool tls = true;
  std::string host;
  int port = 443;
  std::string target = "/";  // path and query, encoded

  /// "https://host", with the port when it is not the scheme's own.
  std::string Origin() const;
  std::string ToString() const { return Origin() + target; }
  bool SameOrigin(const Url& other) const;
  bool OnLoopback() const;
};

/// An absolute http or https address. User names, control characters and spaces are refused; what
/// follows a '#' is dropped.
absl::StatusOr<Url> ParseUrl(absl::string_view text);

/// Where `location` leads from `from`. PermissionDenied when that is plain http, unless `from` is
/// plain http on loopback and stays there.
absl::StatusOr<Url> FollowRedirect(const Url& from, absl::string_view location);

/// Percent-encodes what may not stand in a path; keeps '/' only when `slashes`.
std::string EncodePath(absl::string_view text, bool slashes);

}  // namespace neurogrid
