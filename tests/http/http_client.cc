#include "tests/http/http_client.h"

#include <arpa/inet.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/time/clock.h"
#include "common/check.h"

namespace neurogrid {

RawConnection::RawConnection(int port) : socket_(::socket(AF_INET, SOCK_STREAM, 0)) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  NG_CHECK(connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
}

RawConnection::~RawConnection() { Close(); }

void RawConnection::Close() {
  if (socket_ >= 0) close(std::exchange(socket_, -1));
}

void RawConnection::HalfClose() { shutdown(socket_, SHUT_WR); }

bool RawConnection::Send(absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

std::string RawConnection::ReadUntil(absl::string_view text) {
  std::string got;
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (text.empty() || !absl::StrContains(got, text)) {
    pollfd entry = {socket_, POLLIN, 0};
    const auto left = absl::ToInt64Milliseconds(deadline - absl::Now());
    if (left <= 0 || poll(&entry, 1, static_cast<int>(left)) <= 0) return got;
    char block[65536];
    const ssize_t count = recv(socket_, block, sizeof block, 0);
    if (count <= 0) {
      closed_ = true;
      return got;
    }
    got.append(block, static_cast<size_t>(count));
  }
  return got;
}

std::string RawResponse::Header(absl::string_view name) const {
  for (const absl::string_view line : absl::StrSplit(head, "\r\n")) {
    const size_t colon = line.find(':');
    if (colon != absl::string_view::npos && absl::EqualsIgnoreCase(line.substr(0, colon), name)) {
      return std::string(absl::StripAsciiWhitespace(line.substr(colon + 1)));
    }
  }
  return "";
}

RawResponse ParseResponse(const std::string& text) {
  RawResponse response;
  const size_t end = text.find("\r\n\r\n");
  if (end == std::string::npos || !absl::StartsWith(text, "HTTP/1.1 ")) return response;
  NG_CHECK(absl::SimpleAtoi(text.substr(9, 3), &response.status));
  response.head = text.substr(0, end);
  absl::string_view rest = absl::string_view(text).substr(end + 4);
  if (response.Header("transfer-encoding") != "chunked") {
    response.body = std::string(rest);
    return response;
  }
  while (true) {
    const size_t line = rest.find("\r\n");
    if (line == absl::string_view::npos) return response;
    const size_t size = std::strtoul(std::string(rest.substr(0, line)).c_str(), nullptr, 16);
    if (size == 0) return response;
    response.body += std::string(rest.substr(line + 2, size));
    if (rest.size() < line + 2 + size + 2) return response;
    rest.remove_prefix(line + 2 + size + 2);
  }
}

std::string PostText(const std::string& path, const std::string& body, const std::string& headers) {
  return absl::StrCat("POST ", path, " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n",
                      "Content-Type: application/json\r\nContent-Length: ", body.size(), "\r\n",
                      headers, "\r\n", body);
}

std::string GetText(const std::string& path, const std::string& headers) {
  return absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n",
                      headers, "\r\n");
}

TestServer::TestServer(ApiOptions options, HttpLimits limits, bool has_template) {
  ModelInfo model = {.id = "tiny/model",
                     .created = 1700000000,
                     .max_model_len = 4096,
                     .end_ids = tokenizer.end_ids()};
  api = Api::Create(generator, tokenizer, has_template ? &chat_template : nullptr, model,
                    std::move(options), metrics)
            .value();
  server = HttpServer::Start("127.0.0.1", 0, limits, *api).value();
}

RawResponse TestServer::Send(const std::string& request) const {
  RawConnection connection(port());
  connection.Send(request);
  return ParseResponse(connection.ReadToEnd());
}

bool Eventually(const std::function<bool()>& condition) {
  const absl::Time deadline = absl::Now() + absl::Seconds(60);
  while (!condition()) {
    if (absl::Now() > deadline) return false;
    absl::SleepFor(absl::Milliseconds(5));
  }
  return true;
}

}  // namespace neurogrid
