// Requests and responses as the handlers see them: plain data, no HTTP library.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace neurogrid {

/// Names are lower case in requests.
using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method = {};
  std::string path = {};   // percent-decoded, without the query
  std::string query = {};  // as sent, after '?'
  HttpHeaders headers = {};
  std::string body = {};
  std::string remote_address = {};  // of the socket, never from a header
  std::string request_id = {};

  /// Value of the first header of this lower-case name, "" without one.
  absl::string_view Header(absl::string_view name) const {
    for (const auto& [key, value] : headers) {
      if (key == name) return value;
    }
    return {};
  }
};

/// The client at the other end of a request that is being answered.
class HttpPeer {
 public:
  virtual ~HttpPeer() = default;
  /// False once the client closed its sending side: a half-closed client counts as gone.
  virtual bool alive() = 0;
};

/// Where a streamed body goes, after the headers.
class HttpSink : public HttpPeer {
 public:
  /// False when the peer is gone or took no byte for the stall limit; nothing can be written then.
  virtual bool Write(absl::string_view bytes) = 0;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  HttpHeaders headers = {};
  std::string body = {};
  std::function<void(HttpSink&)> stream = {};  // when set it writes the body
  bool close = false;                          // the connection ends after this answer
};

/// Answers requests; called from many threads.
class HttpHandler {
 public:
  virtual ~HttpHandler() = default;

  struct Admission {
    std::optional<HttpResponse> refusal = {};  // the body is then never read
    int64_t body_bytes_max = 0;
  };
  /// Judges route, key and size from the head alone.
  virtual Admission Admit(const HttpRequest& head) = 0;
  virtual HttpResponse Answer(const HttpRequest& request, HttpPeer& peer) = 0;
  /// The listener itself turned a request or connection away, with this error code.
  virtual void Refused(absl::string_view code) = 0;
};

}  // namespace neurogrid
