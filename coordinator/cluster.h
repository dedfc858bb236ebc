// The coordinator's side of the cluster, whole: port, members, the plan in force, steps and
// results.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "common/identity.h"
#include "common/state_dir.h"
#include "common/status.h"
#include "coordinator/cluster_state.h"
#include "coordinator/join_tokens.h"
#include "coordinator/local_stage.h"
#include "coordinator/pipeline.h"
#include "coordinator/plan.h"
#include "engine/batch.h"
#include "proto/cluster.pb.h"
#include "proto/transport.h"

namespace neurogrid {

class ClusterService;

/// What the owner of a Cluster hears. Called from threads of the cluster, one at a time for each
/// kind; must be quick, may call Cluster::Submit and Cluster::Assign, must not destroy the Cluster.
class ClusterListener {
 public:
  virtual ~ClusterListener() = default;
  /// A node joined, left, or changed state.
  virtual void OnNodesChanged() = 0;
  virtual void OnPlanProgress(uint64_t epoch, const std::string& node, int64_t bytes_done,
                              int64_t bytes_total) = 0;
  /// Every stage answers: Submit is open. Classes differ when `determinism_class` holds a '+'.
  virtual void OnPlanActive(uint64_t epoch, const std::string& determinism_class) = 0;
  /// The plan is over. `node` is the one to blame, or empty; `was_active` tells a plan that never
  /// came up from one that broke. Steps in flight give no results any more.
  virtual void OnPlanEnded(uint64_t epoch, const std::string& node, const std::string& reason,
                           bool was_active) = 0;
  virtual void OnStepResult(StepResult result) = 0;
};

/// A plan with what the stages need to load their part.
struct ClusterPlan {
  std::vector<PlannedStage> stages;  // node and layers are read
  std::string model_name;
  std::string model_digest;
  std::string model_path;  // on this machine; workers without --model look there too
  std::string precision;   // auto | f32 | bf16 | int8 | int8-a8 | blocks-a8
  BatchLimits limits;
};

struct LocalDevice {
  std::string device = "auto";
  int threads = 0;
  bool any_order = false;  // --determinism off
  bool managed_memory = false;
  std::string model_path;
  std::function<void(const absl::Status&)> on_lost = nullptr;  // of LocalStage::Options
};

/// Threads: one event loop that owns ClusterState; gRPC's own for connections; the pipeline's for
/// dialling. All public methods may be called from any thread.
class Cluster {
 public:
  struct Options {
    std::string state_dir;
    std::string host = "127.0.0.1";
    int port = 8091;
    ClusterTimes times = {};
    std::optional<LocalDevice> local = std::nullopt;  // a stage of this process, as node "local"
  };

  /// Makes or reads the cluster's authority, opens the port, starts the local stage. Errors: port
  /// in use, state directory of another running coordinator, unreadable keys.
  static absl::StatusOr<std::unique_ptr<Cluster>> Start(Options options, ClusterListener* listener);
  ~Cluster();

  int port() const { return port_->port(); }
  /// 32 hex digits.
  std::string cluster_id() const;
  std::vector<Node> Nodes() const;
  std::optional<PlanInForce> plan() const;
  uint64_t stale_messages() const { return pipeline_->stale(); }

  /// Replaces the plan in force; OnPlanActive or OnPlanEnded of the returned epoch follows.
  absl::StatusOr<uint64_t> Assign(const ClusterPlan& plan);
  /// Ends the plan in force.
  void Drop(const std::string& reason);

  absl::Status Submit(uint64_t epoch, uint64_t id, Batch batch) {
    return pipeline_->Submit(epoch, id, std::move(batch));
  }

 private:
  Cluster(Options options, ClusterListener* listener);
  absl::Status Open();
  void Post(ClusterEvent event);
  void Loop();
  void Apply(const ClusterEvent& event);
  void Enroll(int socket, const std::string& address);
  absl::StatusOr<std::string> Decide(const EnrollRequest& request, const std::string& address);
  absl::StatusOr<uint64_t> RaiseEpoch();
  Pipeline::Route RouteOf(const PlanInForce& plan) const;
  wire::FromCoordinator AssignMessage(const PlanInForce& plan, size_t stage) const;
  void FillNeighbour(const PlanInForce& plan, size_t stage, const Node& receiver,
                     wire::Neighbour* out) const;

  void Do(const action::SendAck& action);
  void Do(const action::SendAssign& action);
  void Do(const action::SendActivate& action);
  void Do(const action::SendRelease& action);
  void Do(const action::OpenPipeline& action);
  void Do(const action::ClosePipeline& action);
  void Do(const action::Close& action);
  void Do(const action::NodesChanged& action);
  void Do(const action::TellProgress& action);
  void WarnOfMemory(const PlanInForce& plan);
  void Do(const action::TellActive& action);
  void Do(const action::TellEnded& action);

  Options options_;
  ClusterListener* listener_;
  std::unique_ptr<FileLock> lock_;  // one coordinator a state directory
  Authority authority_;
  Identity identity_;
  std::string cluster_id_;
  uint64_t boot_id_ = 0;
  std::atomic<uint64_t> epoch_ = 0;
  JoinTokens tokens_;
  std::mutex attempts_mutex_;
  JoinAttempts attempts_;

  mutable std::mutex state_mutex_;  // state_ is written by the loop alone
  ClusterState state_;
  std::mutex assign_mutex_;
  mutable std::mutex ordered_mutex_;
  std::map<uint64_t, ClusterPlan> ordered_;  // by epoch; those not yet over

  std::mutex queue_mutex_;
  std::condition_variable queue_changed_;
  std::deque<ClusterEvent> queue_;
  bool stopping_ = false;

  std::unique_ptr<Pipeline> pipeline_;
  std::unique_ptr<ClusterService> service_;
  std::unique_ptr<NodePort> port_;
  std::unique_ptr<LocalStage> local_;
  std::thread loop_;
};

}  // namespace neurogrid
