#include "proto/edge_server.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/log.h"
#include "proto/edge_stream.h"
#include "proto/keepalive.h"
#include "proto/stage.pb.h"
#include "proto/wire.h"

namespace neurogrid {
namespace {

constexpr auto kLastWordTime = std::chrono::seconds(1);

TlsStream::Time In(std::chrono::milliseconds time) {
  return std::chrono::steady_clock::now() + time;
}

std::string StatusFrame(const absl::Status& status) {
  wire::EdgeStatus message;
  message.set_code(static_cast<uint32_t>(status.raw_code()));
  message.set_message(std::string(status.message().substr(0, kWireStringBytesMax)));
  return message.SerializeAsString();
}

}  // namespace

EdgeServer::~EdgeServer() {
  {
    const std::lock_guard lock(mutex_);
    for (const Edge& edge : edges_) {
      if (edge.socket >= 0) shutdown(edge.socket, SHUT_RDWR);  // whoever waits on it wakes up
    }
  }
  for (Edge& edge : edges_) edge.thread.join();
}

void EdgeServer::Serve(int socket) {
  Forget();
  Edge* edge = nullptr;
  {
    const std::lock_guard lock(mutex_);
    EndOldest(/*expected=*/false, kStrangersMax);
    edge = &edges_.emplace_back();
    edge->socket = socket;
  }
  edge->thread = std::thread([this, edge, socket] { Run(edge, socket); });
}

/// Makes room for one more: a member needs a moment to be known, so whoever has taken longest goes.
void EdgeServer::EndOldest(bool expected, size_t most) {
  const auto counts = [expected](const Edge& edge) {
    return edge.expected == expected && !edge.ended && edge.socket >= 0;
  };
  if (static_cast<size_t>(std::count_if(edges_.begin(), edges_.end(), counts)) < most) return;
  Edge& oldest = *std::find_if(edges_.begin(), edges_.end(), counts);
  oldest.ended = true;
  shutdown(oldest.socket, SHUT_RDWR);
}

/// Joins the threads of edges that are over.
void EdgeServer::Forget() {
  std::list<Edge> over;
  {
    const std::lock_guard lock(mutex_);
    for (auto at = edges_.begin(); at != edges_.end();) {
      const auto edge = at++;
      if (edge->socket < 0) over.splice(over.end(), edges_, edge);
    }
  }
  for (Edge& edge : over) edge.thread.join();
}

void EdgeServer::Run(Edge* edge, int socket) {
  {
    const absl::StatusOr<std::unique_ptr<EdgeStream>> stream =
        EdgeStream::Accept(socket, options_.identity, In(std::chrono::milliseconds(kHandshakeMs)));
    const absl::Status status = stream.ok() ? RunEdge(edge, **stream) : stream.status();
    if (!status.ok()) LogDebug("an edge ended: ", status.message());
  }
  const std::lock_guard lock(mutex_);
  close(socket);
  edge->socket = -1;
}

absl::Status EdgeServer::RunEdge(Edge* edge, EdgeStream& stream) {
  NG_ASSIGN_OR_RETURN(const absl::string_view frame,
                      stream.Read(kMetadataBytesMax, In(std::chrono::milliseconds(kHandshakeMs))));
  wire::EdgeHeader header;
  if (!header.ParseFromArray(frame.data(), static_cast<int>(frame.size()))) {
    return absl::InvalidArgumentError("an edge's header is no EdgeHeader");
  }
  const EdgeSender sender{.node_id = stream.peer().node_id,
                          .role = stream.peer().role,
                          .epoch = header.epoch(),
                          .boot_id = header.boot_id()};
  absl::Status status =
      header.cluster_id() == options_.cluster_id
          ? receiver_->CheckSender(sender)
          : absl::PermissionDeniedError("header.cluster_id names another cluster");
  NG_RETURN_IF_ERROR(stream.Write(StatusFrame(status), In(kLastWordTime)));
  NG_RETURN_IF_ERROR(status);
  {
    const std::lock_guard lock(mutex_);
    EndOldest(/*expected=*/true, kEdgesMax);
    edge->expected = true;
  }
  status = TakeSteps(stream, sender);
  receiver_->OnEdgeEnd(sender, status);
  if (!status.ok()) NG_RETURN_IF_ERROR(stream.Write(StatusFrame(status), In(kLastWordTime)));
  stream.Close();
  return status;
}

absl::Status EdgeServer::TakeSteps(EdgeStream& stream, const EdgeSender& sender) {
  Polling polling(false);
  absl::StatusOr<std::optional<absl::string_view>> frame;
  const auto ready = [&] {
    frame = stream.TryRead(kDataBytesMax);
    return !frame.ok() || frame->has_value();
  };
  while (true) {
    if (!ready()) {
      polling.Allow(receiver_->polls());
      polling.Wait(ready, [&] {
        pollfd polled = {.fd = stream.socket(), .events = POLLIN, .revents = 0};
        poll(&polled, 1, -1);
      });
    }
    // Whoever closes an edge has no complaint; the plan says whether that is the end of an epoch.
    if (!frame.ok()) return stream.closed() ? absl::OkStatus() : frame.status();
    if (frame->has_value()) NG_RETURN_IF_ERROR(TakeFrame(**frame, sender));
  }
}

absl::Status EdgeServer::TakeFrame(absl::string_view frame, const EdgeSender& sender) {
  wire::StepMessage message;
  if (!message.ParseFromArray(frame.data(), static_cast<int>(frame.size()))) {
    return absl::InvalidArgumentError("a step is no StepMessage");
  }
  if (message.header().cluster_id() != options_.cluster_id) {
    return absl::PermissionDeniedError("header.cluster_id names another cluster");
  }
  EdgeSender named = sender;
  named.epoch = message.header().epoch();
  named.boot_id = message.header().boot_id();
  NG_ASSIGN_OR_RETURN(Step step, FromMessage(&message));
  return receiver_->TakeStep(named, std::move(step));
}

}  // namespace neurogrid
