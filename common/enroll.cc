#include "common/enroll.h"

#include <sys/socket.h>

#include <array>
#include <chrono>
#include <memory>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/types/span.h"
#include "common/log.h"
#include "common/tls_stream.h"

namespace neurogrid {
namespace {

constexpr size_t kFieldBytesMax = 16384;
constexpr auto kHandshakeTime = std::chrono::seconds(5);
constexpr auto kWholeTime = std::chrono::seconds(10);

TlsStream::Time In(std::chrono::steady_clock::duration time) {
  return std::chrono::steady_clock::now() + time;
}

absl::Status WriteFields(TlsStream& stream, absl::Span<const std::string> fields,
                         TlsStream::Time deadline) {
  std::string out;
  for (const std::string& field : fields) {
    const auto size = static_cast<uint32_t>(field.size());
    for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(size >> shift & 0xFF);
    out += field;
  }
  return stream.Write(out, deadline);
}

/// All share one deadline, so that a peer that sends a byte every few seconds does not hold us.
absl::StatusOr<std::vector<std::string>> ReadFields(TlsStream& stream, size_t count,
                                                    TlsStream::Time deadline) {
  std::vector<std::string> fields;
  while (fields.size() < count) {
    std::array<char, 4> prefix = {};
    NG_RETURN_IF_ERROR(stream.Read(prefix.data(), prefix.size(), deadline));
    size_t size = 0;
    for (const char c : prefix) size = size << 8 | static_cast<uint8_t>(c);
    if (size > kFieldBytesMax) return absl::InvalidArgumentError("enrolment: a field is too long");
    std::string field(size, '\0');
    NG_RETURN_IF_ERROR(stream.Read(field.data(), size, deadline));
    fields.push_back(std::move(field));
  }
  return fields;
}

bool IsHex(absl::string_view text, size_t size) {
  bool good = text.size() == size;
  for (const char c : text) good = good && ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'));
  return good;
}

/// The authority's certificate among those the server showed, or empty.
std::string FindAuthority(const std::vector<std::string>& chain, const std::string& digest) {
  for (const std::string& pem : chain) {
    const absl::StatusOr<Sha256Digest> found = DigestOfCertificate(pem);
    if (found.ok() && HexOf(*found) == digest) return pem;
  }
  return "";
}

absl::Status CheckCoordinator(const std::vector<std::string>& chain, const std::string& authority) {
  if (chain.empty()) return absl::UnauthenticatedError("the server showed no certificate");
  NG_RETURN_IF_ERROR(CheckIssuedBy(chain.front(), authority));
  NG_ASSIGN_OR_RETURN(const CertificateFacts facts, ReadCertificate(chain.front()));
  if (facts.role == Role::kCoordinator) return absl::OkStatus();
  return absl::UnauthenticatedError(
      "the server is a member of the cluster but not its coordinator");
}

absl::Status ServeOne(int socket, const Identity& own, const EnrollDecision& decide) {
  const TlsStream::Time deadline = In(kWholeTime);
  std::array<char, kEnrollPreamble.size()> preamble = {};
  if (recv(socket, preamble.data(), preamble.size(), MSG_DONTWAIT) !=
          static_cast<ssize_t>(preamble.size()) ||
      absl::string_view(preamble.data(), preamble.size()) != kEnrollPreamble) {
    return absl::InvalidArgumentError("not an enrolment of this version");
  }
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<TlsStream> stream,
                      TlsStream::Open(socket, {.server = true, .identity = &own, .node_id = ""},
                                      In(kHandshakeTime)));
  NG_ASSIGN_OR_RETURN(const std::vector<std::string> fields, ReadFields(*stream, 4, deadline));
  const absl::StatusOr<std::string> decided =
      decide({.token_id = fields[0], .secret = fields[1], .name = fields[2], .request = fields[3]});
  const std::string reason =
      decided.ok() ? "" : std::string(decided.status().message().substr(0, 256));
  const absl::Status sent = WriteFields(
      *stream, {reason.empty() && !decided.ok() ? "refused" : reason, decided.ok() ? *decided : ""},
      deadline);
  stream->Close();
  return decided.ok() ? sent : decided.status();
}

}  // namespace

std::string JoinToken::ToString() const {
  return absl::StrCat("ng1.", authority_digest, ".", id, ".", secret);
}

absl::StatusOr<JoinToken> ParseJoinToken(absl::string_view text) {
  const std::vector<std::string> parts = absl::StrSplit(text, '.');
  if (parts.size() != 4 || parts[0] != "ng1" || !IsHex(parts[1], 64) || !IsHex(parts[2], 16) ||
      !IsHex(parts[3], 64)) {
    return absl::InvalidArgumentError(
        "the join token is not of the form ng1.<digest>.<id>.<secret>; "
        "neurogrid-coordinator token prints one");
  }
  return JoinToken{parts[1], parts[2], parts[3]};
}

absl::Status ParseAddress(absl::string_view text, std::string* host, int* port) {
  const size_t colon = text.rfind(':');
  absl::string_view name = text.substr(0, colon);
  if (name.size() >= 2 && name.front() == '[' && name.back() == ']') {
    name = name.substr(1, name.size() - 2);
  } else if (name.find(':') != absl::string_view::npos) {
    name = "";  // an IPv6 address without brackets: where the port begins is a guess
  }
  if (colon == absl::string_view::npos || name.empty() ||
      !absl::SimpleAtoi(text.substr(colon + 1), port) || *port < 1 || *port > 65535) {
    return absl::InvalidArgumentError(
        absl::StrCat("\"", text.substr(0, 256), "\" is not HOST:PORT with a port from 1 to 65535"));
  }
  *host = std::string(name);
  return absl::OkStatus();
}

void ServeEnrollment(int socket, const Identity& own, const EnrollDecision& decide) {
  const Socket owned(socket);
  const absl::Status status = ServeOne(socket, own, decide);
  if (!status.ok()) LogWarning("enrolment refused: ", status.message());
}

absl::StatusOr<Identity> Enroll(const std::string& host, int port, const JoinToken& token,
                                const std::string& name) {
  NG_RETURN_IF_ERROR(CheckNodeId(name));
  const TlsStream::Time deadline = In(kWholeTime);
  NG_ASSIGN_OR_RETURN(const Socket socket, ConnectTcp(host, port));
  if (send(socket.get(), kEnrollPreamble.data(), kEnrollPreamble.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(kEnrollPreamble.size())) {
    return absl::UnavailableError(absl::StrCat(host, ":", port, ": closed the connection"));
  }
  const absl::StatusOr<std::unique_ptr<TlsStream>> opened =
      TlsStream::Open(socket.get(), TlsOptions(), In(kHandshakeTime));
  if (!opened.ok()) {
    return absl::UnavailableError(absl::StrCat(host, ":", port,
                                               " does not answer like a NeuroGrid coordinator (",
                                               opened.status().message(), ")"));
  }
  TlsStream& stream = **opened;
  const std::vector<std::string> chain = stream.PeerChain();
  Identity identity;
  identity.authority = FindAuthority(chain, token.authority_digest);
  if (identity.authority.empty()) {
    return absl::UnauthenticatedError(
        absl::StrCat("the coordinator at ", host, ":", port,
                     " belongs to another cluster than the token; its secret was not sent"));
  }
  if (const absl::Status status = CheckCoordinator(chain, identity.authority); !status.ok()) {
    return absl::UnauthenticatedError(
        absl::StrCat(host, ":", port, ": ", status.message(), "; the token's secret was not sent"));
  }
  NG_ASSIGN_OR_RETURN(identity.key, CreateKey());
  NG_ASSIGN_OR_RETURN(const std::string request, CreateRequest(identity.key));
  NG_RETURN_IF_ERROR(WriteFields(stream, {token.id, token.secret, name, request}, deadline));
  NG_ASSIGN_OR_RETURN(const std::vector<std::string> reply, ReadFields(stream, 2, deadline));
  stream.Close();
  if (!reply[0].empty()) {
    return absl::PermissionDeniedError(absl::StrCat("the coordinator refused: ", reply[0]));
  }
  NG_RETURN_IF_ERROR(CheckIssuedBy(reply[1], identity.authority));
  identity.certificate = reply[1] + identity.authority;
  return identity;
}

absl::Status ProbeCoordinator(const std::string& host, int port, const Identity& identity) {
  NG_ASSIGN_OR_RETURN(const Socket socket, ConnectTcp(host, port));
  const absl::StatusOr<std::unique_ptr<TlsStream>> stream =
      TlsStream::Open(socket.get(), {.identity = &identity, .node_id = "", .offers_http2 = true},
                      In(kHandshakeTime));
  if (!stream.ok()) {
    return absl::UnavailableError(absl::StrCat(host, ":", port, ": ", stream.status().message()));
  }
  const absl::Status status = CheckCoordinator((*stream)->PeerChain(), identity.authority);
  if (status.ok()) return status;
  return absl::UnauthenticatedError(absl::StrCat("the coordinator at ", host, ":", port,
                                                 " is not the one this worker joined (",
                                                 status.message(), "); join again with a token"));
}

}  // namespace neurogrid
