// The cluster as plain facts: which workers are members, and how far the plan in force has come.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/strings/string_view.h"
#include "coordinator/plan.h"
#include "engine/model/layer_range.h"

namespace neurogrid {

using ClusterTime = std::chrono::steady_clock::time_point;

/// Timers of cluster.md 1.4.
struct ClusterTimes {
  std::chrono::milliseconds lease{2000};
  std::chrono::milliseconds heartbeat{250};
  std::chrono::milliseconds suspect{750};
  std::chrono::milliseconds report{20'000};        // from the connection to the report
  std::chrono::milliseconds load_silence{60'000};  // no progress of a load
  std::chrono::milliseconds activate{15'000};
  std::chrono::milliseconds late_tick{100};
};

/// One Join stream; ids are counters, never reused.
using ConnectionId = uint64_t;
/// Stands for the coordinator's own edge to the first stage.
inline constexpr ConnectionId kPipelineConnection = 0;

/// What a worker says of itself, checked; the address is the one its connection comes from.
struct NodeReport {
  std::string version = {};  // of its program; empty where it does not say
  std::string device_kind;
  std::string device_name;
  std::string instruction_set;
  int64_t memory_total_bytes = 0;
  int64_t memory_free_bytes = 0;
  int cores = 0;
  double read_bandwidth = 0;  // bytes per second
  double matmul_rate = 0;     // operations per second
  int64_t disk_free_bytes = 0;
  std::string host_id;
  std::string data_host;
  int data_port = 0;
  int64_t host_memory_bytes = 0;  // of the free memory: for weights alone, read slowly
  double host_bandwidth = 0;      // bytes per second
  std::string device_uuid;        // this and the three below: empty or 0 where not known
  std::string driver;
  double power_limit_w = 0;
  int clock_max_mhz = 0;
  double row_rate = 0;    // operations per second
  double op_seconds = 0;  // both of decoding steps; 0: not known
};

/// How a worker's device is right now, as far as it says.
struct NodeGauges {
  std::optional<int> temperature_c;
  std::optional<double> utilization;
  std::optional<double> power_w;
  std::optional<int> clock_mhz;
  std::optional<int64_t> memory_used_bytes;
  std::optional<std::string> throttle;  // none | power | heat | hardware
  std::optional<int64_t> ecc_errors;
};

struct StageReadyFacts {
  int64_t weight_bytes = 0;
  int64_t workspace_bytes = 0;
  int64_t page_bytes = 0;
  int64_t window_page_bytes = 0;
  int64_t state_bytes = 0;
  uint32_t load_ms = 0;
  std::string determinism_class;
};

/// In words, where a stage holds more than its plan counted for it: an error of the planner
/// (cluster.md 2.8). Empty: it does not.
std::string BeyondPlan(const PlannedStage& planned, const StageReadyFacts& real, int slots);

enum class NodeState { kConnecting, kStandby, kLoading, kReady, kServing, kSuspect };
inline constexpr NodeState kNodeStates[] = {NodeState::kConnecting, NodeState::kStandby,
                                            NodeState::kLoading,    NodeState::kReady,
                                            NodeState::kServing,    NodeState::kSuspect};
absl::string_view NameOf(NodeState state);

struct Node {
  ConnectionId connection = 0;
  std::string id;  // from its certificate
  uint64_t boot_id = 0;
  NodeState state = NodeState::kConnecting;
  NodeReport report;
  ClusterTime connected;
  ClusterTime last_heard;
  uint64_t last_step = 0;
  uint32_t queue_depth = 0;
  NodeGauges gauges;
};

enum class PlanState { kLoading, kActivating, kActive };

struct StageState {
  ConnectionId connection = 0;
  std::string node;
  LayerRange layers;
  bool ready = false;
  bool active = false;
  int64_t bytes_done = 0;
  int64_t bytes_total = 0;
  ClusterTime last_progress;
  StageReadyFacts facts;
};

struct PlanInForce {
  uint64_t epoch = 0;
  std::string digest;
  PlanState state = PlanState::kLoading;
  bool pipeline_open = false;
  ClusterTime activating_since;
  std::vector<StageState> stages;
};

namespace event {
struct Joined {
  ConnectionId connection;
  std::string node;
};
struct Reported {
  ConnectionId connection;
  uint64_t boot_id;
  NodeReport report;
};
struct Heartbeat {
  ConnectionId connection;
  uint64_t sequence;
  uint64_t last_step;
  uint32_t queue_depth;
  NodeGauges gauges = {};
};
struct Left {
  ConnectionId connection;
  std::string reason;
};
struct PlanOrdered {
  uint64_t epoch;
  std::string digest;
  std::vector<std::pair<std::string, LayerRange>> stages;  // node, layers
};
struct PlanDropped {
  std::string reason;
};
struct Progressed {
  ConnectionId connection;
  uint64_t epoch;
  int64_t done;
  int64_t total;
};
struct StageReady {
  ConnectionId connection;
  uint64_t epoch;
  std::string digest;
  StageReadyFacts facts;
};
struct StageActive {
  ConnectionId connection;
  uint64_t epoch;
};
struct StageFailed {
  ConnectionId connection;
  uint64_t epoch;
  std::string reason;
};
struct Tick {};
}  // namespace event
using ClusterEvent =
    std::variant<event::Joined, event::Reported, event::Heartbeat, event::Left, event::PlanOrdered,
                 event::PlanDropped, event::Progressed, event::StageReady, event::StageActive,
                 event::StageFailed, event::Tick>;

namespace action {
struct SendAck {
  ConnectionId connection;
  uint64_t sequence;
};
struct SendAssign {
  ConnectionId connection;
  size_t stage;
};
struct SendActivate {
  ConnectionId connection;
  uint64_t epoch;
};
struct SendRelease {
  ConnectionId connection;
  uint64_t epoch;
};
struct OpenPipeline {
  uint64_t epoch;
};
struct ClosePipeline {
  uint64_t epoch;
};
struct Close {
  ConnectionId connection;
  std::string reason;
  bool for_good = false;  // the node is not to dial again
};
struct NodesChanged {};
struct TellProgress {
  uint64_t epoch;
  std::string node;
  int64_t done;
  int64_t total;
};
struct TellActive {
  uint64_t epoch;
};
struct TellEnded {
  uint64_t epoch;
  std::string node;
  std::string reason;
  bool was_active;
};
}  // namespace action
using ClusterAction =
    std::variant<action::SendAck, action::SendAssign, action::SendActivate, action::SendRelease,
                 action::OpenPipeline, action::ClosePipeline, action::Close, action::NodesChanged,
                 action::TellProgress, action::TellActive, action::TellEnded>;

/// Pure: no clock, no I/O. Whatever an event does not apply to any more is ignored and counted.
class ClusterState {
 public:
  explicit ClusterState(const ClusterTimes& times) : times_(times) {}

  std::vector<ClusterAction> Apply(const ClusterEvent& event, ClusterTime now);

  /// Members: nodes that have reported. One entry a node id.
  std::vector<Node> Members() const;
  const std::optional<PlanInForce>& plan() const { return plan_; }
  uint64_t ignored() const { return ignored_; }

 private:
  void On(const event::Joined& event);
  void On(const event::Reported& event);
  void On(const event::Heartbeat& event);
  void On(const event::Left& event);
  void On(const event::PlanOrdered& event);
  void On(const event::PlanDropped& event);
  void On(const event::Progressed& event);
  void On(const event::StageReady& event);
  void On(const event::StageActive& event);
  void On(const event::StageFailed& event);
  void On(const event::Tick& event);

  Node* Find(ConnectionId connection);
  StageState* FindStage(ConnectionId connection, uint64_t epoch);
  void Remove(ConnectionId connection, const std::string& reason, bool close);
  void EndPlan(const std::string& node, const std::string& reason);
  void FinishActivation();
  void CheckNodes();
  void CheckPlan();

  ClusterTimes times_;
  std::map<ConnectionId, Node> nodes_;
  std::optional<PlanInForce> plan_;
  uint64_t ignored_ = 0;
  ClusterTime last_tick_;
  ClusterTime now_;                     // of the event at hand
  std::vector<ClusterAction> actions_;  // of the event at hand
};

}  // namespace neurogrid
