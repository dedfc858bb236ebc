#include "common/digest.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "common/check.h"

namespace neurogrid {

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  NG_CHECK(EVP_DigestInit_ex(context_->evp, EVP_sha256(), nullptr) == 1);
}

Sha256::~Sha256() = default;

Sha256& Sha256::Update(absl::string_view bytes) {
  NG_CHECK(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1);
  return *this;
}

Sha256Digest Sha256::Finish() {
  Sha256Digest digest;
  NG_CHECK(EVP_DigestFinal_ex(context_->evp, digest.data(), nullptr) == 1);
  return digest;
}

struct GitBlobSha1::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }
};

GitBlobSha1::GitBlobSha1(int64_t size) : context_(std::make_unique<Context>()) {
  NG_CHECK(EVP_DigestInit_ex(context_->evp, EVP_sha1(), nullptr) == 1);
  const std::string head = absl::StrCat("blob ", size);
  Update({head.c_str(), head.size() + 1});
}

GitBlobSha1::~GitBlobSha1() = default;

GitBlobSha1& GitBlobSha1::Update(absl::string_view bytes) {
  NG_CHECK(EVP_DigestUpdate(context_->evp, bytes.data(), bytes.size()) == 1);
  return *this;
}

std::string GitBlobSha1::Finish() {
  std::array<uint8_t, 20> digest;
  NG_CHECK(EVP_DigestFinal_ex(context_->evp, digest.data(), nullptr) == 1);
  return HexOf(absl::string_view(reinterpret_cast<const char*>(digest.data()), digest.size()));
}

Sha256Digest Sha256Of(absl::string_view bytes) { return Sha256().Update(bytes).Finish(); }

bool SameInConstantTime(const Sha256Digest& a, const Sha256Digest& b) {
  return CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::string HexOf(absl::string_view bytes) { return absl::BytesToHexString(bytes); }

}  // namespace neurogrid
