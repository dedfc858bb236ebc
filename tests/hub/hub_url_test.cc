// Addresses: what is one, where a redirect leads, who may see the token.
#include "coordinator/hub_url.h"

#include <catch2/catch_test_macros.hpp>

#include "absl/strings/match.h"
#include "coordinator/hub_caller.h"

namespace neurogrid {
namespace {

TEST_CASE("ParseUrl takes https and http addresses apart", "[hub]") {
  const Url url = ParseUrl("https://Hub.Example:8443/a/b?c=d%2Be#f").value();
  CHECK(url.tls);
  CHECK(url.host == "hub.example");
  CHECK(url.port == 8443);
  CHECK(url.target == "/a/b?c=d%2Be");
  CHECK(ParseUrl("http://h").value().port == 80);
  CHECK(ParseUrl("https://h?x=1").value().target == "/?x=1");
  CHECK(ParseUrl("https://[::1]:9/x").value().ToString() == "https://[::1]:9/x");
}

TEST_CASE("ParseUrl refuses what could be read in two ways", "[hub][R51]") {
  for (const char* bad :
       {"", "hub.example", "ftp://h/", "https://", "https:///x", "https://user@h/", "https://h:0/",
        "https://h:99999/", "https://h:/", "https://a b/", "https://h/\r\nX: y", "https://h\\@i/",
        "https://[::1/", "https://a:b:c/", "https://h%2fi/"}) {
    CAPTURE(bad);
    CHECK_FALSE(ParseUrl(bad).ok());
  }
}

TEST_CASE("a password in an address is refused and shown to nobody", "[hub][R51]") {
  const absl::Status status = ParseEndpoint("https://me:hunter2@hub.example/x").status();
  CHECK(absl::StrContains(status.message(), "https://...@hub.example"));
  CHECK_FALSE(absl::StrContains(status.message(), "hunter2"));
}

TEST_CASE("an origin is scheme, host and port", "[hub][R51]") {
  const Url hub = ParseUrl("https://hub.example/x").value();
  CHECK(hub.SameOrigin(ParseUrl("https://HUB.example:443/y").value()));
  for (const char* other : {"http://hub.example/", "https://hub.example:444/",
                            "https://hub.example.evil/", "https://xhub.example/"}) {
    CAPTURE(other);
    CHECK_FALSE(hub.SameOrigin(ParseUrl(other).value()));
  }
}

TEST_CASE("FollowRedirect resolves relative places and keeps encryption", "[hub][R51]") {
  const Url from = ParseUrl("https://hub.example/a/b?c").value();
  CHECK(FollowRedirect(from, "/d?e").value().ToString() == "https://hub.example/d?e");
  CHECK(FollowRedirect(from, "d").value().ToString() == "https://hub.example/a/d");
  CHECK(FollowRedirect(from, "//s.example/x").value().ToString() == "https://s.example/x");
  CHECK(FollowRedirect(from, "https://s.example/x%2F?y=%2B").value().target == "/x%2F?y=%2B");
  CHECK(absl::IsPermissionDenied(FollowRedirect(from, "http://hub.example/").status()));
  CHECK_FALSE(FollowRedirect(from, "file:///etc/passwd").ok());
  CHECK_FALSE(FollowRedirect(from, "").value_or(from).host.empty());
  const Url local = ParseUrl("http://127.0.0.1:1/").value();
  CHECK(FollowRedirect(local, "http://localhost:2/x").ok());
  CHECK(absl::IsPermissionDenied(FollowRedirect(local, "http://127.evil.example/x").status()));
}

TEST_CASE("the endpoint is https, or http on loopback", "[hub]") {
  CHECK(ParseEndpoint("https://hub.example/").value().target.empty());
  CHECK(ParseEndpoint("https://hub.example/a/b/").value().target == "/a/b");
  CHECK(ParseEndpoint("http://127.0.0.1:8080").ok());
  CHECK_FALSE(ParseEndpoint("http://hub.example").ok());
  CHECK_FALSE(ParseEndpoint("https://hub.example/?x").ok());
  CHECK(absl::StrContains(ParseEndpoint("hub").status().message(), "HF_ENDPOINT"));
}

TEST_CASE("EncodePath leaves no character that ends a path", "[hub]") {
  CHECK(EncodePath("refs/pr/1", false) == "refs%2Fpr%2F1");
  CHECK(EncodePath("a b/c?d#e%\xc3\xa9", true) == "a%20b/c%3Fd%23e%25%C3%A9");
}

}  // namespace
}  // namespace neurogrid
