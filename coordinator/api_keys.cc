#include "coordinator/api_keys.h"

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "common/loopback.h"

namespace neurogrid {
namespace {

constexpr size_t kSecretCharsMin = 16;

/// "ng-ID-REST" into its parts.
bool SplitNamedKey(absl::string_view text, absl::string_view* id, absl::string_view* rest) {
  if (!absl::ConsumePrefix(&text, "ng-")) return false;
  const size_t dash = text.find('-');
  if (dash == absl::string_view::npos || dash == 0) return false;
  *id = text.substr(0, dash);
  *rest = text.substr(dash + 1);
  return std::all_of(id->begin(), id->end(), absl::ascii_isalnum);
}

absl::StatusOr<unsigned> ParseScopes(absl::string_view text) {
  unsigned scopes = 0;
  for (const absl::string_view word : absl::StrSplit(text, ',')) {
    if (word == "infer") {
      scopes |= static_cast<unsigned>(Scope::kInfer);
    } else if (word == "read") {
      scopes |= static_cast<unsigned>(Scope::kRead);
    } else if (word == "admin") {
      scopes |= static_cast<unsigned>(Scope::kAdmin);
    } else {
      return absl::InvalidArgumentError("has a scope that is none of infer, read, admin");
    }
  }
  return scopes;
}

absl::StatusOr<ApiKey> ParseKey(absl::string_view line, size_t number) {
  ApiKey key = {
      .id = absl::StrCat("key-", number),
      .scopes = static_cast<unsigned>(Scope::kInfer) | static_cast<unsigned>(Scope::kRead)};
  line = absl::StripAsciiWhitespace(line);
  if (const size_t blank = line.find_first_of(" \t"); blank != absl::string_view::npos) {
    NG_ASSIGN_OR_RETURN(key.scopes, ParseScopes(absl::StripAsciiWhitespace(line.substr(blank))));
    line = line.substr(0, blank);
  }
  absl::string_view secret = line;
  if (absl::string_view id; SplitNamedKey(line, &id, &secret)) {
    key.id = std::string(id);
    key.named = true;
    if (absl::ConsumePrefix(&secret, "sha256:")) {
      const bool hex =
          secret.size() == 64 && std::all_of(secret.begin(), secret.end(), absl::ascii_isxdigit);
      if (!hex) return absl::InvalidArgumentError("has no 64 hex digits after sha256:");
      const std::string digest = absl::HexStringToBytes(secret);
      std::copy(digest.begin(), digest.end(), key.secret_digest.begin());
      return key;
    }
  } else {
    secret = line;
  }
  if (secret.size() < kSecretCharsMin) {
    return absl::InvalidArgumentError(
        absl::StrCat("is shorter than ", kSecretCharsMin, " characters"));
  }
  key.secret_digest = Sha256Of(secret);
  return key;
}

}  // namespace

absl::StatusOr<ApiKeys> ApiKeys::Parse(const std::vector<std::string>& lines) {
  ApiKeys keys;
  for (size_t i = 0; i < lines.size(); ++i) {
    absl::StatusOr<ApiKey> key = ParseKey(lines[i], i + 1);
    if (!key.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("api_keys: key ", i + 1, " ", key.status().message()));
    }
    for (const ApiKey& other : keys.keys_) {
      if (other.id == key->id) {
        return absl::InvalidArgumentError(
            absl::StrCat("api_keys: key ", i + 1, " has the id of an earlier key"));
      }
    }
    keys.keys_.push_back(*std::move(key));
  }
  return keys;
}

const ApiKey* ApiKeys::Find(absl::string_view shown) const {
  absl::string_view id;
  absl::string_view secret = shown;
  const bool named = SplitNamedKey(shown, &id, &secret);
  const Sha256Digest whole = Sha256Of(shown);
  const Sha256Digest part = Sha256Of(named ? secret : shown);
  // Every key is compared whatever was found before, so an unknown id costs what a wrong secret
  // does.
  const ApiKey* found = nullptr;
  for (const ApiKey& key : keys_) {
    const Sha256Digest& digest = key.named ? part : whole;
    const bool equal = SameInConstantTime(digest, key.secret_digest);
    const bool meant = key.named ? named && key.id == id : true;
    if (equal && meant) found = &key;
  }
  return found;
}

absl::Status CheckExposure(const std::string& http_host, const std::vector<std::string>& api_keys,
                           const std::vector<std::string>& cors_origins) {
  if (api_keys.empty() && !IsLoopback(http_host)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "http_host ", http_host,
        " can be reached from other machines and no API key is set: set api_keys_file, "
        "or use http_host 127.0.0.1"));
  }
  const bool any = std::find(cors_origins.begin(), cors_origins.end(), "*") != cors_origins.end();
  if (any && !api_keys.empty()) {
    return absl::FailedPreconditionError(
        "cors_origins \"*\" beside API keys lets every web page use a key that a browser holds: "
        "name "
        "the origins, or remove the keys");
  }
  return absl::OkStatus();
}

}  // namespace neurogrid
