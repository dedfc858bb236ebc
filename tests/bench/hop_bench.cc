// One hop of a step between two processes of this machine: half of a round trip, as a histogram.
//
//   hop_bench [ROUNDS [PAUSE_US [poll]]]
//
// A pause before each round stands for the stage that computes: what waits for a step has gone to
// sleep by then. Both ends answer on the thread that the transport calls, so nothing else is timed.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <thread>
#include <vector>

#include "common/check.h"
#include "common/identity.h"
#include "proto/peer.h"
#include "proto/transport.h"

namespace neurogrid {
namespace {

using Clock = std::chrono::steady_clock;

/// One end: a port of its own and an edge to the other one's.
class End : public StepReceiver {
 public:
  End(const Authority& authority, std::string name, bool polls)
      : name_(std::move(name)),
        cluster_id_(ClusterIdOf(authority.certificate).value()),
        identity_(IssueIdentity(authority, name_, Role::kWorker).value()),
        polls_(polls) {
    absl::StatusOr<std::unique_ptr<NodePort>> port = NodePort::Open({.host = "127.0.0.1",
                                                                     .identity = identity_,
                                                                     .services = {},
                                                                     .steps = this,
                                                                     .enroll = nullptr});
    NG_CHECK(port.ok());
    port_ = *std::move(port);
  }
  ~End() override {
    peer_.reset();
    port_.reset();
  }
  int port() const { return port_->port(); }

  void Connect(const std::string& node_id, int port) {
    absl::StatusOr<std::unique_ptr<Peer>> peer = OpenPeer({.cluster_id = cluster_id_,
                                                           .epoch = 1,
                                                           .boot_id = 1,
                                                           .node_id = node_id,
                                                           .host = "127.0.0.1",
                                                           .port = port,
                                                           .identity = identity_,
                                                           .on_end = nullptr});
    NG_CHECK(peer.ok());
    const std::lock_guard lock(mutex_);
    peer_ = *std::move(peer);
    changed_.notify_all();
  }

  absl::Status CheckSender(const EdgeSender& /*sender*/) override { return absl::OkStatus(); }
  bool polls() const override { return polls_; }
  void OnEdgeEnd(const EdgeSender& /*sender*/, const absl::Status& /*status*/) override {}

 protected:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::unique_ptr<Peer> peer_;

 private:
  std::string name_;
  std::string cluster_id_;
  Identity identity_;
  const bool polls_;
  std::unique_ptr<NodePort> port_;
};

class Echo : public End {
 public:
  using End::End;
  absl::Status TakeStep(const EdgeSender& /*sender*/, Step step) override {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return peer_ != nullptr; });
    peer_->Send(std::move(step));
    return absl::OkStatus();
  }
};

class Timer : public End {
 public:
  using End::End;
  absl::Status TakeStep(const EdgeSender& /*sender*/, Step step) override {
    const Clock::time_point now = Clock::now();
    const std::lock_guard lock(mutex_);
    back_ = now;
    step_ = std::move(step);
    changed_.notify_all();
    return absl::OkStatus();
  }
  double RoundTripUs(size_t bytes) {
    Step step;
    step.epoch = step.number = 1;
    step.batch = {.tokens = {1},
                  .positions = {1},
                  .sequence_offsets = {0, 1},
                  .pages = {1},
                  .page_offsets = {0, 1},
                  .window_pages = {},
                  .state_slots = {-1},
                  .state_sources = {-1},
                  .sampled_rows = {0},
                  .sampling = {SamplingRow()}};
    step.activations.assign(bytes, 'a');
    const Clock::time_point start = Clock::now();
    std::unique_lock lock(mutex_);
    back_ = {};
    lock.unlock();
    peer_->Send(std::move(step));
    lock.lock();
    changed_.wait(lock, [this] { return back_ != Clock::time_point(); });
    return std::chrono::duration<double, std::micro>(back_ - start).count();
  }

 private:
  Clock::time_point back_;
  Step step_;
};

void Print(size_t bytes, std::vector<double> times) {
  std::sort(times.begin(), times.end());
  const auto at = [&](double share) {
    return times[static_cast<size_t>(share * static_cast<double>(times.size() - 1))] / 2;
  };
  std::printf("%8zu bytes, one way us: p50 %.1f  p90 %.1f  p99 %.1f  p99.9 %.1f  most %.1f\n",
              bytes, at(0.5), at(0.9), at(0.99), at(0.999), times.back() / 2);
  std::fflush(stdout);
}

[[noreturn]] void RunEcho(const Authority& authority, bool polls, int in, int out) {
  Echo echo(authority, "echo", polls);
  const int port = echo.port();
  int other = 0;
  NG_CHECK(write(out, &port, sizeof(port)) == sizeof(port));
  NG_CHECK(read(in, &other, sizeof(other)) == sizeof(other));
  echo.Connect("timer", other);
  while (true) pause();
}

int Run(int rounds, int pause_us, bool polls) {
  const Authority authority = CreateAuthority().value();
  int down[2];
  int up[2];
  NG_CHECK(pipe(down) == 0 && pipe(up) == 0);
  const pid_t child = fork();  // before gRPC has any thread
  if (child == 0) RunEcho(authority, polls, down[0], up[1]);
  Timer timer(authority, "timer", polls);
  const int port = timer.port();
  int other = 0;
  NG_CHECK(read(up[0], &other, sizeof(other)) == sizeof(other));
  NG_CHECK(write(down[1], &port, sizeof(port)) == sizeof(port));
  timer.Connect("echo", other);
  for (const size_t bytes : {size_t{0}, size_t{4096}, size_t{65536}, size_t{1} << 20}) {
    std::vector<double> times;
    const int count = bytes > 65536 ? rounds / 10 : rounds;
    for (int i = -count / 10; i < count; ++i) {
      if (pause_us > 0) std::this_thread::sleep_for(std::chrono::microseconds(pause_us));
      const double us = timer.RoundTripUs(bytes);
      if (i >= 0) times.push_back(us);
    }
    Print(bytes, std::move(times));
  }
  kill(child, SIGKILL);
  waitpid(child, nullptr, 0);
  return 0;
}

}  // namespace
}  // namespace neurogrid

int main(int argc, char** argv) {
  if (argc > 1 && std::atoi(argv[1]) < 10) {
    std::fprintf(stderr, "usage: hop_bench [ROUNDS, 10 or more [PAUSE_US [polls]]]\n");
    return 1;
  }
  return neurogrid::Run(argc > 1 ? std::atoi(argv[1]) : 5000, argc > 2 ? std::atoi(argv[2]) : 0,
                        argc > 3);
}
