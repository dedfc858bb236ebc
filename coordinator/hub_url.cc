#include "coordinator/hub_url.h"

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace neurogrid {
namespace {

constexpr size_t kUrlBytesMax = 8192;

absl::Status Bad(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("\"", absl::CHexEscape(text.substr(0, 200)), "\" is no address: ", why));
}

bool IsHostCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '-' || c == '_' ||
         c == ':';
}

/// "host", "host:port" or "[v6]:port" into `url`.
absl::Status ReadAuthority(absl::string_view text, absl::string_view authority, Url& url) {
  size_t port_at = authority.rfind(':');
  if (absl::StartsWith(authority, "[")) {
    const size_t close = authority.find(']');
    if (close == authority.npos) return Bad(text, "a '[' is not closed");
    url.host = std::string(authority.substr(1, close - 1));
    port_at = close + 1 < authority.size() ? close + 1 : authority.npos;
    if (port_at != authority.npos && authority[port_at] != ':') return Bad(text, "bad host");
  } else {
    url.host = std::string(authority.substr(0, port_at));
    if (absl::StrContains(url.host, ':')) return Bad(text, "bad host");
  }
  if (port_at != authority.npos && (!absl::SimpleAtoi(authority.substr(port_at + 1), &url.port) ||
                                    url.port < 1 || url.port > 65535)) {
    return Bad(text, "bad port");
  }
  if (url.host.empty()) return Bad(text, "no host");
  for (char& c : url.host) {
    if (!IsHostCharacter(c)) return Bad(text, "bad host");
    c = absl::ascii_tolower(static_cast<unsigned char>(c));
  }
  return absl::OkStatus();
}

}  // namespace

std::string Url::Origin() const {
  const bool usual = port == (tls ? 443 : 80);
  const bool v6 = absl::StrContains(host, ':');
  return absl::StrCat(tls ? "https://" : "http://", v6 ? "[" : "", host, v6 ? "]" : "",
                      usual ? "" : absl::StrCat(":", port));
}

bool Url::SameOrigin(const Url& other) const {
  return tls == other.tls && host == other.host && port == other.port;
}

bool Url::OnLoopback() const {
  if (host == "localhost" || host == "::1") return true;
  // A name such as 127.example.org is another machine.
  return absl::StartsWith(host, "127.") && host.find_first_not_of("0123456789.") == host.npos;
}

absl::StatusOr<Url> ParseUrl(absl::string_view text) {
  if (text.size() > kUrlBytesMax) return Bad(text, "too long");
  for (const char c : text) {
    if (!absl::ascii_isgraph(static_cast<unsigned char>(c))) {
      return Bad(text, "spaces and control characters must be encoded");
    }
  }
  Url url;
  absl::string_view rest = text.substr(0, text.find('#'));
  const std::string scheme = absl::AsciiStrToLower(rest.substr(0, rest.find("://")));
  if (scheme != "https" && scheme != "http") return Bad(text, "expected https://HOST/...");
  url.tls = scheme == "https";
  url.port = url.tls ? 443 : 80;
  rest.remove_prefix(scheme.size() + 3);
  const size_t end = rest.find_first_of("/?");
  const absl::string_view authority = rest.substr(0, end);
  if (const size_t at = authority.rfind('@'); at != authority.npos) {
    // A password before the host is shown to nobody.
    return Bad(absl::StrCat(scheme, "://...", authority.substr(at)), "a user name stands in it");
  }
  NG_RETURN_IF_ERROR(ReadAuthority(text, authority, url));
  if (end != rest.npos) {
    url.target = absl::StrCat(rest[end] == '?' ? "/" : "", rest.substr(end));
  }
  return url;
}

absl::StatusOr<Url> FollowRedirect(const Url& from, absl::string_view location) {
  std::string absolute(location);
  if (absl::StartsWith(location, "//")) {
    absolute = absl::StrCat(from.tls ? "https:" : "http:", location);
  } else if (absl::StartsWith(location, "/")) {
    absolute = absl::StrCat(from.Origin(), location);
  } else if (!absl::StrContains(location.substr(0, location.find_first_of("/?")), ':')) {
    const std::string path = from.target.substr(0, from.target.find('?'));
    absolute = absl::StrCat(from.Origin(), path.substr(0, path.rfind('/') + 1), location);
  }
  absl::StatusOr<Url> to = ParseUrl(absolute);
  if (!to.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(from.Origin(), " redirects to a bad place: ", to.status().message()));
  }
  if (!to->tls && (from.tls || !from.OnLoopback() || !to->OnLoopback())) {
    return absl::PermissionDeniedError(absl::StrCat(from.Origin(), " redirects to ", to->Origin(),
                                                    ", which is not encrypted: refused"));
  }
  return to;
}

std::string EncodePath(absl::string_view text, bool slashes) {
  std::string encoded;
  for (const char c : text) {
    if (absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("-._~", c) ||
        (slashes && c == '/')) {
      encoded += c;
    } else {
      absl::StrAppendFormat(&encoded, "%%%02X", static_cast<unsigned char>(c));
    }
  }
  return encoded;
}

}  // namespace neurogrid
