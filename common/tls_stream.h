// TLS 1.3 over a connected socket: what enrolment and the edges of a chain speak.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/identity.h"
#include "common/status.h"

namespace neurogrid {

/// Owns a socket.
class Socket {
 public:
  explicit Socket(int descriptor = -1) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept;
  Socket& operator=(Socket&& other) noexcept;
  ~Socket();
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

/// Takes at most 2 s an address of the host. Small messages are sent at once.
absl::StatusOr<Socket> ConnectTcp(const std::string& host, int port);

struct TlsOptions {
  bool server = false;
  const Identity* identity = nullptr;  // whose certificate is shown; null: none
  /// The other end must show a certificate of the identity's authority; where `node_id` is not
  /// empty, one for that node.
  bool checks_peer = false;
  std::string node_id;
  bool offers_http2 = false;
};

/// One connection; one thread at a time. What writes to it needs SIGPIPE to be ignored.
class TlsStream {
 public:
  using Time = std::chrono::steady_clock::time_point;

  /// Shakes hands. The socket, which blocks no more from now on, must outlive the stream.
  static absl::StatusOr<std::unique_ptr<TlsStream>> Open(int socket, const TlsOptions& options,
                                                         Time deadline);
  virtual ~TlsStream() = default;

  /// What is there of at most `size` bytes, 0 when nothing is; Unavailable when the connection is
  /// over.
  virtual absl::StatusOr<size_t> TryRead(char* data, size_t size) = 0;
  /// How many of the bytes the connection took, perhaps none. Those it did not take must come next.
  virtual absl::StatusOr<size_t> TryWrite(const char* data, size_t size) = 0;
  /// Exactly `size` bytes; DeadlineExceeded when they do not come in time.
  absl::Status Read(char* data, size_t size, Time deadline);
  absl::Status Write(absl::string_view bytes, Time deadline);
  /// Says that nothing follows.
  virtual void Close() = 0;
  /// Whether the other end has said so; a connection that is over without it was lost.
  virtual bool closed() const = 0;

  /// The other end's certificates as PEM, its own first; empty when it showed none.
  virtual std::vector<std::string> PeerChain() const = 0;
  int socket() const { return socket_; }
  /// Until the socket can be read, or written; DeadlineExceeded when that takes too long.
  absl::Status Wait(bool to_write, Time deadline) const;

 protected:
  explicit TlsStream(int socket) : socket_(socket) {}

 private:
  int socket_;
};

}  // namespace neurogrid
