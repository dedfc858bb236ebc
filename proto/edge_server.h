// The receiving ends of edges: one thread each, from the handshake to the last step.
#pragma once

#include <atomic>
#include <list>
#include <mutex>
#include <string>
#include <thread>

#include "common/identity.h"
#include "common/polling.h"
#include "proto/peer.h"

namespace neurogrid {

class EdgeStream;

class EdgeServer {
 public:
  struct Options {
    std::string cluster_id;
    Identity identity;
  };
  /// Feeds `receiver`, which must outlive this.
  EdgeServer(Options options, StepReceiver* receiver)
      : options_(std::move(options)), receiver_(receiver) {}
  /// Ends every edge and waits for it.
  ~EdgeServer();

  /// Takes a socket whose preamble is there, unread. One thread.
  void Serve(int socket);

 private:
  struct Edge {
    int socket = -1;  // -1: closed
    bool expected = false;
    bool ended = false;  // by us: it made room
    std::thread thread;
  };
  void EndOldest(bool expected, size_t most);
  void Forget();
  void Run(Edge* edge, int socket);
  absl::Status RunEdge(Edge* edge, EdgeStream& stream);
  absl::Status TakeSteps(EdgeStream& stream, const EdgeSender& sender);
  absl::Status TakeFrame(absl::string_view frame, const EdgeSender& sender);

  Options options_;
  StepReceiver* receiver_;
  std::mutex mutex_;
  std::list<Edge> edges_;
};

}  // namespace neurogrid
