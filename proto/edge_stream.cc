#include "proto/edge_stream.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/keepalive.h"

namespace neurogrid {
namespace {

constexpr size_t kPrefixBytes = 4;
/// A frame's memory grows with what has come of it, not with what its length promises.
constexpr size_t kGrowthBytes = 1 << 20;

void KeepAlive(int socket) {
  const auto set = [socket](int level, int option, int value) {
    setsockopt(socket, level, option, &value, sizeof(value));
  };
  set(SOL_SOCKET, SO_KEEPALIVE, 1);
  set(IPPROTO_TCP, TCP_KEEPIDLE, kKeepaliveMs / 1000);
  set(IPPROTO_TCP, TCP_KEEPINTVL, kKeepaliveMs / 1000);
  set(IPPROTO_TCP, TCP_KEEPCNT, kKeepaliveTimeoutMs / kKeepaliveMs);
  set(IPPROTO_TCP, TCP_USER_TIMEOUT, kKeepaliveTimeoutMs);
}

size_t LengthOf(absl::string_view prefix) {
  size_t length = 0;
  for (size_t i = kPrefixBytes; i-- > 0;) length = length << 8 | static_cast<uint8_t>(prefix[i]);
  return length;
}

absl::StatusOr<PeerIdentity> IdentityOf(const TlsStream& tls) {
  const std::vector<std::string> chain = tls.PeerChain();
  if (chain.empty()) return absl::UnauthenticatedError("the other end showed no certificate");
  NG_ASSIGN_OR_RETURN(const CertificateFacts facts, ReadCertificate(chain.front()));
  return PeerIdentity{.node_id = facts.node_id, .role = facts.role, .host = ""};
}

}  // namespace

EdgeStream::EdgeStream(Socket owned, std::unique_ptr<TlsStream> tls, PeerIdentity peer)
    : owned_(std::move(owned)), tls_(std::move(tls)), peer_(std::move(peer)) {
  KeepAlive(tls_->socket());
}

absl::StatusOr<std::unique_ptr<EdgeStream>> EdgeStream::Dial(const std::string& host, int port,
                                                             const std::string& node_id,
                                                             const Identity& identity,
                                                             TlsStream::Time deadline) {
  NG_ASSIGN_OR_RETURN(Socket socket, ConnectTcp(host, port));
  if (send(socket.get(), kEdgePreamble.data(), kEdgePreamble.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(kEdgePreamble.size())) {
    return absl::UnavailableError("closed the connection");
  }
  absl::StatusOr<std::unique_ptr<TlsStream>> tls = TlsStream::Open(
      socket.get(), {.identity = &identity, .checks_peer = true, .node_id = node_id}, deadline);
  if (!tls.ok()) {
    return absl::UnavailableError(tls.status().message());
  }
  NG_ASSIGN_OR_RETURN(PeerIdentity peer, IdentityOf(**tls));
  return std::unique_ptr<EdgeStream>(
      new EdgeStream(std::move(socket), *std::move(tls), std::move(peer)));
}

absl::StatusOr<std::unique_ptr<EdgeStream>> EdgeStream::Accept(int socket, const Identity& identity,
                                                               TlsStream::Time deadline) {
  std::array<char, kEdgePreamble.size()> preamble = {};
  if (recv(socket, preamble.data(), preamble.size(), MSG_DONTWAIT) !=
          static_cast<ssize_t>(preamble.size()) ||
      absl::string_view(preamble.data(), preamble.size()) != kEdgePreamble) {
    return absl::InvalidArgumentError("not an edge of this version");
  }
  NG_ASSIGN_OR_RETURN(
      std::unique_ptr<TlsStream> tls,
      TlsStream::Open(socket,
                      {.server = true, .identity = &identity, .checks_peer = true, .node_id = ""},
                      deadline));
  NG_ASSIGN_OR_RETURN(PeerIdentity peer, IdentityOf(*tls));
  return std::unique_ptr<EdgeStream>(new EdgeStream(Socket(), std::move(tls), std::move(peer)));
}

absl::StatusOr<std::optional<absl::string_view>> EdgeStream::TryRead(size_t bytes_max) {
  while (true) {
    size_t wanted = kPrefixBytes;
    if (in_done_ >= kPrefixBytes) {
      const size_t length = LengthOf(in_);
      if (length > bytes_max) {
        return absl::ResourceExhaustedError(
            absl::StrCat("a frame of ", length, " bytes came, at most ", bytes_max));
      }
      wanted += length;
      if (in_done_ == wanted) {
        in_done_ = 0;
        return absl::string_view(in_).substr(kPrefixBytes, length);
      }
    }
    if (in_.size() < wanted) in_.resize(std::min(wanted, in_done_ + kGrowthBytes));
    const size_t room = std::min(wanted, in_.size()) - in_done_;
    NG_ASSIGN_OR_RETURN(const size_t got, tls_->TryRead(in_.data() + in_done_, room));
    if (got == 0) return std::nullopt;
    in_done_ += got;
  }
}

absl::StatusOr<absl::string_view> EdgeStream::Read(size_t bytes_max, TlsStream::Time deadline) {
  while (true) {
    NG_ASSIGN_OR_RETURN(const std::optional<absl::string_view> frame, TryRead(bytes_max));
    if (frame.has_value()) return *frame;
    NG_RETURN_IF_ERROR(tls_->Wait(/*to_write=*/false, deadline));
  }
}

void EdgeStream::Queue(std::string frame) {
  std::string prefix(kPrefixBytes, '\0');
  for (size_t i = 0; i < kPrefixBytes; ++i) {
    prefix[i] = static_cast<char>(frame.size() >> (8 * i) & 0xFF);
  }
  frame.insert(0, prefix);
  queue_.push_back(std::move(frame));
}

absl::Status EdgeStream::Flush() {
  while (!queue_.empty()) {
    const std::string& first = queue_.front();
    NG_ASSIGN_OR_RETURN(const size_t took,
                        tls_->TryWrite(first.data() + out_done_, first.size() - out_done_));
    if (took == 0) return absl::OkStatus();
    out_done_ += took;
    if (out_done_ < first.size()) continue;
    queue_.pop_front();
    out_done_ = 0;
  }
  return absl::OkStatus();
}

absl::Status EdgeStream::Write(std::string frame, TlsStream::Time deadline) {
  Queue(std::move(frame));
  while (true) {
    NG_RETURN_IF_ERROR(Flush());
    if (flushed()) return absl::OkStatus();
    NG_RETURN_IF_ERROR(tls_->Wait(/*to_write=*/true, deadline));
  }
}

}  // namespace neurogrid
