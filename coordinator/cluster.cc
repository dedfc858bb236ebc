#include "coordinator/cluster.h"

#include <grpcpp/impl/service_type.h>

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/digest.h"
#include "common/log.h"
#include "common/loopback.h"
#include "common/polling.h"
#include "coordinator/cluster_service.h"

namespace neurogrid {
namespace {

constexpr std::chrono::milliseconds kTick{50};

absl::StatusOr<wire::WirePrecision> PrecisionOf(const std::string& name) {
  if (name == "f32") return wire::PRECISION_F32;
  if (name == "bf16") return wire::PRECISION_BF16;
  if (name == "int8") return wire::PRECISION_INT8;
  if (name == "int8-a8") return wire::PRECISION_INT8_A8;
  if (name == "auto") return wire::PRECISION_AUTO;
  if (name == "blocks-a8") return wire::PRECISION_BLOCKS_A8;
  return absl::InvalidArgumentError(
      absl::StrCat("precision ", name, ": auto, f32, bf16, int8, int8-a8 or blocks-a8"));
}

/// Of the whole chain, once all stages are ready.
std::string ClassOf(const PlanInForce& plan) {
  std::set<std::string> classes;
  for (const StageState& stage : plan.stages) classes.insert(stage.facts.determinism_class);
  return absl::StrJoin(classes, "+");
}

/// Both ends of the wire compare it: what is loaded is what was ordered.
std::string DigestOf(const ClusterPlan& plan) {
  const BatchLimits& limits = plan.limits;
  std::string text = absl::StrCat(plan.model_digest, " ", plan.precision, " ", limits.pages, " ",
                                  limits.rows_max, " ", limits.positions_max);
  absl::StrAppend(&text, " ", limits.window_pages, " ", limits.window, " ", limits.slots);
  for (const PlannedStage& stage : plan.stages) {
    absl::StrAppend(&text, " ", stage.node, stage.layers.ToString());
  }
  return HexOf(Sha256Of(text));
}

}  // namespace

Cluster::Cluster(Options options, ClusterListener* listener)
    : options_(std::move(options)),
      listener_(listener),
      tokens_(options_.state_dir),
      state_(options_.times) {}

absl::StatusOr<std::unique_ptr<Cluster>> Cluster::Start(Options options,
                                                        ClusterListener* listener) {
  std::unique_ptr<Cluster> cluster(new Cluster(std::move(options), listener));
  NG_RETURN_IF_ERROR(cluster->Open());
  return cluster;
}

absl::Status Cluster::Open() {
  NG_RETURN_IF_ERROR(EnsureStateDir(options_.state_dir));
  absl::StatusOr<std::unique_ptr<FileLock>> lock = FileLock::Try(options_.state_dir + "/lock");
  if (!lock.ok()) {
    return absl::FailedPreconditionError(
        absl::StrCat(options_.state_dir, ": another coordinator runs with this state directory"));
  }
  lock_ = *std::move(lock);
  NG_ASSIGN_OR_RETURN(authority_, OpenAuthority(options_.state_dir));
  NG_ASSIGN_OR_RETURN(cluster_id_, ClusterIdOf(authority_.certificate));
  NG_ASSIGN_OR_RETURN(identity_, IssueIdentity(authority_, kCoordinatorNode, Role::kCoordinator));
  for (const char c : RandomBytes(8)) boot_id_ = boot_id_ << 8 | static_cast<uint8_t>(c);
  const absl::StatusOr<std::string> stored = ReadStateFile(options_.state_dir + "/epoch");
  uint64_t epoch = 0;
  if (stored.ok() && !absl::SimpleAtoi(*stored, &epoch)) {
    return absl::DataLossError(absl::StrCat(options_.state_dir, "/epoch: holds no number"));
  }
  if (!stored.ok() && !absl::IsNotFound(stored.status())) return stored.status();
  epoch_ = epoch;

  pipeline_ = std::make_unique<Pipeline>(Pipeline::Options{
      .cluster_id = cluster_id_,
      .boot_id = boot_id_,
      .identity = identity_,
      .open_peer = [this](PeerOptions peer) -> absl::StatusOr<std::unique_ptr<Peer>> {
        if (peer.node_id == kLocalNode) return local_->Open(std::move(peer));
        return OpenPeer(std::move(peer));
      },
      .on_result = [this](StepResult result) { listener_->OnStepResult(std::move(result)); },
      .on_open =
          [this](uint64_t e) {
            Post(event::StageActive{kPipelineConnection, e});
          },
      .on_broken =
          [this](uint64_t e, const absl::Status& status) {
            Post(event::StageFailed{kPipelineConnection, e, std::string(status.message())});
          }});
  service_ = std::make_unique<ClusterService>(
      ClusterService::Options{.cluster_id = cluster_id_,
                              .times = options_.times,
                              .epoch = [this] { return epoch_.load(); },
                              .post = [this](ClusterEvent event) { Post(std::move(event)); },
                              .beyond_loopback = !IsLoopback(options_.host)});
  loop_ = std::thread([this] { Loop(); });
  NG_ASSIGN_OR_RETURN(port_,
                      NodePort::Open({.host = options_.host,
                                      .port = options_.port,
                                      .identity = identity_,
                                      .services = {service_.get()},
                                      .steps = pipeline_.get(),
                                      .enroll = [this](int socket, const std::string& address) {
                                        Enroll(socket, address);
                                      }}));
  if (!options_.local.has_value()) return absl::OkStatus();
  NG_ASSIGN_OR_RETURN(Identity identity, IssueIdentity(authority_, kLocalNode, Role::kWorker));
  const bool any = options_.host == "0.0.0.0" || options_.host == "::";
  NG_ASSIGN_OR_RETURN(local_, LocalStage::Start({.device = options_.local->device,
                                                 .threads = options_.local->threads,
                                                 .any_order = options_.local->any_order,
                                                 .managed_memory = options_.local->managed_memory,
                                                 .model_path = options_.local->model_path,
                                                 .state_dir = options_.state_dir,
                                                 .identity = std::move(identity),
                                                 .host = any ? "127.0.0.1" : options_.host,
                                                 .port = port_->port(),
                                                 .listen_host = options_.host,
                                                 .results = pipeline_.get(),
                                                 .on_lost = options_.local->on_lost}));
  return absl::OkStatus();
}

Cluster::~Cluster() {
  Drop("the coordinator stops");
  {
    const std::lock_guard lock(queue_mutex_);
    stopping_ = true;
    queue_changed_.notify_all();
  }
  if (loop_.joinable()) loop_.join();
  if (pipeline_ != nullptr) pipeline_->Stop();  // It may be opening its edge to the local stage.
  local_.reset();
  if (service_ != nullptr) service_->CloseAll("the coordinator stops");
  port_.reset();
}

std::string Cluster::cluster_id() const { return HexOf(cluster_id_); }

std::vector<Node> Cluster::Nodes() const {
  const std::lock_guard lock(state_mutex_);
  return state_.Members();
}

std::optional<PlanInForce> Cluster::plan() const {
  const std::lock_guard lock(state_mutex_);
  return state_.plan();
}

void Cluster::Post(ClusterEvent event) {
  const std::lock_guard lock(queue_mutex_);
  queue_.push_back(std::move(event));
  queue_changed_.notify_all();
}

void Cluster::Loop() {
  ClusterTime next_tick = std::chrono::steady_clock::now();
  std::unique_lock lock(queue_mutex_);
  while (true) {
    queue_changed_.wait_until(lock, next_tick, [this] { return stopping_ || !queue_.empty(); });
    if (stopping_ && queue_.empty()) return;
    std::deque<ClusterEvent> events = std::exchange(queue_, {});
    lock.unlock();
    for (const ClusterEvent& event : events) Apply(event);
    const ClusterTime now = std::chrono::steady_clock::now();
    if (now >= next_tick) {
      Apply(event::Tick{});
      pipeline_->CheckDeadline(now);
      next_tick = now + kTick;
    }
    lock.lock();
  }
}

void Cluster::Apply(const ClusterEvent& event) {
  std::vector<ClusterAction> actions;
  {
    const std::lock_guard lock(state_mutex_);
    actions = state_.Apply(event, std::chrono::steady_clock::now());
  }
  for (const ClusterAction& action : actions) {
    std::visit([this](const auto& one) { Do(one); }, action);
  }
}

void Cluster::Enroll(int socket, const std::string& address) {
  ServeEnrollment(socket, identity_,
                  [&](const EnrollRequest& request) { return Decide(request, address); });
}

absl::StatusOr<std::string> Cluster::Decide(const EnrollRequest& request,
                                            const std::string& address) {
  const absl::Time now = absl::Now();
  const std::lock_guard lock(attempts_mutex_);
  if (!attempts_.Allowed(address, now)) {
    return absl::PermissionDeniedError("too many wrong tokens from this address; wait a minute");
  }
  NG_RETURN_IF_ERROR(CheckNodeId(request.name));
  if (request.name == kCoordinatorNode || request.name == kLocalNode) {
    return absl::InvalidArgumentError(absl::StrCat("the name ", request.name, " is taken"));
  }
  std::set<std::string> connected;
  for (const Node& node : Nodes()) connected.insert(node.id);
  if (connected.contains(request.name)) {
    return absl::FailedPreconditionError(
        absl::StrCat("a worker named ", request.name, " is connected; choose another --name"));
  }
  if (const absl::Status status = tokens_.Redeem(request.token_id, request.secret, now);
      !status.ok()) {
    attempts_.AddFailure(address, now);
    return status;
  }
  LogInfo("worker ", request.name, " enrolled from ", address);
  return SignRequest(authority_, request.request, request.name, Role::kWorker);
}

absl::StatusOr<uint64_t> Cluster::RaiseEpoch() {
  const uint64_t epoch = epoch_ + 1;
  NG_RETURN_IF_ERROR(WriteStateFile(options_.state_dir + "/epoch", absl::StrCat(epoch)));
  epoch_ = epoch;
  return epoch;
}

absl::StatusOr<uint64_t> Cluster::Assign(const ClusterPlan& plan) {
  if (plan.stages.empty() || plan.stages.size() > kStagesMax) {
    return absl::InvalidArgumentError("a plan needs 1 to 256 stages");
  }
  NG_RETURN_IF_ERROR(PrecisionOf(plan.precision).status());
  const std::lock_guard assign_lock(assign_mutex_);  // Orders arrive in the order of their epochs.
  NG_ASSIGN_OR_RETURN(const uint64_t epoch, RaiseEpoch());
  event::PlanOrdered order{.epoch = epoch, .digest = DigestOf(plan), .stages = {}};
  for (const PlannedStage& stage : plan.stages) order.stages.emplace_back(stage.node, stage.layers);
  {
    const std::lock_guard lock(ordered_mutex_);
    ordered_[epoch] = plan;
  }
  Post(std::move(order));
  return epoch;
}

void Cluster::Drop(const std::string& reason) { Post(event::PlanDropped{reason}); }

void Cluster::Do(const action::SendAck& action) {
  wire::FromCoordinator message;
  message.mutable_heartbeat_ack()->set_sequence(action.sequence);
  service_->Send(action.connection, std::move(message));
}

void Cluster::Do(const action::SendAssign& action) {
  // Apply runs on one thread, so the plan is still the one this action speaks of.
  service_->Send(action.connection, AssignMessage(*state_.plan(), action.stage));
}

void Cluster::Do(const action::SendActivate& action) {
  wire::FromCoordinator message;
  message.mutable_activate()->set_epoch(action.epoch);
  service_->Send(action.connection, std::move(message));
}

void Cluster::Do(const action::SendRelease& action) {
  wire::FromCoordinator message;
  message.mutable_release()->set_epoch(action.epoch);
  service_->Send(action.connection, std::move(message));
}

void Cluster::Do(const action::OpenPipeline& /*action*/) {
  pipeline_->Begin(RouteOf(*state_.plan()));
}

void Cluster::Do(const action::ClosePipeline& action) { pipeline_->End(action.epoch); }

void Cluster::Do(const action::Close& action) {
  service_->Close(action.connection, action.reason, action.for_good);
}

void Cluster::Do(const action::NodesChanged& /*action*/) { listener_->OnNodesChanged(); }

void Cluster::Do(const action::TellProgress& action) {
  listener_->OnPlanProgress(action.epoch, action.node, action.done, action.total);
}

void Cluster::Do(const action::TellActive& action) {
  WarnOfMemory(*state_.plan());
  listener_->OnPlanActive(action.epoch, ClassOf(*state_.plan()));
}

void Cluster::WarnOfMemory(const PlanInForce& plan) {
  const std::lock_guard lock(ordered_mutex_);
  const ClusterPlan& ordered = ordered_.at(plan.epoch);
  for (size_t i = 0; i < plan.stages.size(); ++i) {
    const std::string words =
        BeyondPlan(ordered.stages[i], plan.stages[i].facts, ordered.limits.slots);
    if (!words.empty()) LogError("the planner is wrong about ", plan.stages[i].node, ": ", words);
  }
}

void Cluster::Do(const action::TellEnded& action) {
  {
    const std::lock_guard lock(ordered_mutex_);
    ordered_.erase(action.epoch);
  }
  LogWarning("epoch ", action.epoch, " is over: ", action.node, action.node.empty() ? "" : ": ",
             action.reason);
  listener_->OnPlanEnded(action.epoch, action.node, action.reason, action.was_active);
}

Pipeline::Route Cluster::RouteOf(const PlanInForce& plan) const {
  Pipeline::Route route;
  route.epoch = plan.epoch;
  route.stages = plan.stages.size();
  route.polls = Polling::CoresSuffice() && GpusAlone(ClassOf(plan));
  for (const Node& node : state_.Members()) {
    if (node.connection == plan.stages.front().connection) {
      route.first_node = node.id;
      route.first_host = node.report.data_host;
      route.first_port = node.report.data_port;
    }
    if (node.connection == plan.stages.back().connection) {
      route.last_node = node.id;
      route.last_boot_id = node.boot_id;
    }
  }
  const std::lock_guard lock(ordered_mutex_);
  route.vocab_size = ordered_.at(plan.epoch).limits.vocab_size;
  return route;
}

void Cluster::FillNeighbour(const PlanInForce& plan, size_t stage, const Node& receiver,
                            wire::Neighbour* out) const {
  for (const Node& node : state_.Members()) {
    if (node.connection != plan.stages[stage].connection) continue;
    out->set_node_id(node.id);
    out->set_boot_id(node.boot_id);
    out->set_port(static_cast<uint32_t>(node.report.data_port));
    // A node on this machine is reached from elsewhere as this machine is.
    const bool here = IsLoopback(node.report.data_host) && !IsLoopback(receiver.report.data_host);
    if (!here) out->set_host(node.report.data_host);
  }
}

wire::FromCoordinator Cluster::AssignMessage(const PlanInForce& plan, size_t stage) const {
  const std::lock_guard lock(ordered_mutex_);
  const ClusterPlan& ordered = ordered_.at(plan.epoch);
  wire::FromCoordinator message;
  wire::Assign* assign = message.mutable_assign();
  assign->set_epoch(plan.epoch);
  assign->set_plan_digest(plan.digest);
  assign->set_model_name(ordered.model_name.substr(0, kWireStringBytesMax));
  assign->set_model_digest(ordered.model_digest);
  assign->set_model_path(ordered.model_path);
  assign->set_layer_first(static_cast<uint32_t>(plan.stages[stage].layers.first));
  assign->set_layer_last(static_cast<uint32_t>(plan.stages[stage].layers.last));
  assign->set_precision(*PrecisionOf(ordered.precision));
  ToMessage(ordered.limits, assign->mutable_limits());
  Node receiver;
  for (const Node& node : state_.Members()) {
    if (node.connection == plan.stages[stage].connection) receiver = node;
  }
  wire::Neighbour own;
  own.set_node_id(std::string(kCoordinatorNode));
  own.set_boot_id(boot_id_);
  own.set_port(static_cast<uint32_t>(port_->port()));
  *assign->mutable_previous() = own;
  *assign->mutable_next() = own;
  if (stage > 0) FillNeighbour(plan, stage - 1, receiver, assign->mutable_previous());
  if (stage + 1 < plan.stages.size()) {
    FillNeighbour(plan, stage + 1, receiver, assign->mutable_next());
  }
  return message;
}

}  // namespace neurogrid
