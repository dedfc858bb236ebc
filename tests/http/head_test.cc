#include <catch2/catch_test_macros.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/http_body.h"
#include "coordinator/http_head.h"

namespace neurogrid {
namespace {

struct Refused {
  const char* why;
  std::string head;
  int status = 400;
};

std::string Post(const std::string& headers) {
  return absl::StrCat("POST /x HTTP/1.1\r\nHost: a\r\n", headers, "\r\n");
}

const std::vector<Refused>& RefusedHeads() {
  static const auto* heads = new std::vector<Refused>{
      {"no request line", "\r\n\r\n"},
      {"two words", "GET /\r\nHost: a\r\n\r\n"},
      {"four words", "GET / / HTTP/1.1\r\nHost: a\r\n\r\n"},
      {"two blanks", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n"},
      {"a method that is no token", "G(T / HTTP/1.1\r\nHost: a\r\n\r\n"},
      {"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\n"},
      {"HTTP/0.9", "GET / HTTP/0.9\r\nHost: a\r\n\r\n"},
      {"a target without a slash", "GET x HTTP/1.1\r\nHost: a\r\n\r\n"},
      {"raw bytes above ASCII in the target", "GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"},
      {"a NUL in the target", std::string("GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 31)},
      {"no Host", "GET / HTTP/1.1\r\n\r\n"},
      {"two Hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n"},
      {"a Host with a path", "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"},
      {"a bare LF after the request line", "GET / HTTP/1.1\nHost: a\r\n\r\n"},
      {"a bare LF after a header", "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n"},
      {"a bare CR in a header", "GET / HTTP/1.1\r\nHost: a\r\nX: b\rY: c\r\n\r\n"},
      {"a folded header", "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n"},
      {"a blank before the colon", "GET / HTTP/1.1\r\nHost : a\r\n\r\n"},
      {"a header without a colon", "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"},
      {"an empty header name", "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n"},
      {"a control byte in a value", "GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n"},
      {"two equal lengths", Post("Content-Length: 5\r\nContent-Length: 5\r\n")},
      {"two lengths", Post("Content-Length: 5\r\nContent-Length: 6\r\n")},
      {"a list of lengths", Post("Content-Length: 5, 5\r\n")},
      {"a signed length", Post("Content-Length: +5\r\n")},
      {"a negative length", Post("Content-Length: -5\r\n")},
      {"a hexadecimal length", Post("Content-Length: 0x5\r\n")},
      {"letters after a length", Post("Content-Length: 3zz\r\n")},
      {"an empty length", Post("Content-Length:\r\n")},
      {"a length beyond 64 bits", Post("Content-Length: 99999999999999999999\r\n")},
      {"length beside chunks", Post("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n")},
      {"a zero length beside chunks", Post("Content-Length: 0\r\nTransfer-Encoding: chunked\r\n")},
      {"chunks twice", Post("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n")},
      {"gzip before chunks", Post("Transfer-Encoding: gzip, chunked\r\n")},
      {"an unknown transfer encoding", Post("Transfer-Encoding: xchunked\r\n")},
      {"identity", Post("Transfer-Encoding: identity\r\n")},
      {"chunks in HTTP/1.0", "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"},
      {"a POST without framing", Post("")},
      {"a GET with a body", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n"},
      {"a GET in chunks", "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"},
      {"announced trailers", Post("Content-Length: 5\r\nTrailer: X\r\n")},
      {"TE", Post("Content-Length: 5\r\nTE: trailers\r\n")},
      {"an upgrade", Post("Content-Length: 5\r\nUpgrade: h2c\r\n")},
      {"a range", "GET / HTTP/1.1\r\nHost: a\r\nRange: bytes=0-1\r\n\r\n"},
      {"an unknown expectation", Post("Content-Length: 5\r\nExpect: miracles\r\n")},
      {"two keys", Post("Content-Length: 5\r\nAuthorization: a\r\nAuthorization: b\r\n")},
      {"gzip", Post("Content-Length: 5\r\nContent-Encoding: gzip\r\n"), 415},
      {"a form", Post("Content-Length: 5\r\nContent-Type: multipart/form-data\r\n"), 415},
      {"plain text", Post("Content-Length: 5\r\nContent-Type: text/plain\r\n"), 415},
      {"a request line beyond its limit",
       absl::StrCat("GET /", std::string(8192, 'a'), " HTTP/1.1\r\nHost: a\r\n\r\n"), 414},
      {"a header beyond its limit",
       absl::StrCat("GET / HTTP/1.1\r\nHost: a\r\nX: ", std::string(8192, 'a'), "\r\n\r\n")},
  };
  return *heads;
}

TEST_CASE("heads that two parsers could read differently are refused", "[http][R37][R38]") {
  for (const Refused& refused : RefusedHeads()) {
    CAPTURE(refused.why);
    HttpHead head;
    const MaybeError error = ParseHttpHead(refused.head, &head);
    REQUIRE(error);
    CHECK(error->status == refused.status);
  }
}

TEST_CASE("a hundred headers pass and one more does not", "[http][R37]") {
  std::string lines = "GET / HTTP/1.1\r\nHost: a\r\n";
  for (int i = 1; i < 100; ++i) absl::StrAppend(&lines, "X-", i, ": y\r\n");
  HttpHead head;
  CHECK_FALSE(ParseHttpHead(lines + "\r\n", &head));
  CHECK(head.headers.size() == 100);
  CHECK(ParseHttpHead(lines + "X: y\r\n\r\n", &head));
}

TEST_CASE("a head that can never become good is refused before its end", "[http][R37]") {
  CHECK_FALSE(CheckPartialHttpHead("GET / HT"));
  CHECK_FALSE(CheckPartialHttpHead("GET / HTTP/1.1\r\nHost: a"));
  CHECK(CheckPartialHttpHead(std::string(9000, 'a'))->status == 414);
  CHECK(CheckPartialHttpHead("GET / HTTP/1.1\r\n" + std::string(9000, 'a'))->status == 400);
  std::string many = "GET / HTTP/1.1\r\n";
  for (int i = 0; i < 101; ++i) many += "X: y\r\n";
  CHECK(CheckPartialHttpHead(many));
}

TEST_CASE("a plain head gives method, path, query and framing", "[http]") {
  HttpHead head;
  REQUIRE_FALSE(ParseHttpHead(
      "POST /v1/models/a%2Fb%20c?x=1&y HTTP/1.1\r\nHost: [::1]:8090\r\nX-Api-Key:  k%41 \r\n"
      "Content-Length: 12\r\nContent-Type: Application/JSON; charset=utf-8\r\n\r\n",
      &head));
  CHECK(head.method == "POST");
  CHECK(head.path == "/v1/models/a/b c");
  CHECK(head.query == "x=1&y");
  CHECK(head.content_length == 12);
  CHECK(head.keep_alive);
  CHECK(head.headers[1] == std::pair<std::string, std::string>("x-api-key", "k%41"));
}

TEST_CASE("the absolute form of a target gives its path", "[http]") {
  HttpHead head;
  REQUIRE_FALSE(ParseHttpHead("GET http://a.b:1/health?q HTTP/1.1\r\nHost: a\r\n\r\n", &head));
  CHECK(head.path == "/health");
}

TEST_CASE("connections stay open in HTTP/1.1 and close in 1.0, unless told otherwise", "[http]") {
  const auto keeps = [](const std::string& text) {
    HttpHead head;
    REQUIRE_FALSE(ParseHttpHead(text, &head));
    return head.keep_alive;
  };
  CHECK(keeps("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
  CHECK_FALSE(keeps("GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Close\r\n\r\n"));
  CHECK_FALSE(keeps("GET / HTTP/1.0\r\n\r\n"));
  CHECK(keeps("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n"));
}

TEST_CASE("a chunked body is the same however its bytes arrive", "[http][R7]") {
  const std::string wire = "5\r\nhello\r\n00A\r\n, chunked \r\n5\r\nworld\r\n0\r\n\r\nGET";
  for (size_t step = 1; step <= wire.size(); ++step) {
    CAPTURE(step);
    ChunkedBody decoder(100);
    std::string body;
    size_t used = 0;
    for (size_t at = 0; at < wire.size() && !decoder.done(); at += step) {
      size_t taken = 0;
      REQUIRE_FALSE(decoder.Push(absl::string_view(wire).substr(at, step), &body, &taken));
      used += taken;
    }
    CHECK(decoder.done());
    CHECK(body == "hello, chunked world");
    CHECK(wire.substr(used) == "GET");
  }
}

TEST_CASE("chunks that are not clean are refused", "[http][R36][R38]") {
  for (const char* wire :
       {"zz\r\n", "3zz\r\nabc\r\n0\r\n\r\n", "-3\r\n", "+3\r\n", "0x3\r\n", " 3\r\nabc", "\r\n",
        "3\nabc", "3\r\nabcd\r\n", "3\r\nabc\n0\r\n\r\n", "3;x=y\r\nabc\r\n0\r\n\r\n",
        "123456789\r\n", "0\r\nX: y\r\n\r\n", "0\r\n\n"}) {
    CAPTURE(wire);
    ChunkedBody decoder(100);
    std::string body;
    size_t taken = 0;
    const MaybeError error = decoder.Push(wire, &body, &taken);
    REQUIRE(error);
    CHECK(error->status == 400);
  }
}

TEST_CASE("a chunked body beyond the limit is refused when its size is read", "[http][R36]") {
  ChunkedBody decoder(10);
  std::string body;
  size_t taken = 0;
  REQUIRE_FALSE(decoder.Push("8\r\n12345678\r\n", &body, &taken));
  CHECK(decoder.Push("3\r\n", &body, &taken)->status == 413);
  CHECK(body.size() == 8);
}

}  // namespace
}  // namespace neurogrid
