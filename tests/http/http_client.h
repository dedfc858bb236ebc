// A raw HTTP client over real sockets, and a server over the fake serving side.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "coordinator/api.h"
#include "coordinator/http_server.h"
#include "tests/http/fake_serving.h"

namespace neurogrid {

/// One TCP connection that sends and reads bytes as they are.
class RawConnection {
 public:
  explicit RawConnection(int port);
  ~RawConnection();
  RawConnection(const RawConnection&) = delete;
  RawConnection& operator=(const RawConnection&) = delete;

  /// False when the peer has closed.
  bool Send(absl::string_view bytes);
  /// Everything until the peer closes, or until `text` was seen, or 20 s.
  std::string ReadUntil(absl::string_view text);
  std::string ReadToEnd() { return ReadUntil({}); }
  /// True when the last read ended because the peer closed.
  bool closed() const { return closed_; }
  /// Ends the sending side only.
  void HalfClose();
  void Close();
  int socket() const { return socket_; }

 private:
  int socket_ = -1;
  bool closed_ = false;
};

struct RawResponse {
  int status = 0;
  std::string head;
  std::string body;  // decoded when it came in chunks
  /// Value of a header, "" without it; names in any case.
  std::string Header(absl::string_view name) const;
  Json json() const { return ParseJson(body).value(); }
};

/// Splits one response; the text must hold it whole.
RawResponse ParseResponse(const std::string& text);

/// "POST PATH" with a JSON body and `Connection: close`; `headers` are whole lines with CR LF.
std::string PostText(const std::string& path, const std::string& body,
                     const std::string& headers = "");
std::string GetText(const std::string& path, const std::string& headers = "");

/// The API over fakes, on a free port of the loopback.
struct TestServer {
  explicit TestServer(ApiOptions options = {}, HttpLimits limits = {}, bool has_template = true);

  RawResponse Send(const std::string& request) const;
  RawResponse Post(const std::string& path, const std::string& body,
                   const std::string& headers = "") const {
    return Send(PostText(path, body, headers));
  }
  RawResponse Get(const std::string& path, const std::string& headers = "") const {
    return Send(GetText(path, headers));
  }
  int port() const { return server->port(); }

  FakeTokenizer tokenizer;
  FakeTemplate chat_template;
  FakeGenerator generator;
  ServingMetrics metrics;
  std::unique_ptr<Api> api;
  std::unique_ptr<HttpServer> server;
};

/// Waits for up to 20 s until `condition` holds.
bool Eventually(const std::function<bool()>& condition);

}  // namespace neurogrid
