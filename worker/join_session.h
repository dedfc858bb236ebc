// One connection of a worker to its coordinator: hello, report, heartbeats, and what each side
// says.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "common/identity.h"
#include "common/status.h"
#include "proto/wire.h"

namespace neurogrid {

class JoinSession {
 public:
  using Clock = std::chrono::steady_clock;

  /// What the coordinator says; called on the thread of Run, and quick.
  class Events {
   public:
    virtual ~Events() = default;
    /// An error ends the session for good.
    virtual absl::Status OnWelcome(const wire::Welcome& welcome) = 0;
    /// Asked after the welcome.
    virtual wire::Report MakeReport() const = 0;
    virtual void OnAssign(const wire::Assign& assign) = 0;
    virtual void OnActivate(uint64_t epoch) = 0;
    virtual void OnRelease(uint64_t epoch) = 0;
    /// The lease was renewed: nothing may run after `fence`.
    virtual void OnLease(Clock::time_point fence) = 0;
  };

  struct Options {
    std::string host;
    int port = 0;
    Identity identity;
    std::string cluster_id;
    uint64_t boot_id = 0;
    std::function<void(wire::Heartbeat*)> fill_heartbeat;
  };

  struct End {
    absl::Status status;   // OK after Stop
    bool refused = false;  // dialling again would change nothing
  };

  JoinSession(Options options, Events* events);
  ~JoinSession();

  /// Dials and stays until the connection ends.
  End Run();
  /// Any thread. Dropped when the connection is over.
  void Send(const wire::FromWorker& message);
  /// Any thread: says goodbye; Run returns within a second.
  void Stop(const std::string& reason);

 private:
  struct Stream;  // gRPC's part
  absl::Status Greet();
  absl::Status HandleWelcome(const wire::FromCoordinator& message, Clock::time_point hello_sent);
  /// `why`, after which nobody dials again.
  absl::Status EndForGood(absl::Status why);
  absl::Status Handle(const wire::FromCoordinator& message);
  void TakeAck(uint64_t sequence);
  void HeartbeatLoop();
  void Cancel(const std::string& why);
  bool Write(const wire::FromWorker& message);

  Options options_;
  Events* events_;
  std::unique_ptr<Stream> stream_;
  std::mutex write_mutex_;  // one writer at a time; never held together with mutex_
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string cancel_reason_;  // why this side ended it; empty: it did not
  bool refused_ = false;
  bool over_ = false;
  bool stopping_ = false;
  Clock::time_point fence_;  // before the welcome: until when it must come
  std::chrono::milliseconds lease_{0};
  std::chrono::milliseconds heartbeat_{0};      // 0 before the welcome
  std::map<uint64_t, Clock::time_point> sent_;  // heartbeats without an answer yet
  uint64_t sequence_ = 0;
  std::thread heartbeat_thread_;
};

}  // namespace neurogrid
