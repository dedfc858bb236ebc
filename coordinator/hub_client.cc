// The one file that sees the HTTPS client. It shares the library's header with http_server.cc under
// the same macros, which the build sets for both (ng_httplib): classes differ in layout otherwise.
#include <httplib.h>

#include <atomic>
#include <map>
#include <mutex>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "coordinator/hub_transport.h"

namespace neurogrid {
namespace {

constexpr int kConnectTimeoutS = 15;

HubHead HeadOf(const httplib::Response& response) {
  HubHead head{.status = response.status, .headers = {}};
  for (const auto& [name, value] : response.headers) {
    head.headers.emplace_back(absl::AsciiStrToLower(name), value);
  }
  return head;
}

/// A failure of the library in our words.
absl::Status Failure(const Url& url, const httplib::Result& result, int timeout_ms) {
  using httplib::Error;
  const std::string place = url.Origin();
  switch (result.error()) {
    case Error::SSLServerVerification:
      return absl::FailedPreconditionError(absl::StrCat(
          place,
          " shows a certificate that no authority of this machine vouches for; another "
          "authority is named by SSL_CERT_FILE"));
    case Error::SSLServerHostnameVerification:
      return absl::FailedPreconditionError(
          absl::StrCat(place, " shows the certificate of another host"));
    case Error::SSLLoadingCerts:
      return absl::FailedPreconditionError(
          "the file of authorities that SSL_CERT_FILE names cannot be read");
    case Error::SSLConnection:
      return absl::UnavailableError(absl::StrCat(place, " does not speak TLS"));
    case Error::Connection:
      return absl::UnavailableError(
          absl::StrCat("cannot connect to ", place, ": no network, no such host, or it is down"));
    case Error::ConnectionTimeout:
      return absl::UnavailableError(
          absl::StrCat(place, " takes no connection within ", kConnectTimeoutS, " s"));
    case Error::Read:
    case Error::Timeout:
    case Error::ConnectionClosed:
      return absl::UnavailableError(
          absl::StrCat(place, " cut the connection or was silent for ", timeout_ms / 1000, " s"));
    case Error::Canceled:
      return absl::AbortedError("ended by the reader");
    default:
      return absl::UnavailableError(absl::StrCat(place, ": ", httplib::to_string(result.error())));
  }
}

class HttpsTransport final : public HubTransport {
 public:
  explicit HttpsTransport(const HubSettings& settings) : settings_(settings) {}

  absl::StatusOr<HubHead> Send(const HubRequest& request) override {
    httplib::ClientImpl* client = ClientFor(request.url);
    if (client == nullptr) return absl::AbortedError("stopped");
    httplib::Request message;
    message.method = request.head_only ? "HEAD" : "GET";
    message.path = request.url.target;
    message.set_header("User-Agent", absl::StrCat("neurogrid/", NG_VERSION));
    message.set_header("Accept-Encoding", "identity");
    if (!request.token.empty()) {
      message.set_header("Authorization", absl::StrCat("Bearer ", request.token));
    }
    if (request.first >= 0) {
      message.set_header("Range", absl::StrCat("bytes=", request.first, "-", request.last));
    }
    message.response_handler = [&request](const httplib::Response& response) {
      return request.on_head(HeadOf(response));
    };
    message.content_receiver = [&request](const char* bytes, size_t size, size_t, size_t) {
      return request.on_body({bytes, size});
    };
    try {
      const httplib::Result result = client->send(message);
      if (result == nullptr) return Failure(request.url, result, settings_.stall_timeout_ms);
      return HeadOf(*result);
    } catch (const std::exception& error) {
      return absl::UnavailableError(absl::StrCat(request.url.Origin(), ": ", error.what()));
    }
  }

  void Stop() override {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
    for (const auto& [origin, client] : clients_) client->stop();
  }

 private:
  httplib::ClientImpl* ClientFor(const Url& url) {
    const std::lock_guard lock(mutex_);
    if (stopped_) return nullptr;
    std::unique_ptr<httplib::ClientImpl>& client = clients_[url.Origin()];
    if (client != nullptr) return client.get();
    if (url.tls) {
      auto secure = std::make_unique<httplib::SSLClient>(url.host, url.port);
      if (!settings_.ca_file.empty()) secure->set_ca_cert_path(settings_.ca_file);
      client = std::move(secure);
    } else {
      client = std::make_unique<httplib::ClientImpl>(url.host, url.port);
    }
    client->set_keep_alive(true);
    client->set_follow_location(false);
    client->set_path_encode(false);  // Signed addresses are sent as they came.
    client->set_decompress(false);
    client->set_tcp_nodelay(true);
    client->set_connection_timeout(kConnectTimeoutS);
    client->set_read_timeout(std::chrono::milliseconds(settings_.stall_timeout_ms));
    client->set_write_timeout(std::chrono::milliseconds(settings_.stall_timeout_ms));
    return client.get();
  }

  const HubSettings& settings_;
  std::mutex mutex_;
  std::map<std::string, std::unique_ptr<httplib::ClientImpl>> clients_;
  bool stopped_ = false;
};

}  // namespace

MakeHubTransport HttpsTransports(const HubSettings& settings) {
  return [&settings] { return std::make_unique<HttpsTransport>(settings); };
}

}  // namespace neurogrid
