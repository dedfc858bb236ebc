// Join tokens of this cluster: minted by `neurogrid-coordinator token`, spent by a joining worker.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "common/enroll.h"
#include "common/status.h"

namespace neurogrid {

inline constexpr absl::Duration kJoinTokenLife = absl::Hours(24);

/// A file of (id, SHA-256 of the secret, end, uses left), shared by the processes of one state
/// directory under a file lock. No secret is stored.
class JoinTokens {
 public:
  explicit JoinTokens(const std::string& state_dir) : path_(state_dir + "/join_tokens") {}

  /// Writes a new token for `uses` joins until now + life. `authority`: the cluster's certificate.
  absl::StatusOr<JoinToken> Mint(const std::string& authority, absl::Time now, int uses = 1,
                                 absl::Duration life = kJoinTokenLife) const;
  /// Takes one use. PermissionDenied, without a hint which part was wrong, when there is none.
  absl::Status Redeem(absl::string_view id, absl::string_view secret, absl::Time now) const;

 private:
  struct Entry {
    std::string secret_digest;
    absl::Time end;
    int uses = 0;
  };
  using Entries = std::map<std::string, Entry>;
  absl::StatusOr<Entries> Read(absl::Time now) const;
  absl::Status Write(const Entries& entries) const;

  std::string path_;
};

/// At most five failed attempts a minute from one address, so that tokens cannot be tried out.
class JoinAttempts {
 public:
  bool Allowed(const std::string& address, absl::Time now);
  void AddFailure(const std::string& address, absl::Time now);

 private:
  std::map<std::string, std::pair<absl::Time, int>> by_address_;  // start of the minute, failures
};

}  // namespace neurogrid
