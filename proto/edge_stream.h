// Length-prefixed frames between two members, over a TLS connection of their own: what an edge of
// the chain is made of.
//
// On the wire: the preamble in the clear, so that the port can tell an edge from gRPC before any
// TLS; then TLS 1.3, mutual; then frames, each a length of four bytes, lowest first, and its bytes.
#pragma once

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/tls_stream.h"
#include "proto/transport.h"

namespace neurogrid {

inline constexpr absl::string_view kEdgePreamble = "NGSTEP1\n";

/// One thread at a time.
class EdgeStream {
 public:
  /// Connects to a node that must show a certificate for `node_id`. Unavailable, naming the
  /// address, when it does not or `deadline` passes.
  static absl::StatusOr<std::unique_ptr<EdgeStream>> Dial(const std::string& host, int port,
                                                          const std::string& node_id,
                                                          const Identity& identity,
                                                          TlsStream::Time deadline);
  /// Serves a socket whose preamble is there, unread; it must outlive the stream.
  static absl::StatusOr<std::unique_ptr<EdgeStream>> Accept(int socket, const Identity& identity,
                                                            TlsStream::Time deadline);

  /// Who is at the other end, as its certificate says.
  const PeerIdentity& peer() const { return peer_; }
  int socket() const { return tls_->socket(); }

  /// The next frame, good until the next call, or nothing where more of it must come first.
  /// Unavailable when the connection is over, ResourceExhausted for a frame that is too long.
  absl::StatusOr<std::optional<absl::string_view>> TryRead(size_t bytes_max);
  absl::StatusOr<absl::string_view> Read(size_t bytes_max, TlsStream::Time deadline);

  /// Takes a frame behind those that wait already; Flush sends as much as the connection takes.
  void Queue(std::string frame);
  absl::Status Flush();
  bool flushed() const { return queue_.empty(); }
  absl::Status Write(std::string frame, TlsStream::Time deadline);
  void Close() { tls_->Close(); }
  /// Whether the other end has closed the connection; one that is over without it was lost.
  bool closed() const { return tls_->closed(); }

 private:
  EdgeStream(Socket owned, std::unique_ptr<TlsStream> tls, PeerIdentity peer);

  Socket owned_;  // of the dialling end
  std::unique_ptr<TlsStream> tls_;
  PeerIdentity peer_;
  std::string in_;      // the length and the bytes of the frame that is coming
  size_t in_done_ = 0;  // how much of it has come
  std::deque<std::string> queue_;
  size_t out_done_ = 0;  // how much of the first has gone
};

}  // namespace neurogrid
