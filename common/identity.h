// Who is who in a cluster: the cluster's own authority and the certificates it issues (security.md
// 1).
#pragma once

#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/digest.h"
#include "common/status.h"

namespace neurogrid {

enum class Role { kCoordinator, kWorker };
absl::string_view NameOf(Role role);

/// The node id in the coordinator's own certificate, and of a stage inside its process.
inline constexpr absl::string_view kCoordinatorNode = "coordinator";
inline constexpr absl::string_view kLocalNode = "local";

/// How long an issued certificate is good for.
inline constexpr absl::Duration kCertificateLife = absl::Hours(24 * 365);

/// What a node shows and checks in TLS. All PEM; `certificate` carries the authority's after its
/// own.
struct Identity {
  std::string authority;
  std::string certificate;
  std::string key;
};

/// The cluster's certificate authority: whoever holds its key decides who is a member.
struct Authority {
  std::string certificate;
  std::string key;
};

struct CertificateFacts {
  std::string node_id;
  Role role = Role::kWorker;
  absl::Time not_before;
  absl::Time not_after;
};

/// Node ids are lower-case letters, digits, '-' and '.', at most 64, starting with a letter or
/// digit.
absl::Status CheckNodeId(absl::string_view id);

/// A fresh EC P-256 authority.
absl::StatusOr<Authority> CreateAuthority();
/// Reads the authority in `state_dir`, or makes it on first use (key 0600).
absl::StatusOr<Authority> OpenAuthority(const std::string& state_dir);

/// A fresh EC P-256 key.
absl::StatusOr<std::string> CreateKey();
/// A signing request for the key; only its public key is read by SignRequest.
absl::StatusOr<std::string> CreateRequest(const std::string& key);
/// Issues a certificate: SAN DNS = node id, SAN URI = "ng:role:<role>". InvalidArgument for a
/// request that is broken or not signed by its own key.
absl::StatusOr<std::string> SignRequest(const Authority& authority, const std::string& request,
                                        absl::string_view node_id, Role role,
                                        absl::Duration life = kCertificateLife);
/// Key, request and certificate in one go, for nodes within the coordinator's process.
absl::StatusOr<Identity> IssueIdentity(const Authority& authority, absl::string_view node_id,
                                       Role role, absl::Duration life = kCertificateLife);

/// Facts of the first certificate in `pem`. Checks no signature.
absl::StatusOr<CertificateFacts> ReadCertificate(const std::string& pem);
/// SHA-256 of the certificate's DER form.
absl::StatusOr<Sha256Digest> DigestOfCertificate(const std::string& pem);
/// 16 bytes: the first half of the digest of the authority's certificate.
absl::StatusOr<std::string> ClusterIdOf(const std::string& authority_certificate);

/// Checks that `pem` (leaf first) was issued by `authority` and is in force.
absl::Status CheckIssuedBy(const std::string& pem, const std::string& authority);

/// Writes to and reads from `state_dir`. NotFound when there is none.
absl::Status SaveIdentity(const std::string& state_dir, const Identity& identity);
absl::StatusOr<Identity> LoadIdentity(const std::string& state_dir);

/// `count` bytes of the system's randomness.
std::string RandomBytes(size_t count);

}  // namespace neurogrid
