// API keys: who may call, and what. Secrets are kept as digests and compared in constant time.
#pragma once

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "common/digest.h"
#include "common/status.h"

namespace neurogrid {

/// What a route asks of its caller. kOpen asks nothing; an admin key passes everywhere.
enum class Scope : unsigned { kOpen = 0, kInfer = 1, kRead = 2, kAdmin = 4 };

struct ApiKey {
  std::string id;
  Sha256Digest secret_digest = {};
  unsigned scopes = 0;  // of Scope
  bool named = false;   // shown as ng-ID-SECRET
  bool Allows(Scope scope) const {
    return scope == Scope::kOpen || (scopes & static_cast<unsigned>(Scope::kAdmin)) != 0 ||
           (scopes & static_cast<unsigned>(scope)) != 0;
  }
};

class ApiKeys {
 public:
  /// One key a line, optionally followed by a blank and its scopes (infer,read by default):
  ///   SECRET                        any text of at least 16 characters; its id is key-1, key-2,
  ///   ... ng-ID-SECRET                  ID is letters and digits ng-ID-sha256:HEX              the
  ///   digest of SECRET; clients send ng-ID-SECRET
  /// Errors name the line by number, never its text.
  static absl::StatusOr<ApiKeys> Parse(const std::vector<std::string>& lines);

  bool empty() const { return keys_.empty(); }

  /// The key that was shown, or null. Takes the same time for every wrong key of one form.
  const ApiKey* Find(absl::string_view shown) const;

 private:
  std::vector<ApiKey> keys_;
};

/// Refuses to listen where strangers reach an API that nobody guards: a non-loopback host without
/// keys, or any origin allowed beside keys. The message says the two ways out.
absl::Status CheckExposure(const std::string& http_host, const std::vector<std::string>& api_keys,
                           const std::vector<std::string>& cors_origins);

}  // namespace neurogrid
