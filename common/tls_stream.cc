#include "common/tls_stream.h"

#include <fcntl.h>
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

#include <algorithm>
#include <array>
#include <cerrno>
#include <climits>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/owned.h"

namespace neurogrid {
namespace {

constexpr int kConnectMs = 2'000;

using BioPtr = std::unique_ptr<BIO, FreeBy<BIO_free_all>>;
using ContextPtr = std::unique_ptr<SSL_CTX, FreeBy<SSL_CTX_free>>;
using SslPtr = std::unique_ptr<SSL, FreeBy<SSL_free>>;
using CertificatePtr = std::unique_ptr<X509, FreeBy<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, FreeBy<EVP_PKEY_free>>;

absl::Status TlsFailed(absl::string_view what) {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  return absl::UnavailableError(
      absl::StrCat(what, ": ", reason ? reason : "the connection was closed"));
}

BioPtr BioOf(const std::string& text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

absl::Status ShowIdentity(SSL_CTX* context, const Identity& identity) {
  const BioPtr chain = BioOf(identity.certificate);
  const BioPtr key_text = BioOf(identity.key);
  const CertificatePtr leaf(PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr));
  const KeyPtr key(PEM_read_bio_PrivateKey(key_text.get(), nullptr, nullptr, nullptr));
  if (!leaf || !key || SSL_CTX_use_certificate(context, leaf.get()) != 1 ||
      SSL_CTX_use_PrivateKey(context, key.get()) != 1) {
    return TlsFailed("own certificate");
  }
  while (X509* next = PEM_read_bio_X509(chain.get(), nullptr, nullptr, nullptr)) {
    if (SSL_CTX_add0_chain_cert(context, next) != 1) {
      X509_free(next);
      return TlsFailed("own certificate chain");
    }
  }
  ERR_clear_error();  // of the end of the text
  return absl::OkStatus();
}

absl::Status Trust(SSL_CTX* context, const std::string& authority) {
  const BioPtr text = BioOf(authority);
  const CertificatePtr root(PEM_read_bio_X509(text.get(), nullptr, nullptr, nullptr));
  if (!root || X509_STORE_add_cert(SSL_CTX_get_cert_store(context), root.get()) != 1) {
    return TlsFailed("the authority's certificate");
  }
  SSL_CTX_set_verify(context, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, nullptr);
  return absl::OkStatus();
}

absl::StatusOr<ContextPtr> MakeContext(const TlsOptions& options) {
  ContextPtr context(SSL_CTX_new(options.server ? TLS_server_method() : TLS_client_method()));
  if (!context) return TlsFailed("TLS");
  SSL_CTX_set_min_proto_version(context.get(), TLS1_3_VERSION);
  SSL_CTX_set_session_cache_mode(context.get(), SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context.get(), 0);
  SSL_CTX_set_read_ahead(context.get(), 1);  // a record in one call of the system, not two
  SSL_CTX_set_mode(context.get(), SSL_MODE_ENABLE_PARTIAL_WRITE);
  SSL_CTX_set_mode(context.get(), SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  if (options.identity != nullptr && !options.identity->certificate.empty()) {
    NG_RETURN_IF_ERROR(ShowIdentity(context.get(), *options.identity));
  }
  if (options.checks_peer) NG_RETURN_IF_ERROR(Trust(context.get(), options.identity->authority));
  if (options.offers_http2) {
    constexpr std::array<unsigned char, 3> kHttp2 = {2, 'h', '2'};
    SSL_CTX_set_alpn_protos(context.get(), kHttp2.data(), kHttp2.size());
  }
  return context;
}

void AppendPem(X509* certificate, std::vector<std::string>* chain) {
  const BioPtr out(BIO_new(BIO_s_mem()));
  PEM_write_bio_X509(out.get(), certificate);
  char* data = nullptr;
  const long size = BIO_get_mem_data(out.get(), &data);
  chain->emplace_back(data, static_cast<size_t>(size));
}

class OpenSslStream : public TlsStream {
 public:
  OpenSslStream(int socket, ContextPtr context)
      : TlsStream(socket), context_(std::move(context)), ssl_(SSL_new(context_.get())) {}

  absl::Status ShakeHands(const TlsOptions& options, Time deadline) {
    if (!ssl_ || SSL_set_fd(ssl_.get(), socket()) != 1) return TlsFailed("TLS");
    // Not SSL_set1_host: it looks for a node that is called 10.0.0.7 among the addresses.
    if (!options.node_id.empty() &&
        X509_VERIFY_PARAM_set1_host(SSL_get0_param(ssl_.get()), options.node_id.data(),
                                    options.node_id.size()) != 1) {
      return TlsFailed("TLS");
    }
    while (true) {
      ERR_clear_error();
      const int result = options.server ? SSL_accept(ssl_.get()) : SSL_connect(ssl_.get());
      if (result == 1) return absl::OkStatus();
      const int reason = SSL_get_error(ssl_.get(), result);
      if (reason != SSL_ERROR_WANT_READ && reason != SSL_ERROR_WANT_WRITE) {
        return TlsFailed("TLS handshake");
      }
      if (const absl::Status waited = Wait(reason == SSL_ERROR_WANT_WRITE, deadline);
          !waited.ok()) {
        return absl::UnavailableError("TLS handshake: it timed out");
      }
    }
  }

  absl::StatusOr<size_t> TryRead(char* data, size_t size) override {
    ForgetErrors();
    return Count(SSL_read(ssl_.get(), data, Int(size)), "receiving");
  }
  absl::StatusOr<size_t> TryWrite(const char* data, size_t size) override {
    ForgetErrors();
    return Count(SSL_write(ssl_.get(), data, Int(size)), "sending");
  }
  bool closed() const override { return closed_; }
  void Close() override {
    SSL_shutdown(ssl_.get());
    ERR_clear_error();
  }

  std::vector<std::string> PeerChain() const override {
    std::vector<std::string> chain;
    const CertificatePtr own(SSL_get1_peer_certificate(ssl_.get()));
    if (!own) return chain;
    AppendPem(own.get(), &chain);
    STACK_OF(X509)* certificates = SSL_get_peer_cert_chain(ssl_.get());
    // OpenSSL counts the other end's own certificate in on a client alone.
    for (int i = SSL_is_server(ssl_.get()) ? 0 : 1;
         certificates != nullptr && i < sk_X509_num(certificates); ++i) {
      AppendPem(sk_X509_value(certificates, i), &chain);
    }
    return chain;
  }

 private:
  static int Int(size_t size) { return static_cast<int>(std::min<size_t>(size, INT_MAX)); }

  /// What others left on this thread would pass for a failure of ours.
  static void ForgetErrors() {
    ERR_clear_error();
    errno = 0;
  }

  absl::StatusOr<size_t> Count(int result, absl::string_view what) {
    const int system = errno;
    if (result > 0) return static_cast<size_t>(result);
    const int reason = SSL_get_error(ssl_.get(), result);
    if (reason == SSL_ERROR_WANT_READ || reason == SSL_ERROR_WANT_WRITE) return size_t{0};
    if (reason == SSL_ERROR_ZERO_RETURN) closed_ = true;
    if (reason == SSL_ERROR_SYSCALL && system != 0) {
      ERR_clear_error();
      return absl::UnavailableError(absl::StrCat(what, ": ", std::strerror(system)));
    }
    return TlsFailed(what);
  }

  ContextPtr context_;
  SslPtr ssl_;
  bool closed_ = false;  // by the other end's notice, not by a fatal alert
};

}  // namespace

Socket::Socket(Socket&& other) noexcept : descriptor_(std::exchange(other.descriptor_, -1)) {}

Socket& Socket::operator=(Socket&& other) noexcept {
  std::swap(descriptor_, other.descriptor_);
  return *this;
}

Socket::~Socket() {
  if (descriptor_ >= 0) close(descriptor_);
}

absl::StatusOr<Socket> ConnectTcp(const std::string& host, int port) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const int code = getaddrinfo(host.c_str(), absl::StrCat(port).c_str(), &hints, &found);
  if (code != 0) {
    return absl::UnavailableError(
        absl::StrCat(host, ": cannot find the address: ", gai_strerror(code)));
  }
  const std::unique_ptr<addrinfo, FreeBy<freeaddrinfo>> owned(found);
  std::string reason = "no address";
  for (const addrinfo* at = found; at != nullptr; at = at->ai_next) {
    Socket socket(::socket(at->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (socket.get() < 0) continue;
    const timeval limit = {.tv_sec = kConnectMs / 1000, .tv_usec = kConnectMs % 1000 * 1000};
    setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));  // bounds connect
    const int on = 1;
    setsockopt(socket.get(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    if (connect(socket.get(), at->ai_addr, at->ai_addrlen) == 0) return socket;
    reason = errno == EINPROGRESS ? "timed out" : std::strerror(errno);
  }
  return absl::UnavailableError(absl::StrCat(host, ":", port, ": cannot connect: ", reason));
}

absl::StatusOr<std::unique_ptr<TlsStream>> TlsStream::Open(int socket, const TlsOptions& options,
                                                           Time deadline) {
  fcntl(socket, F_SETFL, fcntl(socket, F_GETFL) | O_NONBLOCK);
  NG_ASSIGN_OR_RETURN(ContextPtr context, MakeContext(options));
  auto stream = std::make_unique<OpenSslStream>(socket, std::move(context));
  NG_RETURN_IF_ERROR(stream->ShakeHands(options, deadline));
  return stream;
}

absl::Status TlsStream::Wait(bool to_write, Time deadline) const {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
  pollfd polled = {
      .fd = socket_, .events = static_cast<short>(to_write ? POLLOUT : POLLIN), .revents = 0};
  if (left.count() <= 0 ||
      poll(&polled, 1, static_cast<int>(std::min<int64_t>(left.count(), INT_MAX))) == 0) {
    return absl::DeadlineExceededError("the other end took too long");
  }
  return absl::OkStatus();
}

absl::Status TlsStream::Read(char* data, size_t size, Time deadline) {
  for (size_t done = 0; done < size;) {
    NG_ASSIGN_OR_RETURN(const size_t got, TryRead(data + done, size - done));
    if (got == 0) NG_RETURN_IF_ERROR(Wait(/*to_write=*/false, deadline));
    done += got;
  }
  return absl::OkStatus();
}

absl::Status TlsStream::Write(absl::string_view bytes, Time deadline) {
  while (!bytes.empty()) {
    NG_ASSIGN_OR_RETURN(const size_t took, TryWrite(bytes.data(), bytes.size()));
    if (took == 0) NG_RETURN_IF_ERROR(Wait(/*to_write=*/true, deadline));
    bytes.remove_prefix(took);
  }
  return absl::OkStatus();
}

}  // namespace neurogrid
