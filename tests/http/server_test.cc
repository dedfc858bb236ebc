#include <sys/socket.h>

#include <catch2/catch_test_macros.hpp>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/http/http_client.h"

namespace neurogrid {
namespace {

constexpr const char* kHello = R"({"messages":[{"role":"user","content":"Hi"}]})";
constexpr const char* kHealth = "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";

size_t Count(absl::string_view text, absl::string_view what) {
  size_t count = 0;
  for (size_t at = 0; (at = text.find(what, at)) != absl::string_view::npos; at += what.size()) {
    ++count;
  }
  return count;
}

/// Soon done with what a client sends behind an error; the deadlines are those of a real server, so
/// that a client that the system keeps from running is no slow one.
HttpLimits ShortLinger() {
  HttpLimits limits;
  limits.linger_ms = 100;
  return limits;
}

/// Short deadlines, so that tests of them end.
HttpLimits Quick() {
  HttpLimits limits = ShortLinger();
  limits.head_timeout_ms = 300;
  limits.body_timeout_ms = 400;
  limits.idle_timeout_ms = 300;
  return limits;
}

TEST_CASE("pipelined requests are answered in order on one connection", "[http][P5]") {
  const TestServer server;
  RawConnection connection(server.port());
  const std::string post = absl::StrCat(
      "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 16\r\n\r\n", R"({"content":"ab"})");
  connection.Send(absl::StrCat(kHealth, post, kHealth, GetText("/v1/models")));
  const std::string answers = connection.ReadToEnd();
  CHECK(Count(answers, "HTTP/1.1 200 OK") == 4);
  CHECK(connection.closed());
  const size_t tokens = answers.find("\"tokens\":[97,98]");
  const size_t models = answers.find("\"object\":\"list\"");
  CHECK(tokens != std::string::npos);
  CHECK(tokens < models);
  CHECK(Count(answers, "{\"status\":\"ok\"}") == 2);
}

TEST_CASE("a connection is used again after a stream, as its headers promise", "[http]") {
  const TestServer server;
  RawConnection connection(server.port());
  const std::string body = R"({"messages":[{"role":"user","content":"Hi"}],"stream":true})";
  connection.Send(absl::StrCat("POST /v1/chat/completions HTTP/1.1\r\nHost: a\r\nContent-Length: ",
                               body.size(), "\r\n\r\n", body));
  const std::string stream = connection.ReadUntil("\r\n0\r\n\r\n");
  CHECK(absl::StrContains(stream, "data: [DONE]"));
  CHECK_FALSE(absl::StrContains(stream, "Connection: close"));
  connection.Send(kHealth);
  CHECK(absl::StrContains(connection.ReadUntil("ok"), "200 OK"));
}

TEST_CASE("after a malformed head there is one answer and the connection closes", "[http][R38]") {
  const TestServer server({}, ShortLinger());
  for (const char* head :
       {"GET / HTTP/1.1\r\n\r\n", "GET /health HTTP/1.1\nHost: a\r\n\r\n",
        "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 3zz\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n", "BROKEN\r\n\r\n"}) {
    CAPTURE(head);
    RawConnection connection(server.port());
    connection.Send(absl::StrCat(head, kHealth, kHealth));
    const std::string answers = connection.ReadToEnd();
    CHECK(connection.closed());
    CHECK(Count(answers, "HTTP/1.1 ") == 1);
    const RawResponse response = ParseResponse(answers);
    CHECK(response.status == 400);
    CHECK(response.Header("Connection") == "close");
    CHECK(response.Header("Content-Type") == "application/json");
    CHECK(response.json().Find("error")->Find("code")->as_string() == "invalid_value");
  }
}

TEST_CASE("endless headers, lines and bodies are refused without being kept", "[http][P4][R37]") {
  const TestServer server({.max_body_bytes = 1000}, ShortLinger());
  const auto flood = [&](const std::string& head, const std::string& unit) {
    RawConnection connection(server.port());
    connection.Send(head);
    std::thread sender([&] {
      for (int i = 0; i < 20'000 && connection.Send(unit); ++i) continue;
    });
    const RawResponse response = ParseResponse(connection.ReadToEnd());
    shutdown(connection.socket(), SHUT_RDWR);
    sender.join();
    return response.status;
  };
  CHECK(flood("GET / HTTP/1.1\r\nHost: a\r\n", "X-Header: some value of a header\r\n") == 400);
  CHECK(flood("GET / HTTP/1.1\r\nHost: a\r\nX: ", std::string(1000, 'x')) == 400);
  CHECK(flood("GET /", std::string(1000, 'x')) == 414);
  const std::string post = "POST /tokenize HTTP/1.1\r\nHost: a\r\n";
  CHECK(flood(absl::StrCat(post, "Content-Length: 5000000\r\n\r\n"), std::string(1000, 'x')) ==
        413);
  CHECK(flood(absl::StrCat(post, "Transfer-Encoding: chunked\r\n\r\n"),
              absl::StrCat("64\r\n", std::string(100, 'x'), "\r\n")) == 413);
  CHECK(flood(absl::StrCat(post, "Transfer-Encoding: chunked\r\n\r\n0\r\n"), "X: y\r\n") == 400);
  CHECK(server.Get("/health").status == 200);
}

TEST_CASE("a body in chunks is read like one with a length", "[http]") {
  const TestServer server;
  const RawResponse response = server.Send(
      "POST /tokenize HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: "
      "chunked\r\n\r\n"
      "9\r\n{\"content\r\n7\r\n\":\"ab\"}\r\n0\r\n\r\n");
  CHECK(response.status == 200);
  CHECK(response.json().Find("count")->as_integer() == 2);
}

TEST_CASE("slow senders are cut while a good client is served", "[http][threads][P3][R42]") {
  const TestServer server({}, Quick());
  const std::string big = "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n";
  const char* starts[] = {"", "GET /health HTT", "GET /health HTTP/1.1\r\nHost: a\r\n",
                          big.c_str()};
  std::vector<std::unique_ptr<RawConnection>> slow;
  for (int i = 0; i < 12; ++i) {
    slow.push_back(std::make_unique<RawConnection>(server.port()));
    slow.back()->Send(starts[i % 4]);
  }
  // A good client that the system keeps from running is cut too, and asks again.
  CHECK(Eventually([&] { return server.Get("/health").status == 200; }));
  // Drips keep a connection busy, but not open: the whole head and the whole body have a deadline.
  for (auto& connection : slow) {
    CHECK(Eventually([&] { return !connection->Send("x") || connection->closed(); }));
    CHECK(connection->ReadToEnd().size() < 1000);
    CHECK(connection->closed());
  }
  CHECK(Eventually([&] { return server.server->connections() == 0; }));
}

TEST_CASE("an idle connection is closed", "[http][P3]") {
  const TestServer server({}, Quick());
  RawConnection connection(server.port());
  connection.Send(kHealth);
  connection.ReadToEnd();
  CHECK(connection.closed());
}

TEST_CASE("what follows a refusal is thrown away for a short while only", "[http][P3]") {
  const TestServer server({.max_body_bytes = 10}, ShortLinger());
  RawConnection connection(server.port());
  connection.Send("POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n");
  CHECK(absl::StrContains(connection.ReadUntil("}}"), "413"));
  CHECK(Eventually([&] { return !connection.Send("x"); }));
  CHECK(Eventually([&] { return server.server->connections() == 0; }));
}

TEST_CASE("connections above the limits hear so in JSON", "[http][P22][R42]") {
  HttpLimits limits = ShortLinger();
  limits.connections_per_address_max = 3;
  const TestServer server({}, limits);
  std::vector<std::unique_ptr<RawConnection>> held;
  for (int i = 0; i < 3; ++i) {
    held.push_back(std::make_unique<RawConnection>(server.port()));
    held.back()->Send(kHealth);
    CHECK(absl::StrContains(held.back()->ReadUntil("ok"), "200 OK"));
  }
  const RawResponse refused = server.Get("/health");
  CHECK(refused.status == 503);
  CHECK(refused.Header("Retry-After") == "1");
  CHECK(absl::StartsWith(refused.Header("X-Request-Id"), "req-"));
  const Json error = *refused.json().Find("error");
  CHECK(error.Find("code")->as_string() == "too_many_connections");
  CHECK(absl::StrContains(error.Find("message")->as_string(), "at most 3 of one address"));
  held.clear();
  CHECK(Eventually([&] { return server.server->connections() == 0; }));
  CHECK(server.Get("/health").status == 200);
}

TEST_CASE("all bodies together have a limit, and it is freed with the answers", "[http][threads]") {
  HttpLimits limits;
  limits.bodies_bytes_max = 1500;
  const TestServer server({}, limits);
  const std::string big = absl::StrCat(R"({"content":")", std::string(1000, 'a'), R"("})");
  std::unique_ptr<RawConnection> holder;
  // Which of the two is read first is up to the threads: tried until it is the holder.
  CHECK(Eventually([&] {
    holder = std::make_unique<RawConnection>(server.port());
    holder->Send(absl::StrCat("POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 1100\r\n\r\n",
                              big.substr(0, 1000)));
    return server.Post("/tokenize", big).status == 503;
  }));
  holder->Close();
  CHECK(Eventually([&] { return server.Post("/tokenize", big).status == 200; }));
}

TEST_CASE("Expect: 100-continue is answered before the body, unless it is refused", "[http]") {
  const TestServer server({.max_body_bytes = 100});
  RawConnection connection(server.port());
  connection.Send(
      "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 16\r\n"
      "Expect: 100-continue\r\nConnection: close\r\n\r\n");
  CHECK(connection.ReadUntil("\r\n\r\n") == "HTTP/1.1 100 Continue\r\n\r\n");
  connection.Send(R"({"content":"ab"})");
  CHECK(ParseResponse(connection.ReadToEnd()).status == 200);
  RawConnection refused(server.port());
  refused.Send(
      "POST /tokenize HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n"
      "Expect: 100-continue\r\n\r\n");
  CHECK(absl::StartsWith(refused.ReadUntil("}}"), "HTTP/1.1 413"));
}

TEST_CASE("every answer says once whether the connection stays", "[http]") {
  const TestServer server;
  for (const std::string& request :
       {GetText("/health"), GetText("/nothing"), std::string("x\r\n\r\n"),
        std::string("GET /health HTTP/1.0\r\n\r\n")}) {
    const RawResponse response = server.Send(request);
    CHECK(Count(response.head, "Connection: close") == 1);
    CHECK(Count(response.head, "Connection:") == 1);
    CHECK(response.Header("Keep-Alive").empty());
  }
  RawConnection kept(server.port());
  kept.Send("GET /health HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  CHECK(absl::StrContains(kept.ReadUntil("ok"), "Connection: keep-alive\r\n"));
  kept.Send(kHealth);
  const std::string open = kept.ReadUntil("ok");
  CHECK_FALSE(absl::StrContains(open, "Connection:"));
  CHECK(absl::StrContains(open, "Keep-Alive: timeout=75, max=10000"));
}

TEST_CASE("an HTTP/1.0 client gets a stream that ends with the connection", "[http]") {
  const TestServer server;
  RawConnection connection(server.port());
  const std::string body = R"({"messages":[{"role":"user","content":"Hi"}],"stream":true})";
  connection.Send(absl::StrCat(
      "POST /v1/chat/completions HTTP/1.0\r\nContent-Length: ", body.size(), "\r\n\r\n", body));
  const RawResponse response = ParseResponse(connection.ReadToEnd());
  CHECK(response.status == 200);
  CHECK(response.Header("Transfer-Encoding").empty());
  CHECK(absl::EndsWith(response.body, "data: [DONE]\n\n"));
}

TEST_CASE("HEAD has the headers of GET and no body; OPTIONS has neither", "[http]") {
  const TestServer server;
  const RawResponse head =
      server.Send("HEAD /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  CHECK(head.status == 200);
  CHECK(head.Header("Content-Length") == "15");
  CHECK(head.body.empty());
  const RawResponse options =
      server.Send("OPTIONS /v1/models HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
  CHECK(options.status == 204);
  CHECK(options.Header("Allow") == "GET, HEAD, OPTIONS");
  CHECK(options.Header("Content-Length").empty());
}

TEST_CASE("a request id is kept when it is clean and replaced when not", "[http][R41]") {
  const TestServer server;
  CHECK(server.Get("/health", "X-Request-Id: abc.D-1_2\r\n").Header("X-Request-Id") == "abc.D-1_2");
  for (const std::string& bad :
       {std::string("a b"), std::string("a%0d%0aX: y"), std::string(129, 'a')}) {
    const RawResponse response = server.Get("/health", absl::StrCat("X-Request-Id: ", bad, "\r\n"));
    CHECK(response.status == 200);
    CHECK(absl::StartsWith(response.Header("X-Request-Id"), "req-"));
    CHECK(response.Header("X").empty());
  }
}

TEST_CASE("headers that name an address are not believed or stumbled over", "[http][R40]") {
  const TestServer server;
  CHECK(server.Get("/health", "REMOTE_ADDR: 1.2.3.4\r\nX-Forwarded-For: 1.2.3.4\r\n").status ==
        200);
}

TEST_CASE("a port in use is an error with a way out", "[http]") {
  const TestServer server;
  FakeGenerator generator;
  const auto second = HttpServer::Start("127.0.0.1", server.port(), {}, *server.api);
  REQUIRE_FALSE(second.ok());
  CHECK(absl::StrContains(second.status().message(), "is in use"));
  CHECK(absl::StrContains(second.status().message(), "http_port"));
  CHECK_FALSE(HttpServer::Start("no.such.host.invalid", 0, {}, *server.api).ok());
}

TEST_CASE("stopping the server cuts streams and frees their generations", "[http][threads]") {
  auto server = std::make_unique<TestServer>();
  server->generator.script = [](const GenerationRequest&) { return FakeScript{.forever = true}; };
  RawConnection connection(server->port());
  connection.Send(PostText("/v1/chat/completions",
                           R"({"messages":[{"role":"user","content":"Hi"}],"stream":true})"));
  CHECK(absl::StrContains(connection.ReadUntil("assistant"), "200 OK"));
  CHECK(server->generator.running == 1);
  server->server = nullptr;
  CHECK(server->generator.running == 0);
}

TEST_CASE("many connections at once are all answered", "[http][threads]") {
  HttpLimits limits;
  limits.connections_per_address_max = 200;
  const TestServer server({}, limits);
  std::vector<std::unique_ptr<RawConnection>> all;
  for (int i = 0; i < 150; ++i) {
    all.push_back(std::make_unique<RawConnection>(server.port()));
    all.back()->Send(PostText("/v1/chat/completions", kHello));
  }
  for (auto& connection : all) CHECK(ParseResponse(connection->ReadToEnd()).status == 200);
}

}  // namespace
}  // namespace neurogrid
