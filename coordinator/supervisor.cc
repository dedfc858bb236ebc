#include "coordinator/supervisor.h"

#include <algorithm>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/log.h"
#include "coordinator/chain_shape.h"
#include "coordinator/pool_sizes.h"

namespace neurogrid {
namespace {

constexpr std::chrono::milliseconds kTick(250);
constexpr std::chrono::seconds kRetryAfterFailure(1);
constexpr int kBlameDoublings = 6;  // a node that cannot load is left out for up to 64 s
/// A plan that serves is not given up again for a node that could not load: each try is an outage.
constexpr std::chrono::minutes kBlameWhileServing(10);
constexpr double kGainWorthMoving = 1.10;  // re-planning on its own costs a load

std::vector<std::string> Names(const std::vector<ReportedNode>& members) {
  std::vector<std::string> names;
  for (const ReportedNode& member : members) names.push_back(member.id);
  std::sort(names.begin(), names.end());
  return names;
}

Json LayersJson(const LayerRange& layers) {
  return Json(Json::Array{Json(layers.first), Json(layers.last)});
}

/// What a node says of itself; its memory is apart.
Json NodeJson(const Node& node) {
  Json entry = Json(Json::Object());
  entry.Set("id", Json(node.id));
  entry.Set("device", Json(absl::StrCat(node.report.device_kind, " ", node.report.device_name)));
  entry.Set("state", Json(NameOf(node.state)));
  if (!node.report.version.empty()) entry.Set("version", Json(node.report.version));
  entry.Set("boot_id", Json(absl::StrCat(absl::Hex(node.boot_id, absl::kZeroPad16))));
  Json measured = Json(Json::Object());
  measured.Set("bandwidth", Json(node.report.read_bandwidth));
  measured.Set("matmul", Json(node.report.matmul_rate));
  if (node.report.host_bandwidth > 0) {
    measured.Set("host_bandwidth", Json(node.report.host_bandwidth));
  }
  entry.Set("measured", std::move(measured));
  if (!node.report.device_uuid.empty()) entry.Set("uuid", Json(node.report.device_uuid));
  if (!node.report.driver.empty()) entry.Set("driver", Json(node.report.driver));
  Json gauges = Json(Json::Object());
  const auto set = [&](const char* name, const auto& value) {
    if (value.has_value()) gauges.Set(name, Json(*value));
  };
  set("temperature_c", node.gauges.temperature_c);
  set("utilization", node.gauges.utilization);
  set("power_w", node.gauges.power_w);
  if (node.report.power_limit_w > 0) gauges.Set("power_limit_w", Json(node.report.power_limit_w));
  set("clock_mhz", node.gauges.clock_mhz);
  if (node.report.clock_max_mhz > 0) gauges.Set("clock_max_mhz", Json(node.report.clock_max_mhz));
  set("memory_used", node.gauges.memory_used_bytes);
  set("throttle", node.gauges.throttle);
  set("ecc_errors", node.gauges.ecc_errors);
  entry.Set("gauges", std::move(gauges));
  return entry;
}

}  // namespace

/// The plan of an epoch as the serving thread drives it.
class Supervisor::RemoteChain final : public Chain {
 public:
  RemoteChain(Cluster& cluster, Serving& serving, uint64_t epoch)
      : cluster_(cluster), serving_(serving), epoch_(epoch) {}

  void Submit(uint64_t step, Batch batch) override {
    const absl::Status sent = cluster_.Submit(epoch_, step, std::move(batch));
    // The edge is gone: the end of the plan is on its way and takes the steps along.
    if (absl::IsFailedPrecondition(sent)) return;
    if (!sent.ok()) serving_.StepDone(epoch_, step, sent);
  }

 private:
  Cluster& cluster_;
  Serving& serving_;
  uint64_t epoch_;
};

Supervisor::Supervisor(Options options, Serving& serving)
    : options_(std::move(options)),
      facts_(
          FactsOf(*options_.checkpoint, options_.model_name, options_.precision, options_.limits)),
      serving_(serving) {}

Supervisor::~Supervisor() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
  const std::lock_guard lock(mutex_);
  phase_ = Phase::kNone;  // the end of the plan, now to come, is no loss
}

absl::Status Supervisor::Start() {
  const Config& config = options_.config;
  Cluster::Options cluster;
  cluster.state_dir = config.state_dir;
  cluster.host = config.grpc_host;
  cluster.port = config.grpc_port;
  if (config.device != "none") {
    cluster.local = LocalDevice{.device = config.device,
                                .threads = config.threads,
                                .any_order = config.determinism == "off",
                                .managed_memory = config.managed_memory,
                                .model_path = config.model,
                                .on_lost = options_.on_device_lost};
  }
  NG_ASSIGN_OR_RETURN(std::unique_ptr<Cluster> started, Cluster::Start(std::move(cluster), this));
  {
    const std::lock_guard lock(mutex_);
    cluster_ = std::move(started);
  }
  thread_ = std::thread([this] { Loop(); });
  return absl::OkStatus();
}

void Supervisor::Wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  changed_.notify_all();
}

void Supervisor::Loop() {
  while (true) {
    {
      std::unique_lock lock(mutex_);
      changed_.wait_for(lock, kTick, [&] { return woken_ || stop_; });
      if (stop_) return;
      woken_ = false;
    }
    options_.on_nodes(cluster_->Nodes());
    Consider();
  }
}

std::vector<ReportedNode> Supervisor::Members() {
  std::vector<ReportedNode> members;
  const std::vector<Node> nodes = cluster_->Nodes();
  const std::lock_guard lock(mutex_);
  const auto now = std::chrono::steady_clock::now();
  for (auto& [id, blame] : blamed_) {
    blame.left |= std::none_of(nodes.begin(), nodes.end(), [&](const Node& node) {
      return node.id == id && node.boot_id == blame.boot_id;
    });
  }
  for (const Node& node : nodes) {
    if (node.state == NodeState::kConnecting || node.state == NodeState::kSuspect) continue;
    const auto found = blamed_.find(node.id);
    if (found != blamed_.end()) {
      const Blame& blame = found->second;
      const bool patient = phase_ == Phase::kServing && !blame.left;
      if (now < blame.until + (patient ? kBlameWhileServing : std::chrono::minutes(0))) continue;
    }
    ReportedNode member;
    member.id = node.id;
    member.host_id = node.report.host_id;
    member.device_kind = node.report.device_kind;
    member.device_uuid = node.report.device_uuid;
    member.with_coordinator = node.id == kLocalNode;
    member.memory_total_bytes = node.report.memory_total_bytes;
    member.memory_free_bytes = node.report.memory_free_bytes;
    member.read_bandwidth = node.report.read_bandwidth;
    member.matmul_rate = node.report.matmul_rate;
    member.row_rate = node.report.row_rate;
    member.op_seconds = node.report.op_seconds;
    member.host_memory_bytes = node.report.host_memory_bytes;
    member.host_bandwidth = node.report.host_bandwidth;
    members.push_back(std::move(member));
  }
  // Never the order of joining: the same cluster gets the same plan.
  std::sort(members.begin(), members.end(),
            [](const ReportedNode& a, const ReportedNode& b) { return a.id < b.id; });
  return members;
}

absl::StatusOr<Plan> Supervisor::PlanFor(const std::vector<ReportedNode>& members) const {
  NG_ASSIGN_OR_RETURN(const std::vector<NodeFacts> nodes, FactsOf(members, options_.config));
  Placement placement;
  placement.options = options_.config.planner;
  placement.nodes = options_.config.nodes;
  if (was_serving_) {
    // Pins of nodes that were lost must not keep the rest from serving.
    std::erase_if(placement.nodes, [&](const auto& entry) {
      return std::none_of(nodes.begin(), nodes.end(),
                          [&](const NodeFacts& node) { return node.id == entry.first; });
    });
    absl::StatusOr<Plan> plan =
        PlanStages(facts_, nodes, ServingLink(), options_.config.workload, placement);
    if (plan.ok()) return plan;
    for (auto& [name, node] : placement.nodes) node.layers.reset();
    placement.options.lock = false;
  }
  return PlanStages(facts_, nodes, ServingLink(), options_.config.workload, placement);
}

/// What the configuration asks of nodes decides first. Else a better plan must be better by a tenth
/// and take in a device that was not there: processes of one device share its memory bandwidth,
/// whatever each measured alone.
bool Supervisor::WorthMoving(const Plan& next, const std::vector<ReportedNode>& members) const {
  const auto as_asked = [&](const Plan& plan) {
    return std::count_if(plan.stages.begin(), plan.stages.end(), [&](const PlannedStage& stage) {
      const auto asked = options_.config.nodes.find(stage.node);
      if (asked == options_.config.nodes.end()) return false;
      const std::optional<std::pair<int, int>>& layers = asked->second.layers;
      return layers.has_value() ? stage.layers == LayerRange{layers->first, layers->second}
                                : asked->second.use == "always";
    });
  };
  if (as_asked(next) != as_asked(plan_)) return as_asked(next) > as_asked(plan_);
  const auto devices_of = [&](const Plan& plan) {
    std::set<std::string> devices;
    for (const PlannedStage& stage : plan.stages) {
      for (const ReportedNode& member : members) {
        if (member.id == stage.node) devices.insert(DeviceOf(member));
      }
    }
    return devices;
  };
  if (devices_of(next) == devices_of(plan_)) return false;
  return next.tokens_per_s > kGainWorthMoving * plan_.tokens_per_s;
}

void Supervisor::Consider() {
  const std::vector<ReportedNode> members = Members();
  const auto workers = std::count_if(members.begin(), members.end(), [](const ReportedNode& node) {
    return node.id != kLocalNode;
  });
  {
    const std::lock_guard lock(mutex_);
    if (phase_ == Phase::kLoading) return;
    // A plan that serves ends by its own event: members that are only suspected may come back.
    if (phase_ == Phase::kServing &&
        (members.empty() || considered_ == Names(members) || !serving_.idle())) {
      return;
    }
    if (std::chrono::steady_clock::now() < retry_at_) return;
  }
  if (members.empty() || (!was_serving_ && workers < options_.config.min_peers)) {
    const int64_t missing = was_serving_ ? 0 : options_.config.min_peers - workers;
    WaitForWorkers(missing > 0 ? absl::StrCat(missing, missing == 1 ? " worker" : " workers")
                               : "a worker, or a device of the coordinator's own");
    return;
  }
  absl::StatusOr<Plan> plan = PlanFor(members);
  {
    const std::lock_guard lock(mutex_);
    if (phase_ == Phase::kServing && !serving_.idle()) return;  // weighed again when it is
    considered_ = Names(members);
    if (phase_ == Phase::kServing && (!plan.ok() || !WorthMoving(*plan, members))) return;
  }
  if (plan.ok()) {
    BringUp(*std::move(plan));
  } else {
    WaitForWorkers(absl::StrCat("a plan: ", plan.status().message()));
  }
}

void Supervisor::WaitForWorkers(const std::string& why) {
  // Answers that were under way go on as soon as somebody comes.
  const ServingState state = was_serving_ && !serving_.idle() ? ServingState::kRecovering
                                                              : ServingState::kWaitingForWorkers;
  bool told = false;
  {
    const std::lock_guard lock(mutex_);
    told = waiting_for_ == why;
    if (told && serving_.state() == state) return;
    waiting_for_ = why;
  }
  if (!told) LogInfo("waiting for ", why);
  serving_.ChainDown(state, {why});
}

void Supervisor::BringUp(Plan plan) {
  BatchLimits limits = options_.limits;
  SetPages(plan, facts_, options_.config, limits);
  plan.pages = limits.pages;
  plan.window_pages = limits.window_pages;
  bool serving = false;
  {
    const std::lock_guard lock(mutex_);
    serving = phase_ == Phase::kServing;
  }
  if (serving && !serving_.Vacate()) {  // a request was quicker: the better plan waits
    const std::lock_guard lock(mutex_);
    considered_.clear();
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    phase_ = Phase::kLoading;
    plan_ = plan;
    plan_limits_ = limits;
    waiting_for_.clear();
    last_epoch_ = std::max(last_epoch_, std::exchange(epoch_, 0));
  }
  if (!serving) {
    serving_.ChainDown(was_serving_ ? ServingState::kRecovering : ServingState::kLoading,
                       {"the model is loading"});
  }
  options_.on_plan(plan);
  ClusterPlan assigned;
  assigned.stages = plan.stages;
  assigned.model_name = options_.model_name;
  assigned.model_digest = options_.checkpoint->digest();
  assigned.model_path = options_.config.model;
  assigned.precision = options_.config.quantization;
  assigned.limits = limits;
  const absl::StatusOr<uint64_t> epoch = cluster_->Assign(assigned);
  const std::lock_guard lock(mutex_);
  if (epoch.ok()) {
    if (phase_ != Phase::kNone) epoch_ = *epoch;
    return;
  }
  LogError("the plan could not be assigned: ", epoch.status().message());
  cluster_->Drop("the next plan could not be assigned");
  phase_ = Phase::kNone;
  retry_at_ = std::chrono::steady_clock::now() + kRetryAfterFailure;
}

/// A plan's number is known only after Assign has returned, and it may come up or end before that.
bool Supervisor::InForce(uint64_t epoch) const {
  if (phase_ == Phase::kNone || epoch <= last_epoch_) return false;
  return epoch_ == 0 || epoch == epoch_;
}

void Supervisor::OnNodesChanged() { Wake(); }

void Supervisor::OnPlanProgress(uint64_t, const std::string& node, int64_t bytes_done,
                                int64_t bytes_total) {
  options_.on_progress(node, bytes_done, bytes_total);
}

void Supervisor::OnPlanActive(uint64_t epoch, const std::string& determinism_class) {
  SchedulerOptions shape;
  {
    const std::lock_guard lock(mutex_);
    if (!InForce(epoch)) return;
    epoch_ = epoch;
    phase_ = Phase::kServing;
    was_serving_ = true;
    for (const PlannedStage& stage : plan_.stages) blamed_.erase(stage.node);
    shape = ChainShape(plan_, plan_limits_, determinism_class, options_.config.speculation);
  }
  serving_.ChainUp(epoch, std::make_shared<RemoteChain>(*cluster_, serving_, epoch),
                   std::move(shape), determinism_class);
  options_.on_ready(epoch);
}

void Supervisor::OnPlanEnded(uint64_t epoch, const std::string& node, const std::string& reason,
                             bool was_active) {
  ServingState state = ServingState::kRecovering;
  {
    const std::lock_guard lock(mutex_);
    if (!InForce(epoch)) return;
  }
  const std::vector<Node> left = cluster_->Nodes();  // asked without our lock held
  const auto blamed =
      std::find_if(left.begin(), left.end(), [&](const Node& other) { return other.id == node; });
  const bool gone = !node.empty() && blamed == left.end();
  {
    const std::lock_guard lock(mutex_);
    if (!InForce(epoch)) return;
    phase_ = Phase::kNone;
    if (!was_serving_) state = ServingState::kLoading;
    // The others need not wait for one that is gone: its edge may have ended before it left.
    if (!was_active && !gone) retry_at_ = std::chrono::steady_clock::now() + kRetryAfterFailure;
    if (!was_active && !node.empty()) {
      Blame& blame = blamed_[node];
      const int doubled = std::min(blame.failures++, kBlameDoublings);
      blame.left = gone;
      blame.boot_id = gone ? 0 : blamed->boot_id;
      blame.until = std::chrono::steady_clock::now() + kRetryAfterFailure * (1 << doubled);
    }
  }
  LogWarning(was_active ? "the plan broke" : "the plan did not come up",
             node.empty() ? "" : absl::StrCat(" at node ", node), ": ", reason);
  serving_.ChainDown(state, {node.empty() ? "a chain of workers" : absl::StrCat("node ", node)});
  Wake();
}

void Supervisor::OnStepResult(StepResult result) {
  absl::StatusOr<std::vector<SampledToken>> sampled = std::move(result.sampled);
  if (!result.status.ok()) sampled = result.status;
  serving_.StepDone(result.epoch, result.id, std::move(sampled));
}

Json Supervisor::Describe() const {
  Json cluster = Json(Json::Object());
  Json model = Json(Json::Object());
  model.Set("id", Json(options_.model_name));
  model.Set("digest", Json(options_.checkpoint->digest()));
  model.Set("layers", Json(options_.checkpoint->config().layers_count()));
  model.Set("quantization", Json(options_.config.quantization));
  const Cluster* started = nullptr;
  {
    const std::lock_guard lock(mutex_);
    started = cluster_.get();
  }
  // HTTP answers before the workers' port is open. Nodes() is asked without our lock held.
  const std::vector<Node> members = started != nullptr ? started->Nodes() : std::vector<Node>();
  const std::lock_guard lock(mutex_);
  cluster.Set("epoch", Json(static_cast<int64_t>(epoch_)));
  cluster.Set("model", std::move(model));
  const auto now = std::chrono::steady_clock::now();
  Json::Array nodes;
  for (const Node& node : members) {
    Json entry = NodeJson(node);
    Json memory = Json(Json::Object());
    memory.Set("total", Json(node.report.memory_total_bytes));
    memory.Set("free", Json(node.report.memory_free_bytes));
    if (node.report.host_memory_bytes > 0) {
      memory.Set("of_host", Json(node.report.host_memory_bytes));
    }
    for (const PlannedStage& stage : plan_.stages) {
      if (phase_ == Phase::kNone || stage.node != node.id) continue;
      entry.Set("layers", LayersJson(stage.layers));
      memory.Set("weights", Json(stage.fixed_bytes));
      memory.Set("kv", Json(stage.page_bytes * plan_.pages +
                            stage.window_page_bytes * plan_.window_pages));
    }
    entry.Set("memory", std::move(memory));
    entry.Set("heartbeat_age_ms",
              Json(std::chrono::duration<double, std::milli>(now - node.last_heard).count()));
    nodes.push_back(std::move(entry));
  }
  cluster.Set("nodes", Json(std::move(nodes)));
  Json plan = Json(Json::Object());
  Json::Array stages, survives, not_survives;
  if (phase_ != Phase::kNone) {
    for (const PlannedStage& stage : plan_.stages) {
      Json entry = Json(Json::Object());
      entry.Set("node", Json(stage.node));
      entry.Set("layers", LayersJson(stage.layers));
      stages.push_back(std::move(entry));
    }
    for (const std::string& node : plan_.survives_loss_of) survives.push_back(Json(node));
    for (const std::string& node : plan_.not_loss_of) not_survives.push_back(Json(node));
    plan.Set("predicted_tokens_per_s", Json(plan_.tokens_per_s));
    plan.Set("explanation", Json(plan_.explanation));
  }
  plan.Set("stages", Json(std::move(stages)));
  plan.Set("survives_loss_of", Json(std::move(survives)));
  plan.Set("not_of", Json(std::move(not_survives)));
  cluster.Set("plan", std::move(plan));
  const uint64_t stale = started != nullptr ? started->stale_messages() : 0;
  cluster.Set("stale_messages", Json(static_cast<int64_t>(stale)));
  return cluster;
}

}  // namespace neurogrid
