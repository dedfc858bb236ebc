#include "common/identity.h"

#include <openssl/bio.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "common/check.h"
#include "common/owned.h"
#include "common/state_dir.h"

namespace neurogrid {
namespace {

using BioPtr = std::unique_ptr<BIO, FreeBy<BIO_free_all>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, FreeBy<EVP_PKEY_free>>;
using CertificatePtr = std::unique_ptr<X509, FreeBy<X509_free>>;
using RequestPtr = std::unique_ptr<X509_REQ, FreeBy<X509_REQ_free>>;
using ExtensionPtr = std::unique_ptr<X509_EXTENSION, FreeBy<X509_EXTENSION_free>>;
using StorePtr = std::unique_ptr<X509_STORE, FreeBy<X509_STORE_free>>;
using StoreContextPtr = std::unique_ptr<X509_STORE_CTX, FreeBy<X509_STORE_CTX_free>>;
using NamesPtr = std::unique_ptr<GENERAL_NAMES, FreeBy<GENERAL_NAMES_free>>;

constexpr absl::string_view kRolePrefix = "ng:role:";

absl::Status Failed(absl::string_view what) {
  const unsigned long code = ERR_get_error();
  ERR_clear_error();
  const char* reason = code == 0 ? nullptr : ERR_reason_error_string(code);
  return absl::InternalError(
      absl::StrCat(what, " failed", reason ? ": " : "", reason ? reason : ""));
}

BioPtr Reader(const std::string& text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

std::string TextOf(BIO* bio) {
  char* data = nullptr;
  const long size = BIO_get_mem_data(bio, &data);
  return std::string(data, static_cast<size_t>(size));
}

absl::StatusOr<CertificatePtr> ParseCertificate(const std::string& pem) {
  CertificatePtr certificate(PEM_read_bio_X509(Reader(pem).get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (!certificate) return absl::InvalidArgumentError("not a PEM certificate");
  return certificate;
}

absl::StatusOr<KeyPtr> ParseKey(const std::string& pem) {
  KeyPtr key(PEM_read_bio_PrivateKey(Reader(pem).get(), nullptr, nullptr, nullptr));
  ERR_clear_error();
  if (!key) return absl::InvalidArgumentError("not a PEM private key");
  return key;
}

absl::StatusOr<std::string> PemOf(X509* certificate) {
  BioPtr out(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_X509(out.get(), certificate) != 1) return Failed("writing a certificate");
  return TextOf(out.get());
}

absl::StatusOr<std::string> PemOf(EVP_PKEY* key) {
  BioPtr out(BIO_new(BIO_s_mem()));
  if (PEM_write_bio_PrivateKey(out.get(), key, nullptr, nullptr, 0, nullptr, nullptr) != 1) {
    return Failed("writing a key");
  }
  return TextOf(out.get());
}

absl::Status AddExtension(X509* certificate, X509* issuer, int kind, const std::string& value) {
  X509V3_CTX context;
  X509V3_set_ctx_nodb(&context);
  X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
  ExtensionPtr extension(X509V3_EXT_conf_nid(nullptr, &context, kind, value.c_str()));
  if (!extension || X509_add_ext(certificate, extension.get(), -1) != 1) {
    return Failed("adding a certificate extension");
  }
  return absl::OkStatus();
}

/// Version, serial, validity, subject and key; the caller adds issuer, extensions and signature.
absl::StatusOr<CertificatePtr> NewCertificate(EVP_PKEY* key, absl::string_view name,
                                              absl::Duration life) {
  CertificatePtr certificate(X509_new());
  const std::string serial = RandomBytes(8);
  uint64_t number = 0;
  for (const char c : serial) number = number << 8 | static_cast<uint8_t>(c);
  // An hour of slack towards the past: clocks of home machines disagree.
  const bool good =
      X509_set_version(certificate.get(), 2) == 1 &&
      ASN1_INTEGER_set_uint64(X509_get_serialNumber(certificate.get()), number >> 1) == 1 &&
      X509_gmtime_adj(X509_getm_notBefore(certificate.get()),
                      life < absl::ZeroDuration() ? 2 * absl::ToInt64Seconds(life) : -3600) !=
          nullptr &&
      X509_gmtime_adj(X509_getm_notAfter(certificate.get()), absl::ToInt64Seconds(life)) !=
          nullptr &&
      X509_NAME_add_entry_by_txt(X509_get_subject_name(certificate.get()), "CN", MBSTRING_UTF8,
                                 reinterpret_cast<const unsigned char*>(name.data()),
                                 static_cast<int>(name.size()), -1, 0) == 1 &&
      X509_set_pubkey(certificate.get(), key) == 1;
  if (!good) return Failed("making a certificate");
  return certificate;
}

absl::StatusOr<std::string> RoleText(const std::string& uri) {
  absl::string_view text = uri;
  if (!absl::ConsumePrefix(&text, kRolePrefix)) {
    return absl::InvalidArgumentError("certificate: unknown URI name");
  }
  return std::string(text);
}

absl::Status ReadName(const GENERAL_NAME* name, CertificateFacts& facts, int& roles) {
  int kind = 0;
  const auto* value = static_cast<const ASN1_STRING*>(GENERAL_NAME_get0_value(name, &kind));
  if (kind != GEN_DNS && kind != GEN_URI) return absl::OkStatus();
  const std::string text(reinterpret_cast<const char*>(ASN1_STRING_get0_data(value)),
                         static_cast<size_t>(ASN1_STRING_length(value)));
  if (kind == GEN_DNS) {
    if (!facts.node_id.empty()) return absl::InvalidArgumentError("certificate: two node ids");
    facts.node_id = text;
    return absl::OkStatus();
  }
  NG_ASSIGN_OR_RETURN(const std::string role, RoleText(text));
  if (role == NameOf(Role::kCoordinator)) {
    facts.role = Role::kCoordinator;
  } else if (role == NameOf(Role::kWorker)) {
    facts.role = Role::kWorker;
  } else {
    return absl::InvalidArgumentError("certificate: unknown role");
  }
  ++roles;
  return absl::OkStatus();
}

absl::Time TimeOf(const ASN1_TIME* time) {
  tm parts = {};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return absl::InfinitePast();
  return absl::FromTM(parts, absl::UTCTimeZone());
}

}  // namespace

absl::string_view NameOf(Role role) {
  return role == Role::kCoordinator ? "coordinator" : "worker";
}

std::string RandomBytes(size_t count) {
  std::string bytes(count, '\0');
  NG_CHECK(RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(count)) ==
           1);
  return bytes;
}

absl::Status CheckNodeId(absl::string_view id) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); };
  bool good = !id.empty() && id.size() <= 64 && plain(id.front());
  for (const char c : id) good = good && (plain(c) || c == '-' || c == '.');
  if (good) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("node name \"", id.substr(0, 64),
                   "\": lower-case letters, digits, '-' and '.' only, at most 64, starting with a "
                   "letter or digit"));
}

absl::StatusOr<std::string> CreateKey() {
  KeyPtr key(EVP_EC_gen("P-256"));
  if (!key) return Failed("making a key");
  return PemOf(key.get());
}

absl::StatusOr<Authority> CreateAuthority() {
  Authority authority;
  NG_ASSIGN_OR_RETURN(authority.key, CreateKey());
  NG_ASSIGN_OR_RETURN(const KeyPtr key, ParseKey(authority.key));
  // The name carries randomness, so that two clusters are told apart in error messages of TLS too.
  const std::string name = absl::StrCat("neurogrid cluster ", HexOf(RandomBytes(4)));
  NG_ASSIGN_OR_RETURN(const CertificatePtr certificate,
                      NewCertificate(key.get(), name, absl::Hours(24 * 3650)));
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(certificate.get()));
  NG_RETURN_IF_ERROR(AddExtension(certificate.get(), certificate.get(), NID_basic_constraints,
                                  "critical,CA:TRUE,pathlen:0"));
  NG_RETURN_IF_ERROR(
      AddExtension(certificate.get(), certificate.get(), NID_key_usage, "critical,keyCertSign"));
  NG_RETURN_IF_ERROR(
      AddExtension(certificate.get(), certificate.get(), NID_subject_key_identifier, "hash"));
  if (X509_sign(certificate.get(), key.get(), EVP_sha256()) == 0) return Failed("signing");
  NG_ASSIGN_OR_RETURN(authority.certificate, PemOf(certificate.get()));
  return authority;
}

absl::StatusOr<Authority> OpenAuthority(const std::string& state_dir) {
  NG_RETURN_IF_ERROR(EnsureStateDir(state_dir));
  // `serve` and `token` may both be the first: one of them makes it, the other reads it.
  NG_ASSIGN_OR_RETURN(const auto lock, FileLock::Wait(state_dir + "/ca.lock"));
  const std::string certificate_path = state_dir + "/ca.crt";
  const std::string key_path = state_dir + "/ca.key";
  absl::StatusOr<std::string> certificate = ReadStateFile(certificate_path);
  if (absl::IsNotFound(certificate.status())) {
    NG_ASSIGN_OR_RETURN(const Authority authority, CreateAuthority());
    NG_RETURN_IF_ERROR(WriteStateFile(key_path, authority.key));
    NG_RETURN_IF_ERROR(WriteStateFile(certificate_path, authority.certificate));
    return authority;
  }
  NG_RETURN_IF_ERROR(certificate.status());
  NG_ASSIGN_OR_RETURN(const std::string key, ReadStateFile(key_path));
  const absl::StatusOr<CertificatePtr> parsed = ParseCertificate(*certificate);
  const absl::StatusOr<KeyPtr> parsed_key = ParseKey(key);
  if (!parsed.ok())
    return absl::FailedPreconditionError(
        absl::StrCat(certificate_path, ": ", parsed.status().message()));
  if (!parsed_key.ok())
    return absl::FailedPreconditionError(
        absl::StrCat(key_path, ": ", parsed_key.status().message()));
  if (X509_check_private_key(parsed->get(), parsed_key->get()) != 1) {
    ERR_clear_error();
    return absl::FailedPreconditionError(
        absl::StrCat(key_path, ": does not belong to ", certificate_path));
  }
  return Authority{*certificate, key};
}

absl::StatusOr<std::string> CreateRequest(const std::string& key_pem) {
  NG_ASSIGN_OR_RETURN(const KeyPtr key, ParseKey(key_pem));
  RequestPtr request(X509_REQ_new());
  BioPtr out(BIO_new(BIO_s_mem()));
  if (X509_REQ_set_version(request.get(), 0) != 1 ||
      X509_REQ_set_pubkey(request.get(), key.get()) != 1 ||
      X509_REQ_sign(request.get(), key.get(), EVP_sha256()) == 0 ||
      PEM_write_bio_X509_REQ(out.get(), request.get()) != 1) {
    return Failed("making a signing request");
  }
  return TextOf(out.get());
}

absl::StatusOr<std::string> SignRequest(const Authority& authority, const std::string& request_pem,
                                        absl::string_view node_id, Role role, absl::Duration life) {
  NG_RETURN_IF_ERROR(CheckNodeId(node_id));
  NG_ASSIGN_OR_RETURN(const CertificatePtr issuer, ParseCertificate(authority.certificate));
  NG_ASSIGN_OR_RETURN(const KeyPtr issuer_key, ParseKey(authority.key));
  RequestPtr request(PEM_read_bio_X509_REQ(Reader(request_pem).get(), nullptr, nullptr, nullptr));
  EVP_PKEY* key = request ? X509_REQ_get0_pubkey(request.get()) : nullptr;
  if (key == nullptr || EVP_PKEY_get_base_id(key) != EVP_PKEY_EC || EVP_PKEY_get_bits(key) != 256 ||
      X509_REQ_verify(request.get(), key) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError(
        "signing request: broken, not P-256, or not signed by its key");
  }
  NG_ASSIGN_OR_RETURN(const CertificatePtr certificate, NewCertificate(key, node_id, life));
  X509_set_issuer_name(certificate.get(), X509_get_subject_name(issuer.get()));
  NG_RETURN_IF_ERROR(
      AddExtension(certificate.get(), issuer.get(), NID_basic_constraints, "critical,CA:FALSE"));
  NG_RETURN_IF_ERROR(
      AddExtension(certificate.get(), issuer.get(), NID_key_usage, "critical,digitalSignature"));
  NG_RETURN_IF_ERROR(
      AddExtension(certificate.get(), issuer.get(), NID_ext_key_usage, "serverAuth,clientAuth"));
  NG_RETURN_IF_ERROR(
      AddExtension(certificate.get(), issuer.get(), NID_authority_key_identifier, "keyid"));
  NG_RETURN_IF_ERROR(
      AddExtension(certificate.get(), issuer.get(), NID_subject_alt_name,
                   absl::StrCat("DNS:", node_id, ",URI:", kRolePrefix, NameOf(role))));
  if (X509_sign(certificate.get(), issuer_key.get(), EVP_sha256()) == 0) return Failed("signing");
  return PemOf(certificate.get());
}

absl::StatusOr<Identity> IssueIdentity(const Authority& authority, absl::string_view node_id,
                                       Role role, absl::Duration life) {
  NG_ASSIGN_OR_RETURN(std::string key, CreateKey());
  NG_ASSIGN_OR_RETURN(const std::string request, CreateRequest(key));
  NG_ASSIGN_OR_RETURN(const std::string leaf, SignRequest(authority, request, node_id, role, life));
  return Identity{authority.certificate, leaf + authority.certificate, std::move(key)};
}

absl::StatusOr<CertificateFacts> ReadCertificate(const std::string& pem) {
  NG_ASSIGN_OR_RETURN(const CertificatePtr certificate, ParseCertificate(pem));
  NamesPtr names(static_cast<GENERAL_NAMES*>(
      X509_get_ext_d2i(certificate.get(), NID_subject_alt_name, nullptr, nullptr)));
  CertificateFacts facts;
  int roles = 0;
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    NG_RETURN_IF_ERROR(ReadName(sk_GENERAL_NAME_value(names.get(), i), facts, roles));
  }
  NG_RETURN_IF_ERROR(CheckNodeId(facts.node_id));
  if (roles != 1) return absl::InvalidArgumentError("certificate: names no role");
  facts.not_before = TimeOf(X509_get0_notBefore(certificate.get()));
  facts.not_after = TimeOf(X509_get0_notAfter(certificate.get()));
  return facts;
}

absl::StatusOr<Sha256Digest> DigestOfCertificate(const std::string& pem) {
  NG_ASSIGN_OR_RETURN(const CertificatePtr certificate, ParseCertificate(pem));
  Sha256Digest digest = {};
  unsigned int size = 0;
  if (X509_digest(certificate.get(), EVP_sha256(), digest.data(), &size) != 1) {
    return Failed("digesting a certificate");
  }
  return digest;
}

absl::StatusOr<std::string> ClusterIdOf(const std::string& authority_certificate) {
  NG_ASSIGN_OR_RETURN(const Sha256Digest digest, DigestOfCertificate(authority_certificate));
  return std::string(reinterpret_cast<const char*>(digest.data()), 16);
}

absl::Status CheckIssuedBy(const std::string& pem, const std::string& authority) {
  NG_ASSIGN_OR_RETURN(const CertificatePtr leaf, ParseCertificate(pem));
  NG_ASSIGN_OR_RETURN(const CertificatePtr issuer, ParseCertificate(authority));
  StorePtr store(X509_STORE_new());
  StoreContextPtr context(X509_STORE_CTX_new());
  if (X509_STORE_add_cert(store.get(), issuer.get()) != 1 ||
      X509_STORE_CTX_init(context.get(), store.get(), leaf.get(), nullptr) != 1) {
    return Failed("checking a certificate");
  }
  if (X509_verify_cert(context.get()) == 1) return absl::OkStatus();
  ERR_clear_error();
  return absl::UnauthenticatedError(absl::StrCat(
      "certificate: ", X509_verify_cert_error_string(X509_STORE_CTX_get_error(context.get()))));
}

absl::Status SaveIdentity(const std::string& state_dir, const Identity& identity) {
  NG_RETURN_IF_ERROR(EnsureStateDir(state_dir));
  NG_RETURN_IF_ERROR(WriteStateFile(state_dir + "/ca.crt", identity.authority));
  NG_RETURN_IF_ERROR(WriteStateFile(state_dir + "/node.key", identity.key));
  return WriteStateFile(state_dir + "/node.crt", identity.certificate);
}

absl::StatusOr<Identity> LoadIdentity(const std::string& state_dir) {
  Identity identity;
  NG_ASSIGN_OR_RETURN(identity.certificate, ReadStateFile(state_dir + "/node.crt"));
  NG_ASSIGN_OR_RETURN(identity.key, ReadStateFile(state_dir + "/node.key"));
  NG_ASSIGN_OR_RETURN(identity.authority, ReadStateFile(state_dir + "/ca.crt"));
  return identity;
}

}  // namespace neurogrid
