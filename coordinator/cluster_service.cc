#include "coordinator/cluster_service.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "proto/transport.h"

namespace neurogrid {
namespace {

constexpr size_t kConnectionsMax = 256;
constexpr size_t kOutgoingMax = 1024;
constexpr int64_t kBytesMax = int64_t{1} << 50;

absl::Status CheckRange(absl::string_view name, double value, double minimum, double maximum) {
  if (std::isfinite(value) && value >= minimum && value <= maximum) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("report.", name, " is ", value, ", expected ", minimum, " to ", maximum));
}

wire::Refused Refusal(const std::string& reason) {
  wire::Refused refused;
  refused.set_reason(reason);
  refused.set_version_min(kProtocolMin);
  refused.set_version_max(kProtocolMax);
  return refused;
}

}  // namespace

absl::StatusOr<NodeReport> ReadReport(const wire::Report& report, const std::string& host) {
  NG_RETURN_IF_ERROR(CheckText("report.device_kind", report.device_kind()));
  NG_RETURN_IF_ERROR(CheckText("report.device_name", report.device_name()));
  NG_RETURN_IF_ERROR(CheckText("report.instruction_set", report.instruction_set()));
  NG_RETURN_IF_ERROR(CheckText("report.host_id", report.host_id()));
  const auto total = static_cast<double>(report.memory_total_bytes());
  NG_RETURN_IF_ERROR(CheckRange("memory_total_bytes", total, 1, static_cast<double>(kBytesMax)));
  NG_RETURN_IF_ERROR(
      CheckRange("memory_free_bytes", static_cast<double>(report.memory_free_bytes()), 0, total));
  NG_RETURN_IF_ERROR(
      CheckRange("disk_free_bytes", static_cast<double>(report.disk_free_bytes()), 0, 1e18));
  NG_RETURN_IF_ERROR(CheckRange("cores", report.cores(), 1, 65536));
  NG_RETURN_IF_ERROR(CheckRange("read_bandwidth", report.read_bandwidth(), 1, 1e15));
  NG_RETURN_IF_ERROR(CheckRange("matmul_rate", report.matmul_rate(), 1, 1e18));
  NG_RETURN_IF_ERROR(CheckRange("data_port", report.data_port(), 1, 65535));
  NG_RETURN_IF_ERROR(CheckRange("host_memory_bytes",
                                static_cast<double>(report.host_memory_bytes()), 0,
                                static_cast<double>(report.memory_free_bytes())));
  NG_RETURN_IF_ERROR(CheckRange("host_bandwidth", report.host_bandwidth(),
                                report.host_memory_bytes() > 0 ? 1 : 0, 1e15));
  NG_RETURN_IF_ERROR(CheckText("report.device_uuid", report.device_uuid()));
  NG_RETURN_IF_ERROR(CheckText("report.driver", report.driver()));
  NG_RETURN_IF_ERROR(CheckRange("power_limit_w", report.power_limit_w(), 0, 1e6));
  NG_RETURN_IF_ERROR(CheckRange("clock_max_mhz", report.clock_max_mhz(), 0, 1e6));
  NG_RETURN_IF_ERROR(CheckRange("row_rate", report.row_rate(), 0, 1e18));
  NG_RETURN_IF_ERROR(CheckRange("op_seconds", report.op_seconds(), 0, 1));
  return NodeReport{.device_kind = report.device_kind(),
                    .device_name = report.device_name(),
                    .instruction_set = report.instruction_set(),
                    .memory_total_bytes = report.memory_total_bytes(),
                    .memory_free_bytes = report.memory_free_bytes(),
                    .cores = static_cast<int>(report.cores()),
                    .read_bandwidth = report.read_bandwidth(),
                    .matmul_rate = report.matmul_rate(),
                    .disk_free_bytes = report.disk_free_bytes(),
                    .host_id = report.host_id(),
                    .data_host = host,
                    .data_port = static_cast<int>(report.data_port()),
                    .host_memory_bytes = report.host_memory_bytes(),
                    .host_bandwidth = report.host_bandwidth(),
                    .device_uuid = report.device_uuid(),
                    .driver = report.driver(),
                    .power_limit_w = report.power_limit_w(),
                    .clock_max_mhz = static_cast<int>(report.clock_max_mhz()),
                    .row_rate = report.row_rate(),
                    .op_seconds = report.op_seconds()};
}

std::optional<std::string> NameOf(wire::WireThrottle throttle) {
  switch (throttle) {
    case wire::THROTTLE_NONE:
      return "none";
    case wire::THROTTLE_POWER:
      return "power";
    case wire::THROTTLE_HEAT:
      return "heat";
    case wire::THROTTLE_HARDWARE:
      return "hardware";
    default:  // not known, here or there
      return std::nullopt;
  }
}

NodeGauges ReadGauges(const wire::Gauges& gauges) {
  NodeGauges read;
  if (gauges.has_temperature_c()) read.temperature_c = gauges.temperature_c();
  if (gauges.has_utilization()) read.utilization = gauges.utilization();
  if (gauges.has_power_w()) read.power_w = gauges.power_w();
  if (gauges.has_clock_mhz()) read.clock_mhz = gauges.clock_mhz();
  if (gauges.has_memory_used_bytes()) read.memory_used_bytes = gauges.memory_used_bytes();
  read.throttle = NameOf(gauges.throttle());
  if (gauges.has_ecc_errors()) read.ecc_errors = gauges.ecc_errors();
  return read;
}

grpc::Status ClusterService::Join(grpc::ServerContext* context, Stream* stream) {
  const absl::StatusOr<PeerIdentity> peer = PeerOf(*context);
  if (!peer.ok()) return GrpcStatusOf(peer.status());
  if (peer->role != Role::kWorker) {
    return grpc::Status(grpc::StatusCode::PERMISSION_DENIED, "Join is for workers");
  }
  const ConnectionId id = ++last_id_;
  Connection* connection = nullptr;
  {
    const std::lock_guard lock(mutex_);
    if (connections_.size() >= kConnectionsMax) {
      return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "too many workers");
    }
    connection = (connections_[id] = std::make_unique<Connection>()).get();
    connection->context = context;
  }
  options_.post(event::Joined{id, peer->node_id});
  std::thread writer([this, connection, stream] { Write(connection, stream); });
  std::string farewell = "the connection ended";
  const grpc::Status status = Serve(id, peer->node_id, peer->host, connection, stream, &farewell);
  {
    const std::lock_guard lock(mutex_);
    connection->over = true;
    connection->changed.notify_all();
  }
  writer.join();
  options_.post(event::Left{id, status.ok() ? farewell : status.error_message()});
  const std::lock_guard lock(mutex_);
  connections_.erase(id);
  ended_.notify_all();
  return status;
}

grpc::Status ClusterService::Serve(ConnectionId id, const std::string& node,
                                   const std::string& host, Connection* connection, Stream* stream,
                                   std::string* farewell) {
  wire::FromWorker message;
  wire::Hello hello;
  absl::Status status;
  bool greeted = false;
  while (status.ok() && stream->Read(&message)) {
    if (message.ByteSizeLong() > kControlBytesMax) {
      status = absl::ResourceExhaustedError("a control message is larger than 1 MiB");
    } else if (!greeted) {
      greeted = true;
      status = Greet(message, connection, &hello);
    } else if (message.has_goodbye()) {
      if (status = CheckText("goodbye.reason", message.goodbye().reason()); !status.ok()) break;
      *farewell = message.goodbye().reason();
      LogInfo(node, " says goodbye: ", *farewell);
      return grpc::Status::OK;
    } else {
      status = Take(id, message, host, hello);
    }
  }
  if (!status.ok()) LogWarning(node, ": ", status.message());
  return GrpcStatusOf(status);
}

absl::Status ClusterService::Greet(const wire::FromWorker& message, Connection* connection,
                                   wire::Hello* greeting) {
  if (!message.has_hello()) return absl::InvalidArgumentError("the first message must be hello");
  const wire::Hello& hello = *greeting = message.hello();
  NG_RETURN_IF_ERROR(CheckText("hello.build_id", hello.build_id()));
  wire::FromCoordinator answer;
  const uint32_t version = std::min(hello.version_max(), kProtocolMax);
  const bool common = version >= kProtocolMin && version >= hello.version_min();
  if (common) {
    wire::Welcome* welcome = answer.mutable_welcome();
    welcome->set_cluster_id(options_.cluster_id);
    welcome->set_epoch(options_.epoch());
    welcome->set_lease_ms(static_cast<uint32_t>(options_.times.lease.count()));
    welcome->set_heartbeat_ms(static_cast<uint32_t>(options_.times.heartbeat.count()));
    welcome->set_version(version);
    welcome->set_beyond_loopback(options_.beyond_loopback);
  } else {
    *answer.mutable_refused() = Refusal("no protocol version in common");
  }
  const std::lock_guard lock(mutex_);
  connection->outgoing.push_back(std::move(answer));
  connection->closing = connection->closing || !common;
  connection->changed.notify_all();
  return absl::OkStatus();
}

absl::Status ClusterService::TakeReady(ConnectionId id, const wire::Ready& ready) {
  NG_RETURN_IF_ERROR(CheckText("ready.determinism_class", ready.determinism_class()));
  NG_RETURN_IF_ERROR(CheckText("ready.plan_digest", ready.plan_digest()));
  options_.post(event::StageReady{id,
                                  ready.epoch(),
                                  ready.plan_digest(),
                                  {.weight_bytes = ready.weight_bytes(),
                                   .workspace_bytes = ready.workspace_bytes(),
                                   .page_bytes = ready.page_bytes(),
                                   .window_page_bytes = ready.window_page_bytes(),
                                   .state_bytes = ready.state_bytes(),
                                   .load_ms = ready.load_ms(),
                                   .determinism_class = ready.determinism_class()}});
  return absl::OkStatus();
}

absl::Status ClusterService::Take(ConnectionId id, const wire::FromWorker& message,
                                  const std::string& host, const wire::Hello& hello) {
  switch (message.kind_case()) {
    case wire::FromWorker::kReport: {
      NG_ASSIGN_OR_RETURN(NodeReport report, ReadReport(message.report(), host));
      report.version = hello.build_id();
      options_.post(event::Reported{id, hello.boot_id(), std::move(report)});
      return absl::OkStatus();
    }
    case wire::FromWorker::kHeartbeat:
      options_.post(event::Heartbeat{
          id, message.heartbeat().sequence(), message.heartbeat().last_step(),
          message.heartbeat().queue_depth(), ReadGauges(message.heartbeat().gauges())});
      return absl::OkStatus();
    case wire::FromWorker::kProgress:
      options_.post(event::Progressed{id, message.progress().epoch(),
                                      message.progress().bytes_done(),
                                      message.progress().bytes_total()});
      return absl::OkStatus();
    case wire::FromWorker::kReady:
      return TakeReady(id, message.ready());
    case wire::FromWorker::kActivated:
      options_.post(event::StageActive{id, message.activated().epoch()});
      return absl::OkStatus();
    case wire::FromWorker::kStageFailed:
      NG_RETURN_IF_ERROR(CheckText("stage_failed.reason", message.stage_failed().reason()));
      options_.post(
          event::StageFailed{id, message.stage_failed().epoch(), message.stage_failed().reason()});
      return absl::OkStatus();
    case wire::FromWorker::kHello:
    case wire::FromWorker::kGoodbye:
    case wire::FromWorker::KIND_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("a message of an unknown kind, or hello twice");
}

void ClusterService::Write(Connection* connection, Stream* stream) {
  std::unique_lock lock(mutex_);
  while (true) {
    connection->changed.wait(lock, [&] {
      return connection->over || connection->closing || !connection->outgoing.empty();
    });
    if (connection->over) return;
    if (connection->outgoing.empty()) break;
    const wire::FromCoordinator message = std::move(connection->outgoing.front());
    connection->outgoing.pop_front();
    lock.unlock();
    stream->Write(message);
    lock.lock();
  }
  // The goodbye is on its way: a moment for it to arrive, then the stream is cut.
  connection->changed.wait_for(lock, std::chrono::milliseconds(500),
                               [&] { return connection->over; });
  if (!connection->over) connection->context->TryCancel();
}

void ClusterService::Send(ConnectionId id, wire::FromCoordinator message) {
  const std::lock_guard lock(mutex_);
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  Connection& connection = *found->second;
  if (connection.outgoing.size() >= kOutgoingMax) {
    connection.context->TryCancel();
    return;
  }
  connection.outgoing.push_back(std::move(message));
  connection.changed.notify_all();
}

void ClusterService::Close(ConnectionId id, const std::string& reason, bool for_good) {
  wire::FromCoordinator message;
  if (for_good) {
    *message.mutable_refused() = Refusal(reason.substr(0, kWireStringBytesMax));
  } else {
    message.mutable_goodbye()->set_reason(reason.substr(0, kWireStringBytesMax));
  }
  const std::lock_guard lock(mutex_);
  const auto found = connections_.find(id);
  if (found == connections_.end()) return;
  found->second->outgoing.push_back(std::move(message));
  found->second->closing = true;
  found->second->changed.notify_all();
}

void ClusterService::CloseAll(const std::string& reason) {
  std::vector<ConnectionId> open;
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [id, connection] : connections_) open.push_back(id);
  }
  for (const ConnectionId id : open) Close(id, reason);
  std::unique_lock lock(mutex_);
  ended_.wait_for(lock, std::chrono::seconds(1), [this] { return connections_.empty(); });
}

}  // namespace neurogrid
