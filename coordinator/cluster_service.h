// The Join service: turns what workers say into events, checked, and sends them what is decided.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "common/status.h"
#include "coordinator/cluster_state.h"
#include "proto/cluster.grpc.pb.h"
#include "proto/wire.h"

namespace neurogrid {

/// A report in bounds, or InvalidArgument naming the figure that is not.
absl::StatusOr<NodeReport> ReadReport(const wire::Report& report, const std::string& host);

class ClusterService : public wire::Cluster::Service {
 public:
  struct Options {
    std::string cluster_id;
    ClusterTimes times;
    std::function<uint64_t()> epoch;         // highest in use
    std::function<void(ClusterEvent)> post;  // quick; any thread
    bool beyond_loopback = false;            // the port is open to other machines
  };
  explicit ClusterService(Options options) : options_(std::move(options)) {}

  grpc::Status Join(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<wire::FromCoordinator, wire::FromWorker>* stream) override;

  /// Queues a message; never blocks. A worker that takes nothing is disconnected.
  void Send(ConnectionId connection, wire::FromCoordinator message);
  /// Says goodbye and ends the connection; `for_good`: refuses, so that the worker gives up.
  void Close(ConnectionId connection, const std::string& reason, bool for_good = false);
  /// Closes all and waits until they have ended, a second at most.
  void CloseAll(const std::string& reason);

 private:
  using Stream = grpc::ServerReaderWriter<wire::FromCoordinator, wire::FromWorker>;

  /// A connection's outgoing messages; a thread of its own writes them.
  struct Connection {
    grpc::ServerContext* context = nullptr;
    std::deque<wire::FromCoordinator> outgoing;
    bool closing = false;
    bool over = false;
    std::condition_variable changed;
  };

  grpc::Status Serve(ConnectionId id, const std::string& node, const std::string& host,
                     Connection* connection, Stream* stream, std::string* farewell);
  absl::Status Greet(const wire::FromWorker& message, Connection* connection,
                     wire::Hello* greeting);
  absl::Status Take(ConnectionId id, const wire::FromWorker& message, const std::string& host,
                    const wire::Hello& hello);
  absl::Status TakeReady(ConnectionId id, const wire::Ready& ready);
  void Write(Connection* connection, Stream* stream);

  Options options_;
  std::atomic<ConnectionId> last_id_ = kPipelineConnection;
  std::mutex mutex_;
  std::condition_variable ended_;  // a connection is gone
  std::map<ConnectionId, std::unique_ptr<Connection>> connections_;
};

}  // namespace neurogrid
