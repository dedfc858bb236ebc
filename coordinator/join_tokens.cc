#include "coordinator/join_tokens.h"

#include <memory>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/digest.h"
#include "common/state_dir.h"

namespace neurogrid {
namespace {

constexpr size_t kTokensMax = 1024;
constexpr int kFailuresPerMinute = 5;
constexpr size_t kAddressesMax = 1024;

/// Reads every byte whatever it finds: time says nothing about where two texts differ.
bool EqualInConstantTime(absl::string_view a, absl::string_view b) {
  if (a.size() != b.size()) return false;
  unsigned difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference |= static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

}  // namespace

absl::StatusOr<JoinTokens::Entries> JoinTokens::Read(absl::Time now) const {
  Entries entries;
  const absl::StatusOr<std::string> text = ReadStateFile(path_);
  if (absl::IsNotFound(text.status())) return entries;
  NG_RETURN_IF_ERROR(text.status());
  int line_number = 0;
  for (const absl::string_view line : absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    ++line_number;
    const std::vector<std::string> fields = absl::StrSplit(line, ' ');
    int64_t end = 0;
    int uses = 0;
    if (fields.size() != 4 || !absl::SimpleAtoi(fields[2], &end) ||
        !absl::SimpleAtoi(fields[3], &uses)) {
      return absl::DataLossError(absl::StrCat(path_, ":", line_number, ": not a token entry"));
    }
    if (absl::FromUnixSeconds(end) <= now || uses <= 0) continue;
    entries[fields[0]] = {
        .secret_digest = fields[1], .end = absl::FromUnixSeconds(end), .uses = uses};
  }
  return entries;
}

absl::Status JoinTokens::Write(const Entries& entries) const {
  std::string text;
  for (const auto& [id, entry] : entries) {
    absl::StrAppend(&text, id, " ", entry.secret_digest, " ", absl::ToUnixSeconds(entry.end), " ",
                    entry.uses, "\n");
  }
  return WriteStateFile(path_, text);
}

absl::StatusOr<JoinToken> JoinTokens::Mint(const std::string& authority, absl::Time now, int uses,
                                           absl::Duration life) const {
  NG_ASSIGN_OR_RETURN(const auto lock, FileLock::Wait(path_ + ".lock"));
  NG_ASSIGN_OR_RETURN(Entries entries, Read(now));
  if (entries.size() >= kTokensMax) {
    return absl::ResourceExhaustedError(
        absl::StrCat(path_, ": ", kTokensMax, " unused tokens exist; they end within a day"));
  }
  NG_ASSIGN_OR_RETURN(const Sha256Digest digest, DigestOfCertificate(authority));
  const JoinToken token = {HexOf(digest), HexOf(RandomBytes(8)), HexOf(RandomBytes(32))};
  entries[token.id] = {
      .secret_digest = HexOf(Sha256Of(token.secret)), .end = now + life, .uses = uses};
  NG_RETURN_IF_ERROR(Write(entries));
  return token;
}

absl::Status JoinTokens::Redeem(absl::string_view id, absl::string_view secret,
                                absl::Time now) const {
  NG_ASSIGN_OR_RETURN(const auto lock, FileLock::Wait(path_ + ".lock"));
  NG_ASSIGN_OR_RETURN(Entries entries, Read(now));
  const auto found = entries.find(std::string(id));
  const std::string stored =
      found == entries.end() ? std::string(64, '0') : found->second.secret_digest;
  const bool equal = EqualInConstantTime(stored, HexOf(Sha256Of(secret)));
  if (found == entries.end() || !equal) {
    return absl::PermissionDeniedError(
        "the join token is unknown, used up or expired; neurogrid-coordinator token prints a new "
        "one");
  }
  if (--found->second.uses == 0) entries.erase(found);
  return Write(entries);
}

bool JoinAttempts::Allowed(const std::string& address, absl::Time now) {
  const auto found = by_address_.find(address);
  if (found == by_address_.end()) return true;
  const auto& [start, failures] = found->second;
  return failures < kFailuresPerMinute || now - start >= absl::Minutes(1) || now < start;
}

void JoinAttempts::AddFailure(const std::string& address, absl::Time now) {
  if (by_address_.size() > kAddressesMax) by_address_.clear();
  auto& [start, failures] = by_address_[address];
  if (now - start >= absl::Minutes(1) || now < start) {
    start = now;
    failures = 0;
  }
  ++failures;
}

}  // namespace neurogrid
