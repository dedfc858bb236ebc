// The accept loop of NodePort, and the servers behind it.
#include <arpa/inet.h>
#include <fcntl.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <list>
#include <map>
#include <thread>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/enroll.h"
#include "common/log.h"
#include "proto/edge_server.h"
#include "proto/edge_stream.h"
#include "proto/keepalive.h"
#include "proto/transport.h"
#include "proto/wire.h"

namespace neurogrid {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kSilentMax = 64;  // sockets that have not sent a byte yet
constexpr auto kSilentTime = std::chrono::seconds(5);
constexpr int kEnrollingMax = 8;
constexpr int kDescriptorsSpare = 64;  // left to files and to connections we dial
constexpr double kPerAddressPerSecond = 20;
constexpr double kPerSecond = 200;
constexpr size_t kAddressesMax = 4096;
constexpr char kTlsHandshakeByte = 0x16;
static_assert(kEnrollPreamble.size() == kEdgePreamble.size());

/// So many events a second, bursts of twice as many.
class Rate {
 public:
  explicit Rate(double per_second) : per_second_(per_second), tokens_(2 * per_second) {}
  bool Take(Clock::time_point now) {
    const double seconds = std::chrono::duration<double>(now - last_).count();
    tokens_ = std::min(2 * per_second_, tokens_ + seconds * per_second_);
    last_ = now;
    if (tokens_ < 1) return false;
    tokens_ -= 1;
    return true;
  }

 private:
  double per_second_;
  double tokens_;
  Clock::time_point last_ = Clock::now();
};

/// An IPv4 address that comes by a socket of both families is told as one.
std::string AddressText(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&address)->sin_addr, text,
              sizeof(text));
  } else {
    const in6_addr& whole = reinterpret_cast<const sockaddr_in6*>(&address)->sin6_addr;
    const bool mapped = IN6_IS_ADDR_V4MAPPED(&whole);
    inet_ntop(mapped ? AF_INET : AF_INET6, mapped ? &whole.s6_addr[12] : whole.s6_addr, text,
              sizeof(text));
  }
  return text;
}

bool KnowsIpv6() {
  sockaddr_in6 any = {};
  any.sin6_family = AF_INET6;
  const int tried = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const bool known = tried >= 0 && bind(tried, reinterpret_cast<sockaddr*>(&any), sizeof(any)) == 0;
  if (tried >= 0) close(tried);
  return known;
}

absl::StatusOr<int> Listen(const std::string& wanted, int port, int* bound_port) {
  const std::string host = wanted != kAnyHost ? wanted : KnowsIpv6() ? "::" : "0.0.0.0";
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found);
  if (code != 0) {
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", host, ": ", gai_strerror(code)));
  }
  const int listener = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  const int on = 1;
  setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  const int off = 0;  // "::" takes IPv4 too, whatever this machine's default is
  if (found->ai_family == AF_INET6)
    setsockopt(listener, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
  setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));  // inherited by what is accepted
  const bool good = listener >= 0 && bind(listener, found->ai_addr, found->ai_addrlen) == 0 &&
                    listen(listener, 128) == 0;
  const int error = errno;
  freeaddrinfo(found);
  if (!good) {
    if (listener >= 0) close(listener);
    if (error == EADDRINUSE) {
      return absl::AlreadyExistsError(
          absl::StrCat("the address ", host, ":", port,
                       " for other nodes is in use by another program: choose another port "
                       "(grpc_port of a coordinator, --port of a worker)"));
    }
    return absl::UnavailableError(
        absl::StrCat("cannot listen on ", host, ":", port, ": ", std::strerror(error)));
  }
  sockaddr_storage address = {};
  socklen_t size = sizeof(address);
  getsockname(listener, reinterpret_cast<sockaddr*>(&address), &size);
  *bound_port =
      ntohs(address.ss_family == AF_INET ? reinterpret_cast<sockaddr_in*>(&address)->sin_port
                                         : reinterpret_cast<sockaddr_in6*>(&address)->sin6_port);
  return listener;
}

/// From how many bytes on a wait for the socket ends (its end ends it always).
void WakeAt(int socket, size_t bytes) {
  const int least = static_cast<int>(bytes);
  setsockopt(socket, SOL_SOCKET, SO_RCVLOWAT, &least, sizeof(least));
}

bool IsHalfClosed(int socket) {
  pollfd polled = {.fd = socket, .events = POLLRDHUP, .revents = 0};
  return poll(&polled, 1, 0) > 0;
}

class GrpcNodePort : public NodePort {
 public:
  absl::Status Start(Options options) {
    options_ = std::move(options);
    NG_ASSIGN_OR_RETURN(listener_, Listen(options_.host, options_.port, &port_));
    wake_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (wake_ < 0) {
      return absl::UnavailableError(absl::StrCat("the port's eventfd: ", std::strerror(errno)));
    }
    rlimit limit = {};
    getrlimit(RLIMIT_NOFILE, &limit);
    descriptors_max_ = limit.rlim_cur > 1'000'000 ? 1'000'000 : static_cast<int>(limit.rlim_cur);
    if (options_.steps != nullptr) {
      NG_ASSIGN_OR_RETURN(std::string cluster_id, ClusterIdOf(options_.identity.authority));
      edges_ = std::make_unique<EdgeServer>(
          EdgeServer::Options{.cluster_id = std::move(cluster_id), .identity = options_.identity},
          options_.steps);
    }
    if (!options_.services.empty()) {
      StartServer();
      if (server_ == nullptr) return absl::InternalError("the gRPC server did not start");
    }
    accept_thread_ = std::thread([this] { AcceptLoop(); });
    return absl::OkStatus();
  }

  ~GrpcNodePort() override {
    stopping_ = true;
    const uint64_t one = 1;
    if (wake_ >= 0 && write(wake_, &one, sizeof(one)) < 0) LogWarning("port: cannot wake its loop");
    if (accept_thread_.joinable()) accept_thread_.join();
    for (Enrolling& enrolling : enrolling_) enrolling.thread.join();
    if (server_ != nullptr) {
      server_->Shutdown(std::chrono::system_clock::now());
      server_->Wait();
    }
    edges_.reset();  // Last: a node that hears of the end otherwise has no edge to miss.
    for (const int descriptor : {listener_, wake_}) {
      if (descriptor >= 0) close(descriptor);
    }
  }

  int port() const override { return port_; }

 private:
  struct Silent {
    int socket;
    std::string address;
    Clock::time_point deadline;
  };
  struct Enrolling {
    std::thread thread;
    std::unique_ptr<std::atomic<bool>> done;
  };

  void StartServer() {
    grpc::SslServerCredentialsOptions tls(
        GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
    tls.pem_root_certs = options_.identity.authority;
    tls.pem_key_cert_pairs.push_back({options_.identity.key, options_.identity.certificate});
    grpc::ServerBuilder builder;
    acceptor_ = builder.experimental().AddExternalConnectionAcceptor(
        grpc::ServerBuilder::experimental_type::ExternalConnectionType::FROM_FD,
        grpc::SslServerCredentials(tls));
    builder.SetMaxReceiveMessageSize(kDataBytesMax);
    builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, kMetadataBytesMax);
    builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsMax);
    builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kHandshakeMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
    builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                               kPingIntervalMinMs);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PING_STRIKES, kPingStrikes);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_BDP_PROBE, 0);
    builder.AddChannelArgument(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kWindowBytes);
    for (grpc::Service* service : options_.services) builder.RegisterService(service);
    server_ = builder.BuildAndStart();
  }

  void AcceptLoop() {
    while (!stopping_) {
      std::vector<pollfd> polled = {{wake_, POLLIN, 0}};
      if (silent_.size() < kSilentMax) polled.push_back({listener_, POLLIN, 0});
      for (const Silent& silent : silent_) polled.push_back({silent.socket, POLLIN, 0});
      poll(polled.data(), polled.size(), silent_.empty() ? -1 : 250);
      if (stopping_) break;
      SortSilent();
      AcceptAll();
      enrolling_.remove_if([](Enrolling& enrolling) {
        if (!*enrolling.done) return false;
        enrolling.thread.join();
        return true;
      });
    }
    for (const Silent& silent : silent_) close(silent.socket);
  }

  void AcceptAll() {
    while (silent_.size() < kSilentMax) {
      sockaddr_storage address = {};
      socklen_t size = sizeof(address);
      const int socket = accept4(listener_, reinterpret_cast<sockaddr*>(&address), &size,
                                 SOCK_CLOEXEC | SOCK_NONBLOCK);
      if (socket < 0) {
        // Out of descriptors is no reason to spin: the listener stays readable until one is free.
        if (errno == EMFILE || errno == ENFILE) {
          std::this_thread::sleep_for(std::chrono::milliseconds(50));
        }
        return;
      }
      const std::string host = AddressText(address);
      const Clock::time_point now = Clock::now();
      if (by_address_.size() > kAddressesMax) by_address_.clear();
      Rate& rate = by_address_.try_emplace(host, kPerAddressPerSecond).first->second;
      // Descriptors are numbered from below: a high number means that few are left.
      if (socket > descriptors_max_ - kDescriptorsSpare || !rate.Take(now) || !all_.Take(now)) {
        close(socket);
        continue;
      }
      WakeAt(socket, kEnrollPreamble.size());  // less of it would keep the loop awake
      silent_.push_back({socket, host, now + kSilentTime});
    }
  }

  /// Passes on the sockets that have said what they want, closes those that stay silent.
  void SortSilent() {
    const Clock::time_point now = Clock::now();
    silent_.remove_if([&](const Silent& silent) {
      char said[kEnrollPreamble.size()] = {};
      const ssize_t got = recv(silent.socket, said, sizeof(said), MSG_PEEK | MSG_DONTWAIT);
      const bool none = got < 0 && (errno == EAGAIN || errno == EINTR);
      const absl::string_view preamble(said, got > 0 ? static_cast<size_t>(got) : 0);
      const bool begun = !preamble.empty() && preamble.size() < sizeof(said) &&
                         !IsHalfClosed(silent.socket) &&
                         (absl::StartsWith(kEnrollPreamble, preamble) ||
                          absl::StartsWith(kEdgePreamble, preamble));
      if ((none || begun) && now < silent.deadline) return false;
      PassOn(silent, preamble);
      return true;
    });
  }

  void PassOn(const Silent& silent, absl::string_view preamble) {
    WakeAt(silent.socket, 1);
    if (acceptor_ != nullptr && !preamble.empty() && preamble[0] == kTlsHandshakeByte) {
      grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters connection;
      connection.listener_fd = listener_;
      connection.fd = silent.socket;
      acceptor_->HandleNewConnection(&connection);
    } else if (preamble == kEnrollPreamble && options_.enroll != nullptr &&
               enrolling_.size() < kEnrollingMax) {
      StartEnrolling(silent);
    } else if (preamble == kEdgePreamble && edges_ != nullptr) {
      edges_->Serve(silent.socket);
    } else {
      close(silent.socket);
    }
  }

  void StartEnrolling(const Silent& silent) {
    auto done = std::make_unique<std::atomic<bool>>(false);
    std::thread thread([this, silent, finished = done.get()] {
      options_.enroll(silent.socket, silent.address);
      *finished = true;
    });
    enrolling_.push_back({std::move(thread), std::move(done)});
  }

  Options options_;
  int listener_ = -1;
  int wake_ = -1;
  int port_ = 0;
  int descriptors_max_ = 0;
  std::atomic<bool> stopping_ = false;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<EdgeServer> edges_;
  std::list<Silent> silent_;  // of the accept thread, as all below
  std::list<Enrolling> enrolling_;
  std::map<std::string, Rate> by_address_;
  Rate all_{kPerSecond};
  std::thread accept_thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<NodePort>> NodePort::Open(Options options) {
  TakeGrpcLog();
  // TLS of enrolment writes to sockets that strangers close as they like.
  std::signal(SIGPIPE, SIG_IGN);
  auto port = std::make_unique<GrpcNodePort>();
  NG_RETURN_IF_ERROR(port->Start(std::move(options)));
  return port;
}

}  // namespace neurogrid
