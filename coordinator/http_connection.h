// One client connection: reads whole requests under deadlines, writes with a stall limit.
#pragma once

#include <atomic>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "coordinator/http_head.h"
#include "coordinator/http_server.h"
#include "coordinator/http_types.h"

namespace neurogrid {

/// Bytes of bodies that all connections hold together.
class BodyBudget {
 public:
  explicit BodyBudget(int64_t bytes_max) : left_(bytes_max) {}
  bool Take(int64_t bytes);
  void Return(int64_t bytes) { left_ += bytes; }

 private:
  std::atomic<int64_t> left_;
};

class HttpConnection final : public HttpPeer {
 public:
  /// Borrows the socket.
  HttpConnection(int socket, std::string remote_address, const HttpLimits& limits,
                 BodyBudget& budget);
  ~HttpConnection() override;

  /// What came of waiting for a request.
  enum class Arrival {
    kRequest,  // whole: answer it
    kRefused,  // answer with refusal()
    kGone,     // closed, idle for too long or cut by a deadline: nothing to answer
  };
  /// Reads the next request, judged by `handler` between head and body.
  Arrival ReadRequest(HttpHandler& handler);

  const HttpRequest& request() const { return request_; }
  HttpResponse TakeRefusal() { return std::move(refusal_); }
  /// What the client wants, or the answer demands: the connection ends after this answer.
  bool keep_alive() const { return head_.keep_alive; }
  bool http_1_0() const { return head_.http_1_0; }

  /// Frees what the last request's body took of the budget.
  void ReleaseBody();
  bool alive() override;
  bool Write(absl::string_view bytes);
  /// Ends the sending side and takes what the client still sends, for a short while: closing with
  /// unread bytes would reset the connection and could destroy the answer on its way.
  void Linger();
  int socket() const { return socket_; }

 private:
  enum class Got { kBytes, kEnd, kLate };
  Got Receive(absl::Time deadline);
  Arrival Refuse(HttpHandler& handler, const ApiError& error);
  Arrival ReadBody(HttpHandler& handler, int64_t bytes_max);
  Arrival TakeChunks(HttpHandler& handler, int64_t bytes_max, absl::Time deadline);
  MaybeError Reserve(int64_t bytes);

  const int socket_;
  const std::string remote_address_;
  const HttpLimits& limits_;
  BodyBudget& budget_;
  std::string buffer_;  // received and not yet used: pipelined requests wait here
  HttpHead head_;
  HttpRequest request_;
  HttpResponse refusal_;
  int64_t reserved_bytes_ = 0;
  bool first_ = true;
};

/// `sent` when it is fit to be echoed (1 to 128 of [A-Za-z0-9._-]), else a new one.
std::string RequestIdFrom(absl::string_view sent);

}  // namespace neurogrid
