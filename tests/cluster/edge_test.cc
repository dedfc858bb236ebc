// Edges over loopback: what is sent comes whole and in order, and each end hears how it ended.
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>
#include <catch2/generators/catch_generators.hpp>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "absl/strings/match.h"
#include "proto/edge_stream.h"
#include "proto/keepalive.h"
#include "proto/peer.h"
#include "proto/stage.pb.h"
#include "proto/transport.h"

namespace neurogrid {
namespace {

constexpr auto kPatience = std::chrono::seconds(20);  // ends hangs, measures nothing

/// Keeps what came; holds the first step back until `Release`.
class Catcher : public StepReceiver {
 public:
  explicit Catcher(bool polls) : polls_(polls) {}
  bool polls() const override { return polls_; }
  absl::Status CheckSender(const EdgeSender& sender) override {
    return sender.epoch == 1 ? absl::OkStatus() : absl::FailedPreconditionError("another epoch");
  }
  absl::Status TakeStep(const EdgeSender& /*sender*/, Step step) override {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [this] { return released_; });
    if (step.attempt == kRefused) return absl::InvalidArgumentError("not this one");
    steps_.push_back(std::move(step));
    changed_.notify_all();
    return absl::OkStatus();
  }
  void OnEdgeEnd(const EdgeSender& /*sender*/, const absl::Status& status) override {
    const std::lock_guard lock(mutex_);
    ends_.push_back(status);
    changed_.notify_all();
  }
  void Release() {
    const std::lock_guard lock(mutex_);
    released_ = true;
    changed_.notify_all();
  }
  bool WaitForSteps(size_t count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return steps_.size() >= count; });
  }
  bool WaitForEnd() {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, kPatience, [&] { return !ends_.empty(); });
  }
  const std::vector<Step>& steps() const { return steps_; }
  const std::vector<absl::Status>& ends() const { return ends_; }

  static constexpr uint32_t kRefused = 7;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool released_ = false;
  std::vector<Step> steps_;
  std::vector<absl::Status> ends_;
  const bool polls_;
};

struct Ends {
  explicit Ends(bool polls = false, const std::string& name = "to") : catcher(polls) {
    absl::StatusOr<std::unique_ptr<NodePort>> opened =
        NodePort::Open({.host = "127.0.0.1",
                        .identity = IssueIdentity(authority, name, Role::kWorker).value(),
                        .services = {},
                        .steps = &catcher,
                        .enroll = nullptr});
    REQUIRE(opened.ok());
    port = *std::move(opened);
  }
  absl::StatusOr<std::unique_ptr<Peer>> Open(uint64_t epoch = 1, const std::string& node = "to") {
    return OpenPeer({.cluster_id = ClusterIdOf(authority.certificate).value(),
                     .epoch = epoch,
                     .boot_id = 3,
                     .node_id = node,
                     .host = "127.0.0.1",
                     .port = port->port(),
                     .identity = IssueIdentity(authority, "from", Role::kWorker).value(),
                     .on_end = [this](const absl::Status& status) {
                       const std::lock_guard lock(mutex);
                       told.push_back(status);
                       changed.notify_all();
                     }});
  }
  bool WaitForWord() {
    std::unique_lock lock(mutex);
    return changed.wait_for(lock, kPatience, [&] { return !told.empty(); });
  }

  Authority authority = CreateAuthority().value();
  Catcher catcher;
  std::unique_ptr<NodePort> port;
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<absl::Status> told;
};

Step StepOf(uint64_t number, size_t bytes) {
  Step step;
  step.epoch = 1;
  step.number = number;
  step.activations.resize(bytes);
  for (size_t i = 0; i < bytes; ++i) {
    step.activations[i] = static_cast<char>(i * 31 + i / 257 + number);
  }
  return step;
}

TEST_CASE("steps of any size arrive whole and in order, however slow the receiver", "[edge]") {
  Ends ends(/*polls=*/GENERATE(false, true));
  const std::unique_ptr<Peer> peer = ends.Open().value();
  // More than the sockets hold, small ones behind large ones: most of it must wait to be sent.
  const std::vector<size_t> sizes = {0, 1, 4096, 6'000'000, 100, 70'000, 9'000'001, 16'384, 3, 0};
  for (size_t i = 0; i < sizes.size(); ++i) peer->Send(StepOf(i + 1, sizes[i]));
  ends.catcher.Release();
  REQUIRE(ends.catcher.WaitForSteps(sizes.size()));
  for (size_t i = 0; i < sizes.size(); ++i) {
    CAPTURE(i);
    CHECK(ends.catcher.steps()[i].number == i + 1);
    CHECK(ends.catcher.steps()[i].activations == StepOf(i + 1, sizes[i]).activations);
  }
  CHECK(ends.told.empty());
}

TEST_CASE("a sender that closes its edge is heard, and is told nothing itself", "[edge]") {
  Ends ends;
  ends.catcher.Release();
  std::unique_ptr<Peer> peer = ends.Open().value();
  peer->Send(StepOf(1, 10));
  REQUIRE(ends.catcher.WaitForSteps(1));
  peer.reset();
  REQUIRE(ends.catcher.WaitForEnd());
  CHECK(ends.catcher.ends().front().ok());
  CHECK(ends.told.empty());
}

TEST_CASE("a receiver that refuses a step says why", "[edge]") {
  Ends ends;
  ends.catcher.Release();
  const std::unique_ptr<Peer> peer = ends.Open().value();
  Step step = StepOf(1, 10);
  step.attempt = Catcher::kRefused;
  peer->Send(std::move(step));
  REQUIRE(ends.WaitForWord());
  CHECK(absl::IsInvalidArgument(ends.told.front()));
  CHECK(ends.told.front().message() == "edge to to: not this one");
  REQUIRE(ends.catcher.WaitForEnd());
  CHECK(absl::IsInvalidArgument(ends.catcher.ends().front()));
  peer->Send(StepOf(2, 10));  // dropped
}

TEST_CASE("a receiver that goes away is noticed without a step", "[edge]") {
  Ends ends;
  const std::unique_ptr<Peer> peer = ends.Open().value();
  ends.port.reset();
  REQUIRE(ends.WaitForWord());
  CHECK(absl::IsUnavailable(ends.told.front()));
  CHECK(absl::StartsWith(ends.told.front().message(), "edge to to: receiving: "));
  peer->Send(StepOf(1, 10));
}

TEST_CASE("an edge is opened to the node that was meant, at its epoch", "[edge]") {
  Ends ends;
  const absl::Status late = ends.Open(/*epoch=*/2).status();
  CHECK(absl::IsUnavailable(late));
  CHECK(absl::StrContains(late.message(), "another epoch"));
  const absl::Status other = ends.Open(1, "other").status();
  CHECK(absl::IsUnavailable(other));
  CHECK(absl::StrContains(other.message(), "certificate verify failed"));
  CHECK(ends.catcher.ends().empty());
}

TEST_CASE("an edge is opened to a node whose name reads like an address", "[edge]") {
  Ends ends(/*polls=*/false, "10.0.0.7");
  CHECK(ends.Open(1, "10.0.0.7").ok());
  CHECK_FALSE(ends.Open(1, "10.0.0.8").ok());
}

TEST_CASE("strangers that begin edges and fall silent keep no member out", "[edge]") {
  Ends ends;
  ends.catcher.Release();
  std::vector<Socket> strangers;
  while (strangers.size() < kStrangersMax) {
    strangers.push_back(ConnectTcp("127.0.0.1", ends.port->port()).value());
    REQUIRE(write(strangers.back().get(), kEdgePreamble.data(), kEdgePreamble.size()) == 8);
  }
  const std::unique_ptr<Peer> peer = ends.Open().value();
  peer->Send(StepOf(1, 10));
  CHECK(ends.catcher.WaitForSteps(1));
}

TEST_CASE("a member that opens edge after edge keeps the latest ones", "[edge]") {
  Ends ends;
  ends.catcher.Release();
  std::vector<std::unique_ptr<Peer>> peers;
  while (peers.size() <= kEdgesMax) peers.push_back(ends.Open().value());
  REQUIRE(ends.WaitForWord());
  peers.back()->Send(StepOf(1, 10));
  CHECK(ends.catcher.WaitForSteps(1));
  const std::lock_guard lock(ends.mutex);
  CHECK(ends.told.size() == 1);
}

TEST_CASE("the reason of a refusal outlives what was still on its way", "[edge]") {
  Ends ends;
  const std::unique_ptr<Peer> peer = ends.Open().value();
  Step step = StepOf(1, 10);
  step.attempt = Catcher::kRefused;
  peer->Send(std::move(step));
  for (uint64_t i = 2; i < 6; ++i) peer->Send(StepOf(i, 9'000'000));
  ends.catcher.Release();
  REQUIRE(ends.WaitForWord());
  CHECK(ends.told.front().message() == "edge to to: not this one");
}

/// A sender's end without a Peer around it.
struct BareSender {
  explicit BareSender(Ends& ends) {
    const Identity identity = IssueIdentity(ends.authority, "from", Role::kWorker).value();
    socket = ConnectTcp("127.0.0.1", ends.port->port()).value();
    std::string hello(kEdgePreamble);
    REQUIRE(write(socket.get(), hello.data(), hello.size()) == 8);
    tls = TlsStream::Open(socket.get(),
                          {.identity = &identity, .checks_peer = true, .node_id = "to"}, deadline)
              .value();
    wire::EdgeHeader header;
    header.set_cluster_id(ClusterIdOf(ends.authority.certificate).value());
    header.set_epoch(1);
    const std::string bytes = header.SerializeAsString();
    Write(std::string(1, static_cast<char>(bytes.size())) + std::string(3, '\0') + bytes);
  }
  void Write(absl::string_view bytes) { REQUIRE(tls->Write(bytes, deadline).ok()); }

  const TlsStream::Time deadline = std::chrono::steady_clock::now() + kPatience;
  Socket socket;
  std::unique_ptr<TlsStream> tls;
};

TEST_CASE("an edge that is lost says how, and is no edge that was closed", "[edge]") {
  Ends ends;
  {
    BareSender sender(ends);
    std::string welcome(4, '\0');  // an empty EdgeStatus: nothing that came lies unread
    REQUIRE(sender.tls->Read(welcome.data(), welcome.size(), sender.deadline).ok());
    // Closed so, the connection is reset, as it is when the other machine has restarted.
    const linger at_once = {.l_onoff = 1, .l_linger = 0};
    REQUIRE(setsockopt(sender.socket.get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)) == 0);
  }
  REQUIRE(ends.catcher.WaitForEnd());
  CHECK(absl::IsUnavailable(ends.catcher.ends().front()));
  CHECK(ends.catcher.ends().front().message() == "receiving: Connection reset by peer");
}

TEST_CASE("an edge that finds no descriptor left is an error", "[edge]") {
  Ends ends;
  rlimit whole = {};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &whole) == 0);
  const int free = dup(0);
  close(free);
  const rlimit none = {.rlim_cur = static_cast<rlim_t>(free), .rlim_max = whole.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &none) == 0);
  const absl::Status status = ends.Open().status();
  REQUIRE(setrlimit(RLIMIT_NOFILE, &whole) == 0);
  CHECK(absl::IsUnavailable(status));
  CHECK(absl::StrContains(status.message(), "Too many open files"));
}

TEST_CASE("a frame that promises more than a message may hold ends its edge", "[edge]") {
  Ends ends;
  BareSender sender(ends);
  sender.Write("\xff\xff\xff\xff");
  REQUIRE(ends.catcher.WaitForEnd());
  CHECK(absl::IsResourceExhausted(ends.catcher.ends().front()));
}

}  // namespace
}  // namespace neurogrid
