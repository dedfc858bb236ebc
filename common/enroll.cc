#include "common/enroll.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <memory>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "common/log.h"

namespace neurogrid {
namespace {

constexpr size_t kFieldBytesMax = 16384;
constexpr int kConnectMs = 2'000;
constexpr int kReadMs = 5'000;
constexpr auto kWholeTime = std::chrono::seconds(10);

template <auto kFree>
struct Free {
  template <typename T>
  void operator()(T* object) const {
    kFree(object);
  }
};
using BioPtr = std::unique_ptr<BIO, Free<BIO_free_all>>;
using ContextPtr = std::unique_ptr<SSL_CTX, Free<SSL_CTX_free>>;
using SslPtr = std::unique_ptr<SSL, Free<SSL_free>>;
using CertificatePtr = std::unique_ptr<X509, Free<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Free<EVP_PKEY_free>>;

class Socket {
 public:
  explicit Socket(int descriptor = -1) : descriptor_(descriptor) {}
  Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }
  ~Socket() {
    if (descriptor_ >= 0) close(descriptor_);
  }
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

absl::Status TlsFailed(absl::string_view what) {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  return absl::UnavailableError(
      absl::StrCat(what, ": ", reason ? reason : "the connection was closed or timed out"));
}

void SetTimeouts(int socket, int ms) {
  const timeval limit = {.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

absl::StatusOr<Socket> Connect(const std::string& host, int port) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found);
  if (code != 0) {
    return absl::UnavailableError(
        absl::StrCat(host, ": cannot find the address: ", gai_strerror(code)));
  }
  const std::unique_ptr<addrinfo, Free<freeaddrinfo>> owned(found);
  std::string reason = "no address";
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    Socket socket(::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (socket.get() < 0) continue;
    SetTimeouts(socket.get(), kConnectMs);  // Linux: also bounds connect.
    if (connect(socket.get(), at->ai_addr, at->ai_addrlen) == 0) {
      SetTimeouts(socket.get(), kReadMs);
      return socket;
    }
    reason = errno == EINPROGRESS ? "timed out" : std::strerror(errno);
  }
  return absl::UnavailableError(absl::StrCat(host, ":", port, ": cannot connect: ", reason));
}

/// One TLS 1.3 context; with an identity it shows that certificate.
absl::StatusOr<ContextPtr> MakeContext(const SSL_METHOD* method, const Identity* identity) {
  ContextPtr context(SSL_CTX_new(method));
  if (!context) return TlsFailed("TLS");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context.get(), 0);
  if (identity == nullptr) return context;
  BioPtr chain(BIO_new_mem_buf(identity->certificate.data(),
                               static_cast<int>(identity->certificate.size())));
  BioPtr key_text(BIO_new_mem_buf(identity->key.data(), static_cast<int>(identity->key.size())));
  CertificatePtr leaf(PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr));
  KeyPtr key(PEM_read_bio_PrivateKey(key_text.get(), nullptr, nullptr, nullptr));
  if (!leaf || !key || SSL_CTX_use_certificate(context.get(), leaf.get()) != 1 ||
      SSL_CTX_use_PrivateKey(context.get(), key.get()) != 1) {
    return TlsFailed("own certificate");
  }
  while (X509* next = PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr)) {
    if (SSL_CTX_add0_chain_cert(context.get(), next) != 1) {
      X509_free(next);
      return TlsFailed("own certificate chain");
    }
  }
  ERR_clear_error();
  return context;
}

/// A handshaken connection. Its read and write calls share one deadline, so that a peer that sends
/// a byte every few seconds does not hold it for ever.
class Channel {
 public:
  static absl::StatusOr<Channel> Open(SSL_CTX* context, int socket, bool server) {
    Channel channel;
    channel.ssl_.reset(SSL_new(context));
    SSL_set_fd(channel.ssl_.get(), socket);
    const int result = server ? SSL_accept(channel.ssl_.get()) : SSL_connect(channel.ssl_.get());
    if (result != 1) return TlsFailed("TLS handshake");
    return channel;
  }

  absl::Status WriteFields(absl::Span<const std::string> fields) {
    std::string out;
    for (const std::string& field : fields) {
      const auto size = static_cast<uint32_t>(field.size());
      for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(size >> shift & 0xFF);
      out += field;
    }
    return SSL_write(ssl_.get(), out.data(), static_cast<int>(out.size())) > 0
               ? absl::OkStatus()
               : TlsFailed("sending");
  }

  absl::StatusOr<std::vector<std::string>> ReadFields(size_t count) {
    std::vector<std::string> fields;
    while (fields.size() < count) {
      NG_ASSIGN_OR_RETURN(const std::string prefix, ReadExactly(4));
      size_t size = 0;
      for (const char c : prefix) size = size << 8 | static_cast<uint8_t>(c);
      if (size > kFieldBytesMax)
        return absl::InvalidArgumentError("enrolment: a field is too long");
      NG_ASSIGN_OR_RETURN(std::string field, ReadExactly(size));
      fields.push_back(std::move(field));
    }
    return fields;
  }

  /// The peer's chain as PEM, leaf first.
  std::vector<std::string> PeerChain() const {
    std::vector<std::string> chain;
    STACK_OF(X509)* certificates = SSL_get_peer_cert_chain(ssl_.get());
    for (int i = 0; certificates != nullptr && i < sk_X509_num(certificates); ++i) {
      BioPtr out(BIO_new(BIO_s_mem()));
      PEM_write_bio_X509(out.get(), sk_X509_value(certificates, i));
      char* data = nullptr;
      const long size = BIO_get_mem_data(out.get(), &data);
      chain.emplace_back(data, static_cast<size_t>(size));
    }
    return chain;
  }

  void Close() { SSL_shutdown(ssl_.get()); }

 private:
  absl::StatusOr<std::string> ReadExactly(size_t size) {
    std::string bytes(size, '\0');
    size_t done = 0;
    while (done < size) {
      if (std::chrono::steady_clock::now() > deadline_) {
        return absl::DeadlineExceededError("enrolment: took too long");
      }
      const int got = SSL_read(ssl_.get(), bytes.data() + done, static_cast<int>(size - done));
      if (got <= 0) return TlsFailed("receiving");
      done += static_cast<size_t>(got);
    }
    return bytes;
  }

  SslPtr ssl_;
  std::chrono::steady_clock::time_point deadline_ = std::chrono::steady_clock::now() + kWholeTime;
};

bool IsHex(absl::string_view text, size_t size) {
  bool good = text.size() == size;
  for (const char c : text) good = good && ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'));
  return good;
}

/// The authority's certificate among those the server showed, or empty.
std::string FindAuthority(const std::vector<std::string>& chain, const std::string& digest) {
  for (const std::string& pem : chain) {
    const absl::StatusOr<Sha256Digest> found = DigestOfCertificate(pem);
    if (found.ok() && HexOf(*found) == digest) return pem;
  }
  return "";
}

absl::Status CheckCoordinator(const std::vector<std::string>& chain, const std::string& authority) {
  if (chain.empty()) return absl::UnauthenticatedError("the server showed no certificate");
  NG_RETURN_IF_ERROR(CheckIssuedBy(chain.front(), authority));
  NG_ASSIGN_OR_RETURN(const CertificateFacts facts, ReadCertificate(chain.front()));
  if (facts.role == Role::kCoordinator) return absl::OkStatus();
  return absl::UnauthenticatedError(
      "the server is a member of the cluster but not its coordinator");
}

absl::Status ServeOne(int socket, const Identity& own, const EnrollDecision& decide) {
  SetTimeouts(socket, kReadMs);
  std::array<char, kEnrollPreamble.size()> preamble = {};
  if (recv(socket, preamble.data(), preamble.size(), MSG_WAITALL) !=
          static_cast<ssize_t>(preamble.size()) ||
      absl::string_view(preamble.data(), preamble.size()) != kEnrollPreamble) {
    return absl::InvalidArgumentError("not an enrolment of this version");
  }
  NG_ASSIGN_OR_RETURN(const ContextPtr context, MakeContext(TLS_server_method(), &own));
  NG_ASSIGN_OR_RETURN(Channel channel, Channel::Open(context.get(), socket, /*server=*/true));
  NG_ASSIGN_OR_RETURN(const std::vector<std::string> fields, channel.ReadFields(4));
  const absl::StatusOr<std::string> decided =
      decide({.token_id = fields[0], .secret = fields[1], .name = fields[2], .request = fields[3]});
  const std::string reason =
      decided.ok() ? "" : std::string(decided.status().message().substr(0, 256));
  const absl::Status sent = channel.WriteFields(
      {reason.empty() && !decided.ok() ? "refused" : reason, decided.ok() ? *decided : ""});
  channel.Close();
  return decided.ok() ? sent : decided.status();
}

}  // namespace

std::string JoinToken::ToString() const {
  return absl::StrCat("ng1.", authority_digest, ".", id, ".", secret);
}

absl::StatusOr<JoinToken> ParseJoinToken(absl::string_view text) {
  const std::vector<std::string> parts = absl::StrSplit(text, '.');
  if (parts.size() != 4 || parts[0] != "ng1" || !IsHex(parts[1], 64) || !IsHex(parts[2], 16) ||
      !IsHex(parts[3], 64)) {
    return absl::InvalidArgumentError(
        "the join token is not of the form ng1.<digest>.<id>.<secret>; "
        "neurogrid-coordinator token prints one");
  }
  return JoinToken{parts[1], parts[2], parts[3]};
}

absl::Status ParseAddress(absl::string_view text, std::string* host, int* port) {
  const size_t colon = text.rfind(':');
  absl::string_view name = text.substr(0, colon);
  if (name.size() >= 2 && name.front() == '[' && name.back() == ']') {
    name = name.substr(1, name.size() - 2);
  } else if (name.find(':') != absl::string_view::npos) {
    name = "";  // an IPv6 address without brackets: where the port begins is a guess
  }
  if (colon == absl::string_view::npos || name.empty() ||
      !absl::SimpleAtoi(text.substr(colon + 1), port) || *port < 1 || *port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text.substr(0, 256), "\" is not HOST:PORT with a port from 1 to 65535"));
  }
  *host = std::string(name);
  return absl::OkStatus();
}

void ServeEnrollment(int socket, const Identity& own, const EnrollDecision& decide) {
  const Socket owned(socket);
  const absl::Status status = ServeOne(socket, own, decide);
  if (!status.ok()) LogWarning("enrolment refused: ", status.message());
}

absl::StatusOr<Identity> Enroll(const std::string& host, int port, const JoinToken& token,
                                const std::string& name) {
  NG_RETURN_IF_ERROR(CheckNodeId(name));
  NG_ASSIGN_OR_RETURN(const Socket socket, Connect(host, port));
  if (send(socket.get(), kEnrollPreamble.data(), kEnrollPreamble.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(kEnrollPreamble.size())) {
    return absl::UnavailableError(absl::StrCat(host, ":", port, ": closed the connection"));
  }
  NG_ASSIGN_OR_RETURN(const ContextPtr context, MakeContext(TLS_client_method(), nullptr));
  absl::StatusOr<Channel> channel = Channel::Open(context.get(), socket.get(), /*server=*/false);
  if (!channel.ok()) {
    return absl::UnavailableError(absl::StrCat(host, ":", port,
                                               " does not answer like a NeuroGrid coordinator (",
                                               channel.status().message(), ")"));
  }
  const std::vector<std::string> chain = channel->PeerChain();
  Identity identity;
  identity.authority = FindAuthority(chain, token.authority_digest);
  if (identity.authority.empty()) {
    return absl::UnauthenticatedError(
        absl::StrCat("the coordinator at ", host, ":", port,
                     " belongs to another cluster than the token; its secret was not sent"));
  }
  if (const absl::Status status = CheckCoordinator(chain, identity.authority); !status.ok()) {
    return absl::UnauthenticatedError(
        absl::StrCat(host, ":", port, ": ", status.message(), "; the token's secret was not sent"));
  }
  NG_ASSIGN_OR_RETURN(identity.key, CreateKey());
  NG_ASSIGN_OR_RETURN(const std::string request, CreateRequest(identity.key));
  NG_RETURN_IF_ERROR(channel->WriteFields({token.id, token.secret, name, request}));
  NG_ASSIGN_OR_RETURN(const std::vector<std::string> reply, channel->ReadFields(2));
  channel->Close();
  if (!reply[0].empty()) {
    return absl::PermissionDeniedError(absl::StrCat("the coordinator refused: ", reply[0]));
  }
  NG_RETURN_IF_ERROR(CheckIssuedBy(reply[1], identity.authority));
  identity.certificate = reply[1] + identity.authority;
  return identity;
}

absl::Status ProbeCoordinator(const std::string& host, int port, const Identity& identity) {
  NG_ASSIGN_OR_RETURN(const Socket socket, Connect(host, port));
  NG_ASSIGN_OR_RETURN(const ContextPtr context, MakeContext(TLS_client_method(), &identity));
  constexpr std::array<unsigned char, 3> kHttp2 = {2, 'h', '2'};
  SSL_CTX_set_alpn_protos(context.get(), kHttp2.data(), kHttp2.size());
  absl::StatusOr<Channel> channel = Channel::Open(context.get(), socket.get(), /*server=*/false);
  if (!channel.ok()) {
    return absl::UnavailableError(absl::StrCat(host, ":", port, ": ", channel.status().message()));
  }
  const absl::Status status = CheckCoordinator(channel->PeerChain(), identity.authority);
  if (status.ok()) return status;
  return absl::UnauthenticatedError(absl::StrCat("the coordinator at ", host, ":", port,
                                                 " is not the one this worker joined (",
                                                 status.message(), "); join again with a token"));
}

}  // namespace neurogrid
