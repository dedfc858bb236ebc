#include "coordinator/http_connection.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "coordinator/api_ids.h"
#include "coordinator/http_body.h"

namespace neurogrid {
namespace {

/// Monotonic, as a point that absl can calculate with.
absl::Time Now() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return absl::TimeFromTimespec(now);
}

/// The events that came before `deadline`; 0 when none did.
short WaitFor(int socket, short events, absl::Time deadline) {
  while (true) {
    pollfd entry = {socket, events, 0};
    const int64_t ms = absl::ToInt64Milliseconds(deadline - Now()) + 1;
    if (ms <= 0) return 0;
    const int ready = poll(&entry, 1, static_cast<int>(std::min<int64_t>(ms, 3'600'000)));
    if (ready > 0) return entry.revents;
    if (ready < 0 && errno != EINTR) return POLLERR;
  }
}

}  // namespace

std::string RequestIdFrom(absl::string_view sent) {
  const bool fit =
      !sent.empty() && sent.size() <= 128 && std::all_of(sent.begin(), sent.end(), [](char c) {
        return absl::ascii_isalnum(static_cast<unsigned char>(c)) || absl::StrContains("._-", c);
      });
  return fit ? std::string(sent) : NewId("req-");
}

bool BodyBudget::Take(int64_t bytes) {
  if (left_.fetch_sub(bytes) >= bytes) return true;
  left_ += bytes;
  return false;
}

HttpConnection::HttpConnection(int socket, std::string remote_address, const HttpLimits& limits,
                               BodyBudget& budget)
    : socket_(socket),
      remote_address_(std::move(remote_address)),
      limits_(limits),
      budget_(budget) {
  request_.request_id = RequestIdFrom("");
}

HttpConnection::~HttpConnection() { ReleaseBody(); }

HttpConnection::Got HttpConnection::Receive(absl::Time deadline) {
  char block[16384];
  while (true) {
    if (WaitFor(socket_, POLLIN, deadline) == 0) return Got::kLate;
    const ssize_t got = recv(socket_, block, sizeof block, MSG_DONTWAIT);
    if (got > 0) {
      buffer_.append(block, static_cast<size_t>(got));
      return Got::kBytes;
    }
    if (got == 0 || (errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR)) return Got::kEnd;
  }
}

HttpConnection::Arrival HttpConnection::Refuse(HttpHandler& handler, const ApiError& error) {
  handler.Refused(error.code);
  refusal_ = ErrorResponse(error);
  refusal_.close = true;
  return Arrival::kRefused;
}

HttpConnection::Arrival HttpConnection::ReadRequest(HttpHandler& handler) {
  ReleaseBody();
  head_ = {};
  request_ = {.remote_address = remote_address_};
  request_.request_id = RequestIdFrom("");
  if (buffer_.empty() && !first_) {
    if (Receive(Now() + absl::Milliseconds(limits_.idle_timeout_ms)) != Got::kBytes) {
      return Arrival::kGone;
    }
  }
  first_ = false;
  const absl::Time deadline = Now() + absl::Milliseconds(limits_.head_timeout_ms);
  size_t end = std::string::npos;
  while (true) {
    // One empty line before a request is forgiven (RFC 9112 2.2).
    if (absl::StartsWith(buffer_, "\r\n")) buffer_.erase(0, 2);
    end = buffer_.find("\r\n\r\n");
    if (end != std::string::npos) break;
    if (MaybeError error = CheckPartialHttpHead(buffer_)) return Refuse(handler, *error);
    if (Receive(deadline) != Got::kBytes) return Arrival::kGone;
  }
  const MaybeError error = ParseHttpHead(absl::string_view(buffer_).substr(0, end + 4), &head_);
  buffer_.erase(0, end + 4);
  request_.method = head_.method;
  request_.path = std::move(head_.path);
  request_.query = std::move(head_.query);
  request_.headers = std::move(head_.headers);
  request_.request_id = RequestIdFrom(request_.Header("x-request-id"));
  if (error) return Refuse(handler, *error);
  HttpHandler::Admission admission = handler.Admit(request_);
  if (admission.refusal) {
    refusal_ = *std::move(admission.refusal);
    return Arrival::kRefused;
  }
  return ReadBody(handler, admission.body_bytes_max);
}

MaybeError HttpConnection::Reserve(int64_t bytes) {
  if (!budget_.Take(bytes)) {
    return ApiError{.status = 503,
                    .code = "too_many_connections",
                    .message = "The server holds too many request bodies at the moment.",
                    .retry_after_s = 1};
  }
  reserved_bytes_ += bytes;
  return std::nullopt;
}

HttpConnection::Arrival HttpConnection::ReadBody(HttpHandler& handler, int64_t bytes_max) {
  if (!head_.chunked && head_.content_length > bytes_max) {
    return Refuse(handler, BodyTooLarge(bytes_max));
  }
  const bool expects_more =
      head_.chunked || static_cast<int64_t>(buffer_.size()) < head_.content_length;
  if (head_.expects_continue && expects_more && !Write("HTTP/1.1 100 Continue\r\n\r\n")) {
    return Arrival::kGone;
  }
  const absl::Time deadline = Now() + absl::Milliseconds(limits_.body_timeout_ms);
  if (head_.chunked) return TakeChunks(handler, bytes_max, deadline);
  const auto length = static_cast<size_t>(head_.content_length);
  // What was received counts, not what was announced: else a few slow announcements would be enough
  // to shut everybody out.
  while (true) {
    const size_t take = std::min(buffer_.size(), length - request_.body.size());
    if (MaybeError error = Reserve(static_cast<int64_t>(take))) {
      return Refuse(handler, *error);
    }
    request_.body.append(buffer_, 0, take);
    buffer_.erase(0, take);
    if (request_.body.size() == length) return Arrival::kRequest;
    if (Receive(deadline) != Got::kBytes) return Arrival::kGone;
  }
}

HttpConnection::Arrival HttpConnection::TakeChunks(HttpHandler& handler, int64_t bytes_max,
                                                   absl::Time deadline) {
  ChunkedBody decoder(bytes_max);
  while (true) {
    const size_t before = request_.body.size();
    size_t taken = 0;
    MaybeError error = decoder.Push(buffer_, &request_.body, &taken);
    if (!error) error = Reserve(static_cast<int64_t>(request_.body.size() - before));
    if (error) return Refuse(handler, *error);
    buffer_.erase(0, taken);
    if (decoder.done()) return Arrival::kRequest;
    if (Receive(deadline) != Got::kBytes) return Arrival::kGone;
  }
}

void HttpConnection::ReleaseBody() { budget_.Return(std::exchange(reserved_bytes_, 0)); }

bool HttpConnection::alive() {
  pollfd entry = {socket_, POLLRDHUP, 0};
  return poll(&entry, 1, 0) <= 0 || (entry.revents & (POLLRDHUP | POLLHUP | POLLERR)) == 0;
}

bool HttpConnection::Write(absl::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
      continue;
    }
    if (sent < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR) return false;
    const short ready =
        WaitFor(socket_, POLLOUT, Now() + absl::Milliseconds(limits_.stall_timeout_ms));
    if ((ready & POLLOUT) == 0) return false;
  }
  return true;
}

void HttpConnection::Linger() {
  shutdown(socket_, SHUT_WR);
  const absl::Time deadline = Now() + absl::Milliseconds(limits_.linger_ms);
  do {
    buffer_.clear();
  } while (Receive(deadline) == Got::kBytes);
}

}  // namespace neurogrid
