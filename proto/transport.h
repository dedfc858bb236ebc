// gRPC as this project uses it: mutual TLS always, limits and keepalive of cluster.md 4 on both
// sides.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "common/identity.h"
#include "common/status.h"

namespace grpc {
class Channel;
class Service;
class ServerContext;
class Status;
}  // namespace grpc

namespace neurogrid {

class StepReceiver;

/// Who is at the other end, as its certificate says.
struct PeerIdentity {
  std::string node_id;
  Role role = Role::kWorker;
  std::string host;  // its address as seen from here
};

/// Unauthenticated for a certificate that names no node or role.
absl::StatusOr<PeerIdentity> PeerOf(const grpc::ServerContext& context);

/// A channel of its own connection to a node that must show a certificate for `node_id`. Dials on
/// first use.
std::shared_ptr<grpc::Channel> DialNode(const std::string& host, int port,
                                        const std::string& node_id, const Identity& identity);

/// gRPC's own lines go to our log, at debug level: what matters of them we say ourselves.
void TakeGrpcLog();

absl::Status StatusOf(const grpc::Status& status);
grpc::Status GrpcStatusOf(const absl::Status& status);

/// As a host to listen on: every address of this machine, of both families where it has both.
inline constexpr char kAnyHost[] = "*";

/// A listening socket of ours in front of a gRPC server. Strangers get one TLS handshake: whatever
/// does not begin like TLS is closed, floods are cut by address, and descriptors are never used up.
///
/// A TLS hello goes to gRPC; the preambles of enrolment and of an edge go their own ways.
class NodePort {
 public:
  struct Options {
    std::string host;  // or kAnyHost
    int port = 0;      // 0: any free one
    Identity identity;
    std::vector<grpc::Service*> services;  // must outlive the port; none: no gRPC
    StepReceiver* steps = nullptr;         // as well; null: edges are refused
    /// Takes a socket of a joiner (see common/enroll.h) and closes it; null: joiners are refused.
    std::function<void(int socket, const std::string& address)> enroll;
  };
  /// Unavailable naming address and reason, such as a port in use.
  static absl::StatusOr<std::unique_ptr<NodePort>> Open(Options options);
  /// Ends every call and waits for them.
  virtual ~NodePort() = default;
  virtual int port() const = 0;
};

}  // namespace neurogrid
