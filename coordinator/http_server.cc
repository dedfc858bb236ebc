#include "coordinator/http_server.h"

#include <httplib.h>  // under the macros of the target ng_httplib
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <cerrno>
#include <condition_variable>
#include <cstring>
#include <list>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/log.h"
#include "coordinator/api_error.h"
#include "coordinator/http_connection.h"

namespace neurogrid {
namespace {

/// A thread for each connection that is open, a few kept for the next ones. The library's own pool
/// leaves a connection waiting behind a long stream when two arrive while one thread is idle.
class ConnectionThreads {
 public:
  explicit ConnectionThreads(size_t threads_max) : threads_max_(threads_max) {}
  ~ConnectionThreads() { Join(); }

  bool Run(std::function<void()> job) {
    const std::lock_guard lock(mutex_);
    if (closing_ || jobs_.size() >= kWaitingMax) return false;
    jobs_.push_back(std::move(job));
    for (; !finished_.empty(); finished_.pop_front()) finished_.front().join();
    if (jobs_.size() > idle_ && threads_.size() < threads_max_) {
      threads_.emplace_back();
      threads_.back() = std::thread([this, self = std::prev(threads_.end())] { Work(self); });
    } else {
      ready_.notify_one();
    }
    return true;
  }

  /// Waits for what runs; nothing starts any more.
  void Join() {
    std::unique_lock lock(mutex_);
    closing_ = true;
    ready_.notify_all();
    ended_.wait(lock, [this] { return threads_.empty(); });
    for (; !finished_.empty(); finished_.pop_front()) finished_.front().join();
  }

 private:
  static constexpr size_t kIdleMax = 16;
  static constexpr size_t kWaitingMax = 256;

  void Work(std::list<std::thread>::iterator self) {
    std::unique_lock lock(mutex_);
    while (true) {
      if (jobs_.empty()) {
        if (closing_ || idle_ >= kIdleMax) break;
        ++idle_;
        ready_.wait(lock, [this] { return closing_ || !jobs_.empty(); });
        --idle_;
        continue;
      }
      const std::function<void()> job = std::move(jobs_.front());
      jobs_.pop_front();
      lock.unlock();
      job();
      lock.lock();
    }
    finished_.splice(finished_.end(), threads_, self);
    ended_.notify_all();
  }

  const size_t threads_max_;
  std::mutex mutex_;
  std::condition_variable ready_;
  std::condition_variable ended_;
  std::list<std::function<void()>> jobs_;
  std::list<std::thread> threads_;
  std::list<std::thread> finished_;
  size_t idle_ = 0;
  bool closing_ = false;
};

/// The library's view of ConnectionThreads, which outlives a listener that has to be opened again.
class TaskQueue final : public httplib::TaskQueue {
 public:
  explicit TaskQueue(ConnectionThreads& threads) : threads_(threads) {}
  bool enqueue(std::function<void()> job) override { return threads_.Run(std::move(job)); }
  void shutdown() override {}

 private:
  ConnectionThreads& threads_;
};

/// A connection as the library sees it. Requests were read already: what the library parses is a
/// head of our own, so that nothing a stranger sent reaches its parser.
class LibraryStream final : public httplib::Stream {
 public:
  explicit LibraryStream(HttpConnection& connection)
      : connection_(connection),
        head_(absl::StrCat(
            connection.request().method == "HEAD" ? "HEAD" : "GET", " / HTTP/1.",
            connection.http_1_0() ? "0\r\nConnection: Keep-Alive\r\n\r\n" : "1\r\n\r\n")) {}

  bool is_readable() const override { return at_ < head_.size(); }
  bool wait_readable() const override { return is_readable(); }
  bool wait_writable() const override { return true; }
  bool is_peer_alive() const override { return connection_.alive(); }
  ssize_t read(char* bytes, size_t size) override {
    const size_t count = std::min(size, head_.size() - at_);
    std::memcpy(bytes, head_.data() + at_, count);
    at_ += count;
    return static_cast<ssize_t>(count);
  }
  ssize_t write(const char* bytes, size_t size) override {
    return connection_.Write({bytes, size}) ? static_cast<ssize_t>(size) : -1;
  }
  void get_remote_ip_and_port(std::string&, int&) const override {}
  void get_local_ip_and_port(std::string&, int&) const override {}
  socket_t socket() const override { return connection_.socket(); }
  time_t duration() const override { return 0; }

 private:
  HttpConnection& connection_;
  const std::string head_;
  size_t at_ = 0;
};

/// What the library's callbacks find again of the request they are called for: it runs a connection
/// on one thread from end to end.
struct Exchange {
  HttpConnection& connection;
  HttpResponse response;
  bool close = false;
};
thread_local Exchange* current_exchange = nullptr;

class StreamSink final : public HttpSink {
 public:
  StreamSink(HttpConnection& connection, httplib::DataSink& sink)
      : connection_(connection), sink_(sink) {}
  bool Write(absl::string_view bytes) override {
    if (!failed_ && !bytes.empty()) failed_ = !sink_.write(bytes.data(), bytes.size());
    return !failed_;
  }
  bool alive() override { return !failed_ && connection_.alive(); }

 private:
  HttpConnection& connection_;
  httplib::DataSink& sink_;
  bool failed_ = false;
};

/// One request's exception stays its own: it is logged and that request fails.
template <typename Function>
bool Guarded(HttpConnection& connection, const Function& function) {
  try {
    function();
    return true;
  } catch (const std::exception& error) {
    LogError("request ", connection.request().request_id, ": ", error.what());
  } catch (...) {
    LogError("request ", connection.request().request_id, ": unknown exception");
  }
  return false;
}

/// Fills in what the handler answered.
httplib::Server::HandlerResponse Deliver(const httplib::Request&, httplib::Response& out) {
  Exchange& exchange = *current_exchange;
  HttpResponse& response = exchange.response;
  out.status = response.status;
  out.set_header("X-Request-Id", exchange.connection.request().request_id);
  for (const auto& [name, value] : response.headers) out.set_header(name, value);
  if (response.close || response.status >= 400 || !exchange.connection.keep_alive() ||
      (response.stream && exchange.connection.http_1_0())) {
    exchange.close = true;
  }
  if (exchange.connection.request().method == "HEAD") out.set_header("Accept-Ranges", "none");
  if (!response.stream) {
    // A 204 has neither body nor length.
    if (response.status != 204) out.set_content(std::move(response.body), response.content_type);
    return httplib::Server::HandlerResponse::Handled;
  }
  const auto provider = [&exchange](size_t, httplib::DataSink& library_sink) {
    StreamSink sink(exchange.connection, library_sink);
    if (!Guarded(exchange.connection, [&] { exchange.response.stream(sink); })) return false;
    if (!sink.Write({})) return false;
    library_sink.done();
    return true;
  };
  if (exchange.connection.http_1_0()) {
    out.set_content_provider(response.content_type, provider);  // ends with the connection
  } else {
    out.set_chunked_content_provider(response.content_type, provider);
  }
  return httplib::Server::HandlerResponse::Handled;
}

/// The library's headers, where it knows less than we do about the end of the connection.
ssize_t WriteHeaders(httplib::Stream& stream, httplib::Headers& headers) {
  const Exchange& exchange = *current_exchange;
  headers.erase("Connection");
  if (exchange.close) {
    headers.erase("Keep-Alive");
    headers.emplace("Connection", "close");
  } else if (exchange.connection.http_1_0()) {
    headers.emplace("Connection", "keep-alive");
  }
  if (exchange.response.status == 204) headers.erase("Content-Length");  // RFC 9110 8.6
  return httplib::detail::write_headers(stream, headers);
}

}  // namespace

class HttpServer::Impl final : private httplib::Server {
 public:
  Impl(const HttpLimits& limits, HttpHandler& handler)
      : limits_(limits),
        handler_(handler),
        budget_(limits.bodies_bytes_max),
        threads_(static_cast<size_t>(limits.connections_max) + kRefusingThreads) {
    new_task_queue = [this] { return new TaskQueue(threads_); };
    set_keep_alive_max_count(static_cast<size_t>(limits.requests_per_connection_max));
    set_keep_alive_timeout(limits.idle_timeout_ms / 1000);
    set_tcp_nodelay(true);
    set_socket_options([bytes = limits.send_buffer_bytes](socket_t socket) {
      // Not SO_REUSEPORT: two servers on one port must be an error. Inherited by connections.
      httplib::set_socket_opt(socket, SOL_SOCKET, SO_REUSEADDR, 1);
      httplib::set_socket_opt(socket, SOL_SOCKET, SO_SNDBUF, bytes);
    });
    set_pre_routing_handler(Deliver);
    set_header_writer(WriteHeaders);
  }

  ~Impl() override {
    stopping_ = true;
    stop();
    {
      const std::lock_guard lock(mutex_);
      for (const int socket : sockets_) shutdown(socket, SHUT_RDWR);
    }
    if (listener_.joinable()) listener_.join();
    threads_.Join();
  }

  absl::Status Listen(const std::string& host, int port) {
    RaiseDescriptorLimit();
    errno = 0;
    port_ = port == 0 ? bind_to_any_port(host) : (bind_to_port(host, port) ? port : -1);
    if (port_ <= 0) {
      const int error = errno;
      const std::string place = absl::StrCat(host, ":", port);
      if (error == EADDRINUSE) {
        return absl::AlreadyExistsError(absl::StrCat(
            "the HTTP address ", place, " is in use by another program: choose another http_port"));
      }
      return absl::InvalidArgumentError(
          absl::StrCat("cannot listen for HTTP on ", place, ": ",
                       error == 0 ? "no such address" : std::strerror(error)));
    }
    listener_ = std::thread([this, host] { KeepListening(host); });
    wait_until_ready();
    return absl::OkStatus();
  }

  int port() const { return port_; }
  int connections() const {
    const std::lock_guard lock(mutex_);
    return open_;
  }
  int requests_in_flight() const { return requests_in_flight_; }

 private:
  /// Threads above the connection limit: they tell the others that the limit is reached.
  static constexpr size_t kRefusingThreads = 32;

  /// Descriptors for every connection, else accept fails and spins.
  void RaiseDescriptorLimit() const {
    rlimit limit{};
    const rlim_t wanted = static_cast<rlim_t>(limits_.connections_max) * 2 + 1024;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted) return;
    limit.rlim_cur = std::min(limit.rlim_max, wanted);
    setrlimit(RLIMIT_NOFILE, &limit);
  }

  /// The library gives up its listener on rare errors of accept; it is opened again.
  void KeepListening(const std::string& host) {
    while (true) {
      listen_after_bind();
      if (stopping_) return;
      LogWarning("the HTTP listener failed and is opened again");
      stop();  // clears the mark that forbids binding again
      while (!stopping_ && !bind_to_port(host, port_)) absl::SleepFor(absl::Milliseconds(200));
      if (stopping_) return;
    }
  }

  bool process_and_close_socket(socket_t socket) override {
    std::string address;
    int remote_port = 0;
    httplib::detail::get_remote_ip_and_port(socket, address, remote_port);
    HttpConnection connection(socket, address, limits_, budget_);
    const bool admitted = Register(socket, address);
    Guarded(connection, [&] { admitted ? Serve(connection) : RefuseConnection(connection); });
    Unregister(socket, address, admitted);
    close(socket);
    return true;
  }

  /// False when a limit is reached. Refused connections are known too, to be cut at the end.
  bool Register(int socket, const std::string& address) {
    const std::lock_guard lock(mutex_);
    sockets_.insert(socket);
    if (stopping_) shutdown(socket, SHUT_RDWR);
    if (open_ >= limits_.connections_max) return false;
    const auto known = per_address_.try_emplace(address, 0).first;
    if (known->second >= limits_.connections_per_address_max) return false;
    ++open_;
    ++known->second;
    return true;
  }

  void Unregister(int socket, const std::string& address, bool admitted) {
    const std::lock_guard lock(mutex_);
    sockets_.erase(socket);
    if (!admitted) return;
    --open_;
    const auto found = per_address_.find(address);
    if (--found->second == 0) per_address_.erase(found);
  }

  void RefuseConnection(HttpConnection& connection) {
    const ApiError error = {
        .status = 503,
        .code = "too_many_connections",
        .message = absl::StrCat("Too many connections are open: the server takes at most ",
                                limits_.connections_per_address_max,
                                " of one address (http_max_connections_per_address) and ",
                                limits_.connections_max, " in all (http_max_connections)."),
        .retry_after_s = 1};
    handler_.Refused(error.code);
    Exchange exchange{connection, ErrorResponse(error), true};
    Respond(exchange);
    connection.Linger();
  }

  void Serve(HttpConnection& connection) {
    for (int left = limits_.requests_per_connection_max; left > 0; --left) {
      const HttpConnection::Arrival arrival = connection.ReadRequest(handler_);
      if (arrival == HttpConnection::Arrival::kGone) return;
      ++requests_in_flight_;
      Exchange exchange{connection, {}, left == 1};
      if (arrival == HttpConnection::Arrival::kRefused) {
        exchange.response = connection.TakeRefusal();
      } else if (!Guarded(connection, [&] {
                   exchange.response = handler_.Answer(connection.request(), connection);
                 })) {
        exchange.response = ErrorResponse(InternalError(connection.request().request_id));
      }
      const bool sent = Respond(exchange);
      --requests_in_flight_;
      if (!sent) return;
      if (exchange.close) return connection.Linger();
    }
  }

  bool Respond(Exchange& exchange) {
    LibraryStream stream(exchange.connection);
    current_exchange = &exchange;
    bool closed = false;
    const bool sent =
        process_request(stream, "", 0, "", 0, /*close_connection=*/exchange.close, closed, nullptr);
    current_exchange = nullptr;
    return sent;
  }

  const HttpLimits limits_;
  HttpHandler& handler_;
  BodyBudget budget_;
  std::atomic<bool> stopping_{false};
  std::atomic<int> requests_in_flight_{0};
  mutable std::mutex mutex_;
  std::set<int> sockets_;
  int open_ = 0;                            // admitted connections
  std::map<std::string, int> per_address_;  // of them
  int port_ = 0;
  ConnectionThreads threads_;
  std::thread listener_;
};

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const std::string& host, int port,
                                                              const HttpLimits& limits,
                                                              HttpHandler& handler) {
  auto impl = std::make_unique<Impl>(limits, handler);
  NG_RETURN_IF_ERROR(impl->Listen(host, port));
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

int HttpServer::port() const { return impl_->port(); }
int HttpServer::connections() const { return impl_->connections(); }
int HttpServer::requests_in_flight() const { return impl_->requests_in_flight(); }

}  // namespace neurogrid
