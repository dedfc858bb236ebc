#include "proto/peer.h"

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <condition_variable>
#include <deque>
#include <mutex>

#include "absl/strings/str_cat.h"
#include "proto/stage.grpc.pb.h"
#include "proto/transport.h"

namespace neurogrid {
namespace {

constexpr auto kOpenTime = std::chrono::seconds(5);

class GrpcPeer : public Peer, public grpc::ClientBidiReactor<wire::StepMessage, wire::EdgeOpened> {
 public:
  GrpcPeer(PeerOptions options, std::shared_ptr<grpc::Channel> channel)
      : options_(std::move(options)), stub_(wire::Stage::NewStub(std::move(channel))) {}

  absl::Status Open() {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + kOpenTime);
    wire::EdgeHeader header;
    FillHeader(&header);
    wire::EdgeOpened opened;
    if (const grpc::Status status = stub_->Open(&context, header, &opened); !status.ok()) {
      return absl::UnavailableError(absl::StrCat("edge to ", options_.node_id, " at ",
                                                 options_.host, ":", options_.port, ": ",
                                                 status.error_message()));
    }
    stub_->async()->Steps(&context_, this);
    // Writes start from outside of reactions, so the call must not end between two of them.
    AddHold();
    StartRead(&reply_);
    StartCall();
    started_ = true;
    return absl::OkStatus();
  }

  ~GrpcPeer() override {
    if (!started_) return;
    context_.TryCancel();
    bool release = false;
    {
      const std::lock_guard lock(mutex_);
      closing_ = true;
      release = !std::exchange(released_, true);
    }
    if (release) RemoveHold();
    std::unique_lock lock(mutex_);
    done_changed_.wait(lock, [this] { return done_; });
  }

  void Send(Step step) override {
    auto message = std::make_unique<wire::StepMessage>();
    FillHeader(message->mutable_header());
    ToMessage(std::move(step), message.get());
    wire::StepMessage* first = nullptr;
    {
      const std::lock_guard lock(mutex_);
      if (released_) return;
      queue_.push_back(std::move(message));
      if (queue_.size() > 1) return;
      first = queue_.front().get();
      AddHold();  // The end of the edge may be noticed before the write below has started.
    }
    StartWrite(first);
    RemoveHold();
  }

  void OnWriteDone(bool good) override {
    wire::StepMessage* next = nullptr;
    {
      const std::lock_guard lock(mutex_);
      queue_.pop_front();
      if (good && !released_ && !queue_.empty()) next = queue_.front().get();
    }
    if (next != nullptr) StartWrite(next);
  }

  // The receiver never answers: whatever ends this read is the end of the edge.
  void OnReadDone(bool good) override {
    if (good) context_.TryCancel();
    bool release = false;
    {
      const std::lock_guard lock(mutex_);
      release = !std::exchange(released_, true);
    }
    if (release) RemoveHold();
  }

  void OnDone(const grpc::Status& status) override {
    bool closing = false;
    {
      const std::lock_guard lock(mutex_);
      closing = closing_;
    }
    if (!closing && options_.on_end != nullptr) {
      options_.on_end(absl::Status(
          status.ok() ? absl::StatusCode::kUnavailable : StatusOf(status).code(),
          absl::StrCat("edge to ", options_.node_id, ": ",
                       status.ok() ? "closed by the receiver" : status.error_message())));
    }
    const std::lock_guard lock(mutex_);
    done_ = true;
    done_changed_.notify_all();
  }

 private:
  void FillHeader(wire::EdgeHeader* header) const {
    header->set_cluster_id(options_.cluster_id);
    header->set_epoch(options_.epoch);
    header->set_boot_id(options_.boot_id);
  }

  PeerOptions options_;
  std::unique_ptr<wire::Stage::Stub> stub_;
  grpc::ClientContext context_;
  wire::EdgeOpened reply_;
  bool started_ = false;
  std::mutex mutex_;
  std::condition_variable done_changed_;
  std::deque<std::unique_ptr<wire::StepMessage>> queue_;  // the first is being written
  bool released_ = false;                                 // no write may start any more
  bool closing_ = false;
  bool done_ = false;
};

class StageService : public wire::Stage::Service {
 public:
  StageService(std::string cluster_id, StepReceiver* receiver)
      : cluster_id_(std::move(cluster_id)), receiver_(receiver) {}

  grpc::Status Open(grpc::ServerContext* context, const wire::EdgeHeader* header,
                    wire::EdgeOpened* /*opened*/) override {
    const absl::StatusOr<EdgeSender> sender = SenderOf(*context, *header);
    return GrpcStatusOf(sender.ok() ? receiver_->CheckSender(*sender) : sender.status());
  }

  grpc::Status Steps(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<wire::EdgeOpened, wire::StepMessage>* stream) override {
    EdgeSender sender;
    absl::Status status;
    auto message = std::make_unique<wire::StepMessage>();
    while (status.ok() && stream->Read(message.get())) {
      status = TakeMessage(*context, message.get(), &sender);
    }
    if (!sender.node_id.empty()) receiver_->OnEdgeEnd(sender, status);
    return GrpcStatusOf(status);
  }

 private:
  absl::Status TakeMessage(const grpc::ServerContext& context, wire::StepMessage* message,
                           EdgeSender* sender) {
    NG_ASSIGN_OR_RETURN(const EdgeSender named, SenderOf(context, message->header()));
    *sender = named;
    NG_ASSIGN_OR_RETURN(Step step, FromMessage(message));
    return receiver_->TakeStep(*sender, std::move(step));
  }

  absl::StatusOr<EdgeSender> SenderOf(const grpc::ServerContext& context,
                                      const wire::EdgeHeader& header) const {
    NG_ASSIGN_OR_RETURN(const PeerIdentity peer, PeerOf(context));
    if (header.cluster_id() != cluster_id_) {
      return absl::PermissionDeniedError("header.cluster_id names another cluster");
    }
    return EdgeSender{.node_id = peer.node_id,
                      .role = peer.role,
                      .epoch = header.epoch(),
                      .boot_id = header.boot_id()};
  }

  std::string cluster_id_;
  StepReceiver* receiver_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Peer>> OpenPeer(PeerOptions options) {
  std::shared_ptr<grpc::Channel> channel =
      DialNode(options.host, options.port, options.node_id, options.identity);
  auto peer = std::make_unique<GrpcPeer>(std::move(options), std::move(channel));
  NG_RETURN_IF_ERROR(peer->Open());
  return peer;
}

std::unique_ptr<grpc::Service> MakeStageService(const std::string& cluster_id,
                                                StepReceiver* receiver) {
  return std::make_unique<StageService>(cluster_id, receiver);
}

}  // namespace neurogrid
