// A worker: member of a cluster, host of one stage. Dials the coordinator, again and again if need
// be.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "common/identity.h"
#include "common/status.h"
#include "engine/device.h"
#include "proto/peer.h"
#include "proto/transport.h"
#include "worker/gauge_watch.h"
#include "worker/join_session.h"
#include "worker/stage_runner.h"
#include "worker/step_gate.h"

namespace neurogrid {

class Worker : private JoinSession::Events {
 public:
  /// Opens the edge to the next stage; OpenPeer, or something quicker within one process.
  using PeerOpener = std::function<absl::StatusOr<std::unique_ptr<Peer>>(PeerOptions)>;

  struct Options {
    std::string host;  // of the coordinator
    int port = 0;
    /// For steps from other stages. Where it is of loopback and the coordinator is not, all
    /// addresses take its place: this machine may be reached under any of them.
    std::string listen_host = "127.0.0.1";
    int listen_port = 0;  // 0: any free one
    Identity identity;
    DeviceReport device;
    int64_t disk_free_bytes = 0;
    std::string host_id;
    std::function<DeviceGauges()> gauges;  // of the device; quick, any thread. Null: it has none
    PeerOpener open_peer = OpenPeer;
  };

  /// Opens the port for steps. `source` must outlive the worker.
  static absl::StatusOr<std::unique_ptr<Worker>> Start(Options options, StageSource* source);
  ~Worker() override;

  /// Stays a member until Stop (then OK), until the coordinator refuses for good (then
  /// FailedPrecondition), or until the device answers no more: the coordinator has heard of it by
  /// then.
  absl::Status Run();
  /// Any thread: says goodbye and ends Run.
  void Stop();

  const std::string& node_id() const { return node_id_; }
  int data_port() const { return port_->port(); }
  uint64_t boot_id() const { return boot_id_; }
  /// For edges within one process.
  StepReceiver& receiver() { return gate_; }

 private:
  Worker(Options options, StageSource* source, std::string node_id, std::string cluster_id);
  /// A processor's stage wants every core for itself.
  bool Polls() const;
  absl::Status OnWelcome(const wire::Welcome& welcome) override;
  void OnAssign(const wire::Assign& assign) override;
  void OnActivate(uint64_t epoch) override;
  void OnRelease(uint64_t epoch) override;
  void OnLease(JoinSession::Clock::time_point fence) override;

  void TakeLoaded(const wire::Assign& assign, const absl::StatusOr<StageRunner::Loaded>& loaded);
  absl::StatusOr<StageRunner::Sink> OpenEdge(const wire::Assign& assign);
  absl::Status Listen();
  wire::Report MakeReport() const override;
  void FillHeartbeat(wire::Heartbeat& heartbeat) const;
  void Fail(uint64_t epoch, const absl::Status& status);
  void Break(const absl::Status& status);
  void Send(const wire::FromWorker& message);
  void DropPlan();
  JoinSession::End RunSession();
  absl::Status ExplainFailure(const JoinSession::End& end);

  Options options_;
  std::string node_id_;
  std::string cluster_id_;
  uint64_t boot_id_;
  bool welcomed_ = false;  // in the present session; of the thread of Run
  std::string explained_;  // why it could not be joined last; likewise

  std::mutex mutex_;
  std::condition_variable stopped_;
  bool stopping_ = false;
  absl::Status broken_;  // why the device answers no more
  JoinSession* session_ = nullptr;
  std::optional<wire::Assign> assign_;  // the latest one

  std::optional<GaugeWatch> gauges_;
  StepGate gate_;
  StageRunner runner_;
  std::unique_ptr<NodePort> port_;  // Last: its threads use all of the above.
};

/// Equal for all processes of one machine.
std::string HostId();

}  // namespace neurogrid
