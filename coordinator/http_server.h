// The HTTP listener: connections, deadlines and limits (api.md 10). It reads requests strictly and
// hands them to an HttpHandler; every answer, its own refusals included, is JSON or what it was
// given.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "common/status.h"
#include "coordinator/http_types.h"

namespace neurogrid {

struct HttpLimits {
  int connections_max = 512;
  int connections_per_address_max = 64;
  int requests_per_connection_max = 10'000;
  int64_t bodies_bytes_max = int64_t{256} << 20;  // of all requests that are being read or answered
  int head_timeout_ms = 10'000;                   // from connection or first byte to end of headers
  int body_timeout_ms = 60'000;
  int idle_timeout_ms = 75'000;      // between requests
  int linger_ms = 1'000;             // after an error, for what the client still sends
  int stall_timeout_ms = 30'000;     // a write that moves no byte
  int send_buffer_bytes = 64 << 10;  // the kernel doubles it
};

class HttpServer {
 public:
  /// Listens and answers until destroyed. `port` 0 takes any free one. Errors say what is wrong
  /// with host or port. `handler` must outlive the server.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(const std::string& host, int port,
                                                           const HttpLimits& limits,
                                                           HttpHandler& handler);
  /// Cuts every connection and waits for the handlers to return.
  ~HttpServer();

  int port() const;
  int connections() const;
  int requests_in_flight() const;

 private:
  class Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace neurogrid
