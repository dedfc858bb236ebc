// SHA-256, and the SHA-1 that git names its blobs by, streamed.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>

#include "absl/strings/string_view.h"

namespace neurogrid {

using Sha256Digest = std::array<uint8_t, 32>;

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256& Update(absl::string_view bytes);
  /// The digest of everything so far; the object is spent.
  Sha256Digest Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

/// Git's name of a file's content: the SHA-1 of "blob SIZE\0" and the bytes.
class GitBlobSha1 {
 public:
  explicit GitBlobSha1(int64_t size);
  ~GitBlobSha1();
  GitBlobSha1& Update(absl::string_view bytes);
  /// 40 digits in hex; the object is spent.
  std::string Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

Sha256Digest Sha256Of(absl::string_view bytes);
/// Takes the same time whatever differs: for digests of secrets.
bool SameInConstantTime(const Sha256Digest& a, const Sha256Digest& b);
std::string HexOf(absl::string_view bytes);
inline std::string HexOf(const Sha256Digest& digest) {
  return HexOf(absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

}  // namespace neurogrid
