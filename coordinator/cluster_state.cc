#include "coordinator/cluster_state.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace neurogrid {
namespace {

int64_t MillisecondsOf(std::chrono::steady_clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(duration).count();
}

}  // namespace

std::string BeyondPlan(const PlannedStage& planned, const StageReadyFacts& real, int slots) {
  const int64_t fixed = real.weight_bytes + real.workspace_bytes + slots * real.state_bytes;
  if (fixed > planned.fixed_bytes) {
    return absl::StrCat("weights, workspace and states are ", fixed, " bytes, planned were ",
                        planned.fixed_bytes);
  }
  if (real.page_bytes > planned.page_bytes || real.window_page_bytes > planned.window_page_bytes) {
    return absl::StrCat("a page is ", real.page_bytes, " bytes, one of a window ",
                        real.window_page_bytes, ", planned were ", planned.page_bytes, " and ",
                        planned.window_page_bytes);
  }
  return "";
}

absl::string_view NameOf(NodeState state) {
  switch (state) {
    case NodeState::kConnecting:
      return "connecting";
    case NodeState::kStandby:
      return "standby";
    case NodeState::kLoading:
      return "loading";
    case NodeState::kReady:
      return "ready";
    case NodeState::kServing:
      return "serving";
    case NodeState::kSuspect:
      return "suspect";
  }
  return "";
}

std::vector<ClusterAction> ClusterState::Apply(const ClusterEvent& event, ClusterTime now) {
  now_ = now;
  actions_.clear();
  std::visit([this](const auto& one) { On(one); }, event);
  return std::move(actions_);
}

std::vector<Node> ClusterState::Members() const {
  std::vector<Node> members;
  for (const auto& [connection, node] : nodes_) {
    if (node.state != NodeState::kConnecting) members.push_back(node);
  }
  return members;
}

Node* ClusterState::Find(ConnectionId connection) {
  const auto found = nodes_.find(connection);
  if (found != nodes_.end()) return &found->second;
  ++ignored_;
  return nullptr;
}

StageState* ClusterState::FindStage(ConnectionId connection, uint64_t epoch) {
  if (plan_.has_value() && plan_->epoch == epoch) {
    for (StageState& stage : plan_->stages) {
      if (stage.connection == connection) return &stage;
    }
  }
  ++ignored_;
  return nullptr;
}

void ClusterState::On(const event::Joined& event) {
  Node& node = nodes_[event.connection];
  node.connection = event.connection;
  node.id = event.node;
  node.connected = node.last_heard = now_;
}

void ClusterState::On(const event::Reported& event) {
  Node* node = Find(event.connection);
  if (node == nullptr) return;
  if (node->state != NodeState::kConnecting) {
    ++ignored_;
    return;
  }
  // The same node on a newer connection: it restarted, or its old connection died unseen.
  std::vector<ConnectionId> older;
  for (const auto& [connection, other] : nodes_) {
    if (other.id == node->id && connection != event.connection) older.push_back(connection);
  }
  for (const ConnectionId connection : older) {
    // Somebody may read this only if two processes share a certificate: they would take turns.
    actions_.push_back(action::Close{
        connection,
        absl::StrCat("another process joined as ", node->id,
                     " with the same certificate; a copied ",
                     "state directory is not for use: give this worker its own --name and --token"),
        /*for_good=*/true});
    Remove(connection, absl::StrCat(node->id, " joined again"), /*close=*/false);
  }
  node->boot_id = event.boot_id;
  node->report = event.report;
  node->state = NodeState::kStandby;
  node->last_heard = now_;
  actions_.push_back(action::NodesChanged{});
}

void ClusterState::On(const event::Heartbeat& event) {
  Node* node = Find(event.connection);
  if (node == nullptr) return;
  node->last_heard = now_;
  node->last_step = event.last_step;
  node->queue_depth = event.queue_depth;
  node->gauges = event.gauges;
  if (node->state == NodeState::kSuspect) {
    node->state = NodeState::kStandby;
    if (plan_.has_value()) {
      for (const StageState& stage : plan_->stages) {
        if (stage.connection != event.connection) continue;
        node->state = stage.active  ? NodeState::kServing
                      : stage.ready ? NodeState::kReady
                                    : NodeState::kLoading;
      }
    }
    actions_.push_back(action::NodesChanged{});
  }
  actions_.push_back(action::SendAck{event.connection, event.sequence});
}

void ClusterState::On(const event::Left& event) {
  if (Find(event.connection) != nullptr) Remove(event.connection, event.reason, /*close=*/false);
}

void ClusterState::Remove(ConnectionId connection, const std::string& reason, bool close) {
  const Node node = nodes_.at(connection);
  nodes_.erase(connection);
  if (close) actions_.push_back(action::Close{connection, reason});
  if (node.state == NodeState::kConnecting) return;
  if (plan_.has_value()) {
    const bool planned =
        std::any_of(plan_->stages.begin(), plan_->stages.end(),
                    [&](const StageState& stage) { return stage.connection == connection; });
    if (planned) EndPlan(node.id, reason);
  }
  actions_.push_back(action::NodesChanged{});
}

void ClusterState::EndPlan(const std::string& node, const std::string& reason) {
  const PlanInForce ended = *std::move(plan_);
  plan_.reset();
  actions_.push_back(action::ClosePipeline{ended.epoch});
  for (const StageState& stage : ended.stages) {
    const auto found = nodes_.find(stage.connection);
    if (found == nodes_.end()) continue;
    if (found->second.state != NodeState::kSuspect) found->second.state = NodeState::kStandby;
    actions_.push_back(action::SendRelease{stage.connection, ended.epoch});
  }
  actions_.push_back(
      action::TellEnded{ended.epoch, node, reason, ended.state == PlanState::kActive});
}

void ClusterState::On(const event::PlanOrdered& event) {
  if (plan_.has_value()) EndPlan("", "another plan takes its place");
  plan_.emplace();
  plan_->epoch = event.epoch;
  plan_->digest = event.digest;
  for (const auto& [name, layers] : event.stages) {
    StageState stage;
    stage.node = name;
    stage.layers = layers;
    stage.last_progress = now_;
    for (const auto& [connection, node] : nodes_) {
      if (node.id == name && node.state != NodeState::kConnecting) stage.connection = connection;
    }
    if (stage.connection == kPipelineConnection) return EndPlan(name, "it is not connected");
    plan_->stages.push_back(std::move(stage));
  }
  for (size_t i = 0; i < plan_->stages.size(); ++i) {
    const ConnectionId connection = plan_->stages[i].connection;
    nodes_.at(connection).state = NodeState::kLoading;
    actions_.push_back(action::SendAssign{connection, i});
  }
  actions_.push_back(action::NodesChanged{});
}

void ClusterState::On(const event::PlanDropped& event) {
  if (plan_.has_value()) EndPlan("", event.reason);
}

void ClusterState::On(const event::Progressed& event) {
  StageState* stage = FindStage(event.connection, event.epoch);
  if (stage == nullptr || stage->ready) return;
  stage->bytes_done = event.done;
  stage->bytes_total = event.total;
  stage->last_progress = now_;
  actions_.push_back(action::TellProgress{event.epoch, stage->node, event.done, event.total});
}

void ClusterState::On(const event::StageReady& event) {
  StageState* stage = FindStage(event.connection, event.epoch);
  if (stage == nullptr || stage->ready) return;
  if (event.digest != plan_->digest) {
    return EndPlan(stage->node, "it loaded for another plan than the one in force");
  }
  stage->ready = true;
  stage->facts = event.facts;
  nodes_.at(event.connection).state = NodeState::kReady;
  actions_.push_back(action::NodesChanged{});
  for (const StageState& one : plan_->stages) {
    if (!one.ready) return;
  }
  plan_->state = PlanState::kActivating;
  plan_->activating_since = now_;
  // First: the last stage opens its edge to the pipeline as soon as it is activated.
  actions_.push_back(action::OpenPipeline{plan_->epoch});
  for (const StageState& one : plan_->stages) {
    actions_.push_back(action::SendActivate{one.connection, plan_->epoch});
  }
}

void ClusterState::On(const event::StageActive& event) {
  if (event.connection == kPipelineConnection) {
    if (!plan_.has_value() || plan_->epoch != event.epoch) {
      ++ignored_;
      return;
    }
    plan_->pipeline_open = true;
    return FinishActivation();
  }
  StageState* stage = FindStage(event.connection, event.epoch);
  if (stage == nullptr || plan_->state != PlanState::kActivating) return;
  stage->active = true;
  nodes_.at(event.connection).state = NodeState::kServing;
  FinishActivation();
}

void ClusterState::FinishActivation() {
  if (plan_->state != PlanState::kActivating || !plan_->pipeline_open) return;
  for (const StageState& stage : plan_->stages) {
    if (!stage.active) return;
  }
  plan_->state = PlanState::kActive;
  actions_.push_back(action::NodesChanged{});
  actions_.push_back(action::TellActive{plan_->epoch});
}

void ClusterState::On(const event::StageFailed& event) {
  if (!plan_.has_value() || plan_->epoch != event.epoch) {
    ++ignored_;
    return;
  }
  if (event.connection == kPipelineConnection) return EndPlan("", event.reason);
  if (StageState* stage = FindStage(event.connection, event.epoch); stage != nullptr) {
    EndPlan(std::string(stage->node), event.reason);
  }
}

void ClusterState::On(const event::Tick& /*event*/) {
  // The sick one may be the observer: when it was held up, nobody's lease may run out for that.
  const auto gap = now_ - last_tick_;
  if (last_tick_ != ClusterTime() && gap > times_.heartbeat + times_.late_tick) {
    for (auto& [connection, node] : nodes_) {
      node.last_heard = std::min(now_, node.last_heard + gap);
      node.connected = std::min(now_, node.connected + gap);
    }
  }
  last_tick_ = now_;
  CheckNodes();
  CheckPlan();
}

void ClusterState::CheckNodes() {
  std::vector<std::pair<ConnectionId, std::string>> over;
  for (auto& [connection, node] : nodes_) {
    const auto silence = now_ - node.last_heard;
    if (node.state == NodeState::kConnecting) {
      if (now_ - node.connected > times_.report) over.emplace_back(connection, "it never reported");
    } else if (silence > times_.lease) {
      over.emplace_back(connection,
                        absl::StrCat("no heartbeat for ", MillisecondsOf(silence), " ms"));
    } else if (silence > times_.suspect && node.state != NodeState::kSuspect) {
      node.state = NodeState::kSuspect;
      actions_.push_back(action::NodesChanged{});
    }
  }
  for (const auto& [connection, reason] : over) {
    if (nodes_.contains(connection)) Remove(connection, reason, /*close=*/true);
  }
}

void ClusterState::CheckPlan() {
  if (!plan_.has_value()) return;
  if (plan_->state == PlanState::kLoading) {
    for (const StageState& stage : plan_->stages) {
      if (!stage.ready && now_ - stage.last_progress > times_.load_silence) {
        return EndPlan(std::string(stage.node),
                       absl::StrCat("loading made no progress for ",
                                    MillisecondsOf(now_ - stage.last_progress), " ms"));
      }
    }
  }
  if (plan_->state == PlanState::kActivating && now_ - plan_->activating_since > times_.activate) {
    std::string node;
    for (const StageState& stage : plan_->stages) {
      if (!stage.active) node = stage.node;
    }
    EndPlan(node, "activation took too long");
  }
}

}  // namespace neurogrid
