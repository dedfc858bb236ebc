#include "proto/transport.h"

#include <grpc/support/log.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/channel_arguments.h>

#include <mutex>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "common/log.h"
#include "proto/keepalive.h"
#include "proto/wire.h"

namespace neurogrid {
namespace {

/// "ipv4:10.0.0.7:5123" or "ipv6:%5B::1%5D:5123" without its scheme, brackets and port.
std::string HostOf(const std::string& peer) {
  std::string text = absl::StrReplaceAll(peer, {{"%5B", "["}, {"%5D", "]"}, {"%25", "%"}});
  const size_t scheme = text.find(':');
  const size_t port = text.rfind(':');
  if (scheme == std::string::npos || port <= scheme) return "";
  text = text.substr(scheme + 1, port - scheme - 1);
  if (text.size() >= 2 && text.front() == '[') text = text.substr(1, text.size() - 2);
  return text;
}

std::vector<std::string> Properties(const grpc::ServerContext& context, const char* name) {
  std::vector<std::string> values;
  for (const grpc::string_ref& value : context.auth_context()->FindPropertyValues(name)) {
    values.emplace_back(value.data(), value.size());
  }
  return values;
}

}  // namespace

absl::StatusOr<PeerIdentity> PeerOf(const grpc::ServerContext& context) {
  const std::vector<std::string> names = Properties(context, GRPC_PEER_DNS_PROPERTY_NAME);
  const std::vector<std::string> roles = Properties(context, GRPC_PEER_URI_PROPERTY_NAME);
  if (!context.auth_context()->IsPeerAuthenticated() || names.size() != 1 || roles.size() != 1 ||
      !CheckNodeId(names[0]).ok()) {
    return absl::UnauthenticatedError("the certificate names no node of this cluster");
  }
  for (const Role role : {Role::kCoordinator, Role::kWorker}) {
    if (roles[0] == absl::StrCat("ng:role:", NameOf(role))) {
      return PeerIdentity{.node_id = names[0], .role = role, .host = HostOf(context.peer())};
    }
  }
  return absl::UnauthenticatedError("the certificate names no role of this cluster");
}

std::shared_ptr<grpc::Channel> DialNode(const std::string& host, int port,
                                        const std::string& node_id, const Identity& identity) {
  TakeGrpcLog();
  grpc::SslCredentialsOptions tls;
  tls.pem_root_certs = identity.authority;
  tls.pem_cert_chain = identity.certificate;
  tls.pem_private_key = identity.key;
  grpc::ChannelArguments arguments;
  arguments.SetSslTargetNameOverride(node_id);
  arguments.SetMaxReceiveMessageSize(kControlBytesMax);
  arguments.SetMaxSendMessageSize(kDataBytesMax);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  arguments.SetInt(GRPC_ARG_MAX_METADATA_SIZE, kMetadataBytesMax);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kKeepaliveMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kKeepaliveTimeoutMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_STREAM_LOOKAHEAD_BYTES, kWindowBytes);
  const bool v6 = absl::StrContains(host, ':');
  return grpc::CreateCustomChannel(absl::StrCat(v6 ? "[" : "", host, v6 ? "]:" : ":", port),
                                   grpc::SslCredentials(tls), arguments);
}

void TakeGrpcLog() {
  static std::once_flag once;
  std::call_once(once, [] {
    gpr_set_log_function([](gpr_log_func_args* line) { LogDebug("gRPC: ", line->message); });
  });
}

absl::Status StatusOf(const grpc::Status& status) {
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()), status.error_message());
}

grpc::Status GrpcStatusOf(const absl::Status& status) {
  return grpc::Status(static_cast<grpc::StatusCode>(status.raw_code()),
                      std::string(status.message()));
}

}  // namespace neurogrid
