#include "proto/peer.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>
#include <optional>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "proto/edge_stream.h"
#include "proto/stage.pb.h"

namespace neurogrid {
namespace {

constexpr auto kOpenTime = std::chrono::seconds(5);
/// A step of a prompt takes longer to encrypt than to wake a thread: the stage goes on meanwhile.
constexpr size_t kSentAtOnceBytesMax = 64 << 10;

wire::EdgeHeader HeaderOf(const PeerOptions& options) {
  wire::EdgeHeader header;
  header.set_cluster_id(options.cluster_id);
  header.set_epoch(options.epoch);
  header.set_boot_id(options.boot_id);
  return header;
}

absl::Status StatusIn(absl::string_view frame) {
  wire::EdgeStatus message;
  if (!message.ParseFromArray(frame.data(), static_cast<int>(frame.size())) ||
      message.code() > static_cast<uint32_t>(absl::StatusCode::kUnauthenticated)) {
    return absl::InvalidArgumentError("the receiver's status is no EdgeStatus");
  }
  return absl::Status(static_cast<absl::StatusCode>(message.code()), message.message());
}

/// Steps are written by whoever sends them. A thread of its own writes what the connection does not
/// take at once, and hears of the end.
class FramedPeer : public Peer {
 public:
  /// `wake` is an eventfd.
  FramedPeer(PeerOptions options, std::unique_ptr<EdgeStream> stream, Socket wake)
      : options_(std::move(options)),
        stream_(std::move(stream)),
        wake_(std::move(wake)),
        thread_([this] { Loop(); }) {}

  ~FramedPeer() override {
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
    }
    Wake();
    thread_.join();
  }

  void Send(Step step) override {
    wire::StepMessage message;
    *message.mutable_header() = HeaderOf(options_);
    ToMessage(std::move(step), &message);
    std::string frame = message.SerializeAsString();
    const std::lock_guard lock(mutex_);
    if (ended_) return;
    const bool at_once = stream_->flushed() && frame.size() <= kSentAtOnceBytesMax;
    stream_->Queue(std::move(frame));
    if (at_once) Flush();
    if (!stream_->flushed()) Wake();
  }

 private:
  void Wake() {
    const uint64_t one = 1;
    NG_CHECK(write(wake_.get(), &one, sizeof(one)) == sizeof(one));
  }

  /// What the receiver said before it closed is still to be read, so the end is found by reading.
  void Flush() {
    if (deaf_ || stream_->Flush().ok()) return;
    deaf_ = true;
    shutdown(stream_->socket(), SHUT_WR);
  }

  void Loop() {
    std::optional<absl::Status> end;
    while (!end.has_value()) {
      bool unsent = false;
      {
        const std::lock_guard lock(mutex_);
        if (closing_) return stream_->Close();
        Flush();
        unsent = !deaf_ && !stream_->flushed();
        end = ReadEnd();
        ended_ = end.has_value();
      }
      if (!end.has_value()) WaitForMore(unsent);
    }
    {
      const std::lock_guard lock(mutex_);
      if (closing_) return;
    }
    if (options_.on_end != nullptr) options_.on_end(*end);
  }

  /// Whatever the receiver says is the end of the edge.
  std::optional<absl::Status> ReadEnd() {
    const absl::StatusOr<std::optional<absl::string_view>> frame =
        stream_->TryRead(kControlBytesMax);
    if (frame.ok() && !frame->has_value()) return std::nullopt;
    absl::Status said = frame.ok() ? StatusIn(**frame) : frame.status();
    if (said.ok() || stream_->closed()) said = absl::UnavailableError("closed by the receiver");
    return absl::Status(said.code(),
                        absl::StrCat("edge to ", options_.node_id, ": ", said.message()));
  }

  void WaitForMore(bool unsent) {
    const short events = static_cast<short>(POLLIN | (unsent ? POLLOUT : 0));
    pollfd polled[2] = {{.fd = stream_->socket(), .events = events, .revents = 0},
                        {.fd = wake_.get(), .events = POLLIN, .revents = 0}};
    poll(polled, 2, -1);
    uint64_t count = 0;
    if (polled[1].revents != 0) NG_CHECK(read(wake_.get(), &count, sizeof(count)) > 0);
  }

  const PeerOptions options_;
  std::unique_ptr<EdgeStream> stream_;  // under mutex_, but for its socket
  const Socket wake_;
  std::mutex mutex_;
  bool deaf_ = false;     // the connection takes no more
  bool ended_ = false;    // steps are dropped
  bool closing_ = false;  // by us: nobody is told
  std::thread thread_;    // Last: it uses all of the above.
};

absl::StatusOr<std::unique_ptr<EdgeStream>> OpenEdge(const PeerOptions& options) {
  const TlsStream::Time deadline = std::chrono::steady_clock::now() + kOpenTime;
  NG_ASSIGN_OR_RETURN(
      std::unique_ptr<EdgeStream> stream,
      EdgeStream::Dial(options.host, options.port, options.node_id, options.identity, deadline));
  NG_RETURN_IF_ERROR(stream->Write(HeaderOf(options).SerializeAsString(), deadline));
  NG_ASSIGN_OR_RETURN(const absl::string_view answer, stream->Read(kControlBytesMax, deadline));
  NG_RETURN_IF_ERROR(StatusIn(answer));
  return stream;
}

}  // namespace

absl::StatusOr<std::unique_ptr<Peer>> OpenPeer(PeerOptions options) {
  const auto failed = [&](absl::string_view why) {
    return absl::UnavailableError(absl::StrCat("edge to ", options.node_id, " at ", options.host,
                                               ":", options.port, ": ", why));
  };
  Socket wake(eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  if (wake.get() < 0) return failed(absl::StrCat("an eventfd: ", std::strerror(errno)));
  absl::StatusOr<std::unique_ptr<EdgeStream>> stream = OpenEdge(options);
  if (!stream.ok()) return failed(stream.status().message());
  return std::make_unique<FramedPeer>(std::move(options), *std::move(stream), std::move(wake));
}

}  // namespace neurogrid
