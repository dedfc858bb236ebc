// Enrolment: a join token buys a certificate. The joiner checks the cluster's authority against the
// token before it sends the token's secret; its private key never leaves it.
//
// On the wire: the preamble in the clear, so that the coordinator's port can tell a joiner from a
// member before any TLS; then TLS 1.3; then length-prefixed fields, one request and one reply.
#pragma once

#include <functional>
#include <string>

#include "absl/strings/string_view.h"
#include "common/identity.h"
#include "common/status.h"

namespace neurogrid {

inline constexpr absl::string_view kEnrollPreamble = "NGJOIN1\n";

/// `ng1.<authority digest>.<id>.<secret>`, all hex.
struct JoinToken {
  std::string authority_digest;  // 64 digits: SHA-256 of the authority's certificate
  std::string id;                // 16 digits
  std::string secret;            // 64 digits

  std::string ToString() const;
};

/// InvalidArgument without repeating the text: it is a secret.
absl::StatusOr<JoinToken> ParseJoinToken(absl::string_view text);

struct EnrollRequest {
  std::string token_id;
  std::string secret;
  std::string name;     // wanted node id
  std::string request;  // PEM signing request
};

/// Gives the PEM certificate, or the reason why not.
using EnrollDecision = std::function<absl::StatusOr<std::string>(const EnrollRequest&)>;

/// Serves one joiner on a connected socket that has already sent the preamble's bytes (they are
/// still unread). Closes the socket. Takes at most 10 s.
void ServeEnrollment(int socket, const Identity& own, const EnrollDecision& decide);

/// Joins as `name`. Unauthenticated when the coordinator is not the one the token names (nothing
/// secret has been sent then); PermissionDenied with the coordinator's reason when it refuses.
absl::StatusOr<Identity> Enroll(const std::string& host, int port, const JoinToken& token,
                                const std::string& name);

/// Says in a sentence why a TLS connection with `identity` to a coordinator fails; OK when it
/// works.
absl::Status ProbeCoordinator(const std::string& host, int port, const Identity& identity);

/// "host:port" with a port in [1, 65535]; IPv6 addresses stand in brackets.
absl::Status ParseAddress(absl::string_view text, std::string* host, int* port);

}  // namespace neurogrid
