#include "worker/join_session.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "proto/cluster.grpc.pb.h"
#include "proto/transport.h"

namespace neurogrid {
namespace {

constexpr auto kWelcomeTime = std::chrono::seconds(10);
constexpr auto kGoodbyeTime = std::chrono::milliseconds(1000);
constexpr auto kFirstPause = std::chrono::milliseconds(100);
constexpr auto kLate = std::chrono::milliseconds(100);
constexpr uint32_t kLeaseMsMax = 600'000;

}  // namespace

struct JoinSession::Stream {
  std::shared_ptr<grpc::Channel> channel;
  std::unique_ptr<wire::Cluster::Stub> stub;
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<wire::FromWorker, wire::FromCoordinator>> call;
  bool said_goodbye = false;  // gRPC allows no write after WritesDone
};

JoinSession::JoinSession(Options options, Events* events)
    : options_(std::move(options)), events_(events), stream_(std::make_unique<Stream>()) {}

JoinSession::~JoinSession() = default;

JoinSession::End JoinSession::Run() {
  stream_->channel =
      DialNode(options_.host, options_.port, std::string(kCoordinatorNode), options_.identity);
  stream_->stub = wire::Cluster::NewStub(stream_->channel);
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return {};
    fence_ = Clock::now() + kWelcomeTime;
  }
  heartbeat_thread_ = std::thread([this] { HeartbeatLoop(); });
  {
    const std::lock_guard lock(write_mutex_);
    stream_->call = stream_->stub->Join(&stream_->context);
  }
  const absl::Status greeted = Greet();
  absl::Status status = greeted;
  wire::FromCoordinator message;
  while (status.ok() && stream_->call->Read(&message)) status = Handle(message);
  if (!status.ok()) Cancel(std::string(status.message()));
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
    changed_.notify_all();
  }
  heartbeat_thread_.join();
  const std::lock_guard write_lock(write_mutex_);
  const grpc::Status finished = stream_->call->Finish();
  stream_->call.reset();
  const std::lock_guard lock(mutex_);
  if (stopping_) return {};
  if (!cancel_reason_.empty()) return {absl::UnavailableError(cancel_reason_), refused_};
  const bool refused = finished.error_code() == grpc::StatusCode::UNAUTHENTICATED ||
                       finished.error_code() == grpc::StatusCode::PERMISSION_DENIED;
  if (finished.ok())
    return {absl::UnavailableError("the coordinator closed the connection"), false};
  return {StatusOf(finished), refused};
}

absl::Status JoinSession::Greet() {
  wire::FromWorker message;
  wire::Hello* hello = message.mutable_hello();
  hello->set_version_min(kProtocolMin);
  hello->set_version_max(kProtocolMax);
  hello->set_boot_id(options_.boot_id);
  hello->set_build_id(NG_VERSION);
  const Clock::time_point sent = Clock::now();
  wire::FromCoordinator answer;
  // What ended the stream, if it ended, is Finish's to say.
  if (!Write(message) || !stream_->call->Read(&answer)) return absl::OkStatus();
  NG_RETURN_IF_ERROR(HandleWelcome(answer, sent));
  wire::FromWorker report;
  *report.mutable_report() = events_->MakeReport();
  Write(report);
  return absl::OkStatus();
}

absl::Status JoinSession::HandleWelcome(const wire::FromCoordinator& message,
                                        Clock::time_point hello_sent) {
  if (message.has_refused()) {
    return EndForGood(absl::FailedPreconditionError(absl::StrCat(
        "the coordinator refused: ", message.refused().reason(), " (it speaks versions ",
        message.refused().version_min(), " to ", message.refused().version_max(), ", this worker ",
        kProtocolMin, " to ", kProtocolMax, ")")));
  }
  const wire::Welcome& welcome = message.welcome();
  if (!message.has_welcome() || welcome.version() < kProtocolMin ||
      welcome.version() > kProtocolMax) {
    return absl::InvalidArgumentError("the coordinator answered hello with something else");
  }
  if (welcome.cluster_id() != options_.cluster_id) {
    return absl::PermissionDeniedError("the coordinator belongs to another cluster");
  }
  if (welcome.lease_ms() < 10 || welcome.lease_ms() > kLeaseMsMax || welcome.heartbeat_ms() < 1 ||
      welcome.heartbeat_ms() >= welcome.lease_ms()) {
    return absl::InvalidArgumentError(absl::StrCat("welcome: lease_ms ", welcome.lease_ms(),
                                                   " and heartbeat_ms ", welcome.heartbeat_ms(),
                                                   " make no sense"));
  }
  Clock::time_point fence;
  {
    const std::lock_guard lock(mutex_);
    lease_ = std::chrono::milliseconds(welcome.lease_ms());
    heartbeat_ = std::chrono::milliseconds(welcome.heartbeat_ms());
    fence = fence_ = hello_sent + lease_ * 8 / 10;
    changed_.notify_all();
  }
  events_->OnLease(fence);
  absl::Status taken = events_->OnWelcome(welcome);
  return taken.ok() ? taken : EndForGood(std::move(taken));
}

absl::Status JoinSession::EndForGood(absl::Status why) {
  const std::lock_guard lock(mutex_);
  refused_ = true;
  return why;
}

absl::Status JoinSession::Handle(const wire::FromCoordinator& message) {
  switch (message.kind_case()) {
    case wire::FromCoordinator::kHeartbeatAck:
      TakeAck(message.heartbeat_ack().sequence());
      return absl::OkStatus();
    case wire::FromCoordinator::kAssign:
      events_->OnAssign(message.assign());
      return absl::OkStatus();
    case wire::FromCoordinator::kActivate:
      events_->OnActivate(message.activate().epoch());
      return absl::OkStatus();
    case wire::FromCoordinator::kRelease:
      events_->OnRelease(message.release().epoch());
      return absl::OkStatus();
    case wire::FromCoordinator::kGoodbye:
      return absl::UnavailableError(
          absl::StrCat("the coordinator says: ", message.goodbye().reason()));
    case wire::FromCoordinator::kRefused:
      return EndForGood(absl::FailedPreconditionError(
          absl::StrCat("the coordinator refused: ", message.refused().reason())));
    case wire::FromCoordinator::kWelcome:
    case wire::FromCoordinator::KIND_NOT_SET:
      break;
  }
  return absl::InvalidArgumentError("the coordinator sent a message of an unknown kind");
}

void JoinSession::TakeAck(uint64_t sequence) {
  Clock::time_point fence;
  {
    const std::lock_guard lock(mutex_);
    const auto found = sent_.find(sequence);
    if (found == sent_.end()) return;
    fence = fence_ = std::max(fence_, found->second + lease_ * 8 / 10);
    sent_.erase(sent_.begin(), std::next(found));
  }
  events_->OnLease(fence);
}

void JoinSession::HeartbeatLoop() {
  std::unique_lock lock(mutex_);
  while (!over_) {
    const bool greeted = heartbeat_.count() > 0;
    const Clock::duration pause = greeted ? heartbeat_ : kFirstPause;
    const Clock::time_point due = Clock::now() + pause;
    changed_.wait_for(lock, pause);
    if (over_) return;
    const Clock::time_point now = Clock::now();
    if (now - due > kLate && greeted) {
      // This process was held up, or the whole machine: answers may lie here unread. Safe to go on:
      // if the coordinator gave this worker up, it has ended the connection and the epoch.
      const Clock::time_point fence = fence_ += now - due;
      lock.unlock();
      events_->OnLease(fence);
      lock.lock();
    }
    if (now > fence_) {
      const std::string why = greeted ? "the coordinator has not answered heartbeats for 0.8 leases"
                                      : "the coordinator did not answer hello";
      lock.unlock();
      Cancel(why);
      lock.lock();
      changed_.wait_for(lock, kGoodbyeTime, [this] { return over_; });
      continue;
    }
    if (!greeted || stopping_) continue;
    sent_[++sequence_] = now;
    wire::FromWorker message;
    message.mutable_heartbeat()->set_sequence(sequence_);
    lock.unlock();
    options_.fill_heartbeat(message.mutable_heartbeat());
    Write(message);
    lock.lock();
  }
}

void JoinSession::Cancel(const std::string& why) {
  {
    const std::lock_guard lock(mutex_);
    if (cancel_reason_.empty()) cancel_reason_ = why;
  }
  stream_->context.TryCancel();
}

bool JoinSession::Write(const wire::FromWorker& message) {
  const std::lock_guard lock(write_mutex_);
  return stream_->call != nullptr && !stream_->said_goodbye && stream_->call->Write(message);
}

void JoinSession::Send(const wire::FromWorker& message) { Write(message); }

void JoinSession::Stop(const std::string& reason) {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    fence_ = std::min(fence_, Clock::now() + kGoodbyeTime);
    changed_.notify_all();
  }
  wire::FromWorker message;
  message.mutable_goodbye()->set_reason(reason.substr(0, kWireStringBytesMax));
  const std::lock_guard lock(write_mutex_);
  if (stream_->call == nullptr || std::exchange(stream_->said_goodbye, true)) return;
  stream_->call->Write(message);
  stream_->call->WritesDone();
}

}  // namespace neurogrid
