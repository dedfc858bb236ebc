#include "worker/worker.h"

#include <unistd.h>

#include <algorithm>
#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/digest.h"
#include "common/enroll.h"
#include "common/log.h"
#include "common/loopback.h"
#include "common/state_dir.h"
#include "worker/assignment.h"

namespace neurogrid {
namespace {

using Milliseconds = std::chrono::milliseconds;

constexpr Milliseconds kRedialFirst{100};
constexpr Milliseconds kRedialMost{2000};
constexpr Milliseconds kProgressEvery{200};

uint64_t RandomBootId() {
  uint64_t id = 0;
  for (const char c : RandomBytes(8)) id = id << 8 | static_cast<uint8_t>(c);
  return id;
}

/// Anything from nothing to `most`, so that many workers do not dial at once.
Milliseconds Jittered(Milliseconds most) {
  static thread_local std::mt19937_64 generator{std::random_device{}()};
  return Milliseconds(std::uniform_int_distribution<int64_t>(1, most.count())(generator));
}

wire::WireThrottle MessageOf(Throttle throttle) {
  switch (throttle) {
    case Throttle::kNone:
      return wire::THROTTLE_NONE;
    case Throttle::kPower:
      return wire::THROTTLE_POWER;
    case Throttle::kHeat:
      return wire::THROTTLE_HEAT;
    case Throttle::kHardware:
      return wire::THROTTLE_HARDWARE;
  }
  return wire::THROTTLE_UNKNOWN;
}

}  // namespace

std::string HostId() {
  absl::StatusOr<std::string> id = ReadStateFile("/etc/machine-id", 256);
  char name[256] = {};
  gethostname(name, sizeof(name) - 1);
  // Copies of one machine image share the file, and not the name.
  return HexOf(Sha256Of(absl::StrCat(id.ok() ? *id : "", "/", name))).substr(0, 16);
}

Worker::Worker(Options options, StageSource* source, std::string node_id, std::string cluster_id)
    : options_(std::move(options)),
      node_id_(std::move(node_id)),
      cluster_id_(std::move(cluster_id)),
      boot_id_(RandomBootId()),
      gate_([this](Step step) { return runner_.Enqueue(std::move(step)); }, Polls()),
      runner_(
          node_id_, source, [this](const absl::Status& status) { Break(status); }, Polls()) {
  if (options_.gauges) gauges_.emplace(options_.gauges);
}

absl::StatusOr<std::unique_ptr<Worker>> Worker::Start(Options options, StageSource* source) {
  NG_ASSIGN_OR_RETURN(const CertificateFacts facts, ReadCertificate(options.identity.certificate));
  NG_ASSIGN_OR_RETURN(std::string cluster_id, ClusterIdOf(options.identity.authority));
  std::unique_ptr<Worker> worker(
      new Worker(std::move(options), source, facts.node_id, std::move(cluster_id)));
  NG_RETURN_IF_ERROR(worker->Listen());
  return worker;
}

absl::Status Worker::Listen() {
  NG_ASSIGN_OR_RETURN(port_, NodePort::Open({.host = options_.listen_host,
                                             .port = options_.listen_port,
                                             .identity = options_.identity,
                                             .services = {},
                                             .steps = &gate_,
                                             .enroll = nullptr}));
  return absl::OkStatus();
}

bool Worker::Polls() const { return options_.device.kind != "cpu" && Polling::CoresSuffice(); }

Worker::~Worker() {
  DropPlan();
  port_.reset();
}

absl::Status Worker::Run() {
  Milliseconds wait = kRedialFirst;
  while (true) {
    const JoinSession::End end = RunSession();
    DropPlan();
    if (welcomed_) wait = kRedialFirst;
    std::unique_lock lock(mutex_);
    if (!broken_.ok()) return broken_;
    if (stopping_) return absl::OkStatus();
    lock.unlock();
    if (end.refused) return absl::FailedPreconditionError(end.status.message());
    if (!welcomed_) NG_RETURN_IF_ERROR(ExplainFailure(end));
    if (welcomed_) LogWarning("lost the coordinator: ", end.status.message(), "; dialling again");
    lock.lock();
    stopped_.wait_for(lock, Jittered(wait), [this] { return stopping_ || !broken_.ok(); });
    if (!broken_.ok()) return broken_;
    if (stopping_) return absl::OkStatus();
    wait = std::min(2 * wait, kRedialMost);
  }
}

/// gRPC says only that a connection failed. A handshake of our own tells a coordinator that is not
/// there, which is logged, from one that is not ours, which is returned: no waiting will cure it.
absl::Status Worker::ExplainFailure(const JoinSession::End& end) {
  const absl::Status probed = ProbeCoordinator(options_.host, options_.port, options_.identity);
  if (absl::IsUnauthenticated(probed)) return probed;
  std::string why(probed.ok() ? end.status.message() : probed.message());
  if (why != explained_) LogWarning("cannot join yet: ", why);  // once, not at every try
  explained_ = std::move(why);
  return absl::OkStatus();
}

JoinSession::End Worker::RunSession() {
  welcomed_ = false;
  JoinSession session(
      {.host = options_.host,
       .port = options_.port,
       .identity = options_.identity,
       .cluster_id = cluster_id_,
       .boot_id = boot_id_,
       .fill_heartbeat = [this](wire::Heartbeat* heartbeat) { FillHeartbeat(*heartbeat); }},
      this);
  {
    const std::lock_guard lock(mutex_);
    if (stopping_ || !broken_.ok()) return {};
    session_ = &session;
  }
  JoinSession::End end = session.Run();
  const std::lock_guard lock(mutex_);
  session_ = nullptr;
  return end;
}

void Worker::Stop() {
  const std::lock_guard lock(mutex_);
  stopping_ = true;
  stopped_.notify_all();
  if (session_ != nullptr) session_->Stop("stopping");
}

void Worker::Send(const wire::FromWorker& message) {
  const std::lock_guard lock(mutex_);
  if (session_ != nullptr) session_->Send(message);
}

void Worker::DropPlan() {
  gate_.Close();
  runner_.Deactivate();
  const std::lock_guard lock(mutex_);
  assign_.reset();
}

wire::Report Worker::MakeReport() const {
  wire::Report report;
  report.set_device_kind(options_.device.kind);
  report.set_device_name(options_.device.name.substr(0, kWireStringBytesMax));
  report.set_instruction_set(options_.device.instruction_set);
  report.set_memory_total_bytes(options_.device.memory_total_bytes);
  report.set_memory_free_bytes(options_.device.memory_free_bytes);
  report.set_cores(static_cast<uint32_t>(options_.device.cores));
  report.set_read_bandwidth(options_.device.read_bandwidth);
  report.set_matmul_rate(options_.device.matmul_rate);
  report.set_row_rate(options_.device.row_rate);
  report.set_op_seconds(options_.device.op_seconds);
  report.set_disk_free_bytes(options_.disk_free_bytes);
  report.set_host_id(options_.host_id);
  report.set_data_port(static_cast<uint32_t>(port_->port()));
  report.set_host_memory_bytes(options_.device.host_memory_bytes);
  report.set_host_bandwidth(options_.device.host_bandwidth);
  report.set_device_uuid(options_.device.uuid.substr(0, kWireStringBytesMax));
  report.set_driver(options_.device.driver.substr(0, kWireStringBytesMax));
  report.set_power_limit_w(options_.device.power_limit_w);
  report.set_clock_max_mhz(static_cast<uint32_t>(options_.device.clock_max_mhz));
  return report;
}

void Worker::FillHeartbeat(wire::Heartbeat& heartbeat) const {
  heartbeat.set_last_step(runner_.last_step());
  heartbeat.set_queue_depth(static_cast<uint32_t>(runner_.queued()));
  if (!gauges_.has_value()) return;
  const DeviceGauges now = gauges_->Last();
  wire::Gauges& gauges = *heartbeat.mutable_gauges();
  if (now.temperature_c) gauges.set_temperature_c(*now.temperature_c);
  if (now.utilization) gauges.set_utilization(*now.utilization);
  if (now.power_w) gauges.set_power_w(*now.power_w);
  if (now.clock_mhz) gauges.set_clock_mhz(*now.clock_mhz);
  if (now.memory_used_bytes) gauges.set_memory_used_bytes(*now.memory_used_bytes);
  if (now.throttle) gauges.set_throttle(MessageOf(*now.throttle));
  if (now.ecc_errors) gauges.set_ecc_errors(*now.ecc_errors);
}

absl::Status Worker::OnWelcome(const wire::Welcome& welcome) {
  welcomed_ = true;
  if (welcome.beyond_loopback() && IsLoopback(options_.listen_host)) {
    options_.listen_host = kAnyHost;
    port_.reset();  // Nobody uses it yet: no plan is in force.
  }
  if (port_ == nullptr) NG_RETURN_IF_ERROR(Listen());
  explained_.clear();
  LogInfo("joined the cluster ", HexOf(cluster_id_).substr(0, 8), " as ", node_id_,
          "; waiting for layers");
  return absl::OkStatus();
}

void Worker::OnLease(JoinSession::Clock::time_point fence) { runner_.SetFence(fence); }

void Worker::Fail(uint64_t epoch, const absl::Status& status) {
  {
    const std::lock_guard lock(mutex_);
    if (!assign_.has_value() || assign_->epoch() != epoch) return;
    assign_.reset();  // an epoch fails once
  }
  if (absl::IsUnavailable(status)) {
    LogWarning("epoch ", epoch, ": ", status.message());  // Somebody else left, perhaps on purpose.
  } else {
    LogError("epoch ", epoch, ": ", status.message());
  }
  wire::FromWorker message;
  message.mutable_stage_failed()->set_epoch(epoch);
  message.mutable_stage_failed()->set_reason(
      std::string(status.message().substr(0, kWireStringBytesMax)));
  Send(message);
}

/// A broken device is good for nothing in this process: the worker leaves, and Run ends. The reason
/// goes with the farewell: the end of the epoch alone would have the next one planned with it.
void Worker::Break(const absl::Status& status) {
  const std::lock_guard lock(mutex_);
  broken_ = absl::InternalError(absl::StrCat("the device is broken: ", status.message()));
  stopped_.notify_all();
  if (session_ != nullptr) {
    session_->Stop(absl::StrCat("its device is broken: ", status.message()));
  }
}

void Worker::OnAssign(const wire::Assign& assign) {
  DropPlan();
  {
    const std::lock_guard lock(mutex_);
    assign_ = assign;
  }
  absl::StatusOr<StageRequest> request = ReadAssignment(assign);
  if (!request.ok()) return Fail(assign.epoch(), request.status());
  LogInfo("epoch ", assign.epoch(), ": loading layers ", request->options.layers.ToString(), " of ",
          assign.model_name());
  auto last = std::make_shared<JoinSession::Clock::time_point>();
  const auto progress = [this, epoch = assign.epoch(), last](int64_t done, int64_t total) {
    const JoinSession::Clock::time_point now = JoinSession::Clock::now();
    if (now - *last < kProgressEvery && done < total) return;
    *last = now;
    wire::FromWorker message;
    message.mutable_progress()->set_epoch(epoch);
    message.mutable_progress()->set_bytes_done(done);
    message.mutable_progress()->set_bytes_total(total);
    Send(message);
  };
  runner_.Load(*std::move(request), progress,
               [this, assign](const absl::StatusOr<StageRunner::Loaded>& loaded) {
                 TakeLoaded(assign, loaded);
               });
}

void Worker::TakeLoaded(const wire::Assign& assign,
                        const absl::StatusOr<StageRunner::Loaded>& loaded) {
  if (!loaded.ok()) return Fail(assign.epoch(), loaded.status());
  {
    const std::lock_guard lock(mutex_);
    if (!assign_.has_value() || assign_->epoch() != assign.epoch()) return;
    gate_.Expect({.epoch = assign.epoch(),
                  .node_id = assign.previous().node_id(),
                  .boot_id = assign.previous().boot_id(),
                  .first = assign.layer_first() == 0,
                  .hidden_size = loaded->hidden_size,
                  .activation_dtype = loaded->activation_dtype,
                  .limits = *FromMessage(assign.limits())});
  }
  wire::FromWorker message;
  wire::Ready* ready = message.mutable_ready();
  ready->set_epoch(assign.epoch());
  ready->set_plan_digest(assign.plan_digest());
  ready->set_weight_bytes(loaded->memory.weight_bytes);
  ready->set_workspace_bytes(loaded->memory.workspace_bytes);
  ready->set_page_bytes(loaded->memory.page_bytes);
  ready->set_window_page_bytes(loaded->memory.window_page_bytes);
  ready->set_state_bytes(loaded->memory.state_bytes);
  ready->set_load_ms(loaded->load_ms);
  ready->set_determinism_class(loaded->determinism_class.substr(0, kWireStringBytesMax));
  Send(message);
}

absl::StatusOr<StageRunner::Sink> Worker::OpenEdge(const wire::Assign& assign) {
  const wire::Neighbour& next = assign.next();
  NG_ASSIGN_OR_RETURN(
      std::unique_ptr<Peer> opened,
      options_.open_peer({.cluster_id = cluster_id_,
                          .epoch = assign.epoch(),
                          .boot_id = boot_id_,
                          .node_id = next.node_id(),
                          .host = next.host().empty() ? options_.host : next.host(),
                          .port = static_cast<int>(next.port()),
                          .identity = options_.identity,
                          .on_end = [this, epoch = assign.epoch()](const absl::Status& status) {
                            Fail(epoch, status);
                          }}));
  return
      [peer = std::shared_ptr<Peer>(std::move(opened))](Step step) { peer->Send(std::move(step)); };
}

void Worker::OnActivate(uint64_t epoch) {
  wire::Assign assign;
  {
    const std::lock_guard lock(mutex_);
    if (!assign_.has_value() || assign_->epoch() != epoch) return;
    assign = *assign_;
  }
  runner_.Activate(
      epoch, [this, assign] { return OpenEdge(assign); },
      [this, epoch](const absl::Status& status) {
        if (!status.ok()) return Fail(epoch, status);
        gate_.Activate(epoch);
        LogInfo("epoch ", epoch, ": serving");
        wire::FromWorker message;
        message.mutable_activated()->set_epoch(epoch);
        Send(message);
      });
}

void Worker::OnRelease(uint64_t epoch) {
  {
    const std::lock_guard lock(mutex_);
    if (assign_.has_value() && assign_->epoch() > epoch) return;
  }
  DropPlan();
}

}  // namespace neurogrid
