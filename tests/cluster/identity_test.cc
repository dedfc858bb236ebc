// Who is let in: certificates, join tokens, enrolment.
#include "common/identity.h"

#include <grpcpp/impl/service_type.h>
#include <sys/stat.h>

#include <catch2/catch_test_macros.hpp>
#include <thread>

#include "absl/strings/match.h"
#include "common/enroll.h"
#include "common/state_dir.h"
#include "coordinator/join_tokens.h"
#include "tests/cluster/cluster_fixture.h"

namespace neurogrid {
namespace {

TEST_CASE("the first start makes an authority and the second one reads it", "[identity]") {
  const TemporaryFolder folder;
  const std::string state = folder.path() + "/deep/state";
  const Authority made = OpenAuthority(state).value();
  const Authority read = OpenAuthority(state).value();
  CHECK(made.certificate == read.certificate);
  CHECK(made.key == read.key);
  struct stat info = {};
  REQUIRE(stat(state.c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0700);
  REQUIRE(stat((state + "/ca.key").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0600);
  CHECK(ClusterIdOf(made.certificate).value().size() == 16);

  SECTION("a folder that others may enter is refused") {
    REQUIRE(chmod(state.c_str(), 0755) == 0);
    const absl::Status status = OpenAuthority(state).status();
    CHECK(absl::StrContains(status.message(), "chmod 700"));
  }
  SECTION("a key of another authority is refused by name") {
    REQUIRE(WriteStateFile(state + "/ca.key", CreateAuthority().value().key).ok());
    const absl::Status status = OpenAuthority(state).status();
    CHECK(absl::StrContains(status.message(), "ca.key"));
  }
}

TEST_CASE("a certificate says who and in which role, and only its authority vouches for it",
          "[identity]") {
  const Authority authority = CreateAuthority().value();
  const Identity worker = IssueIdentity(authority, "gpu-box.7", Role::kWorker).value();
  const CertificateFacts facts = ReadCertificate(worker.certificate).value();
  CHECK(facts.node_id == "gpu-box.7");
  CHECK(facts.role == Role::kWorker);
  CHECK(facts.not_after - absl::Now() > absl::Hours(24 * 364));
  CHECK(CheckIssuedBy(worker.certificate, authority.certificate).ok());
  CHECK_FALSE(CheckIssuedBy(worker.certificate, CreateAuthority().value().certificate).ok());
  const Identity late = IssueIdentity(authority, "late", Role::kWorker, -absl::Hours(1)).value();
  CHECK(absl::StrContains(CheckIssuedBy(late.certificate, authority.certificate).message(),
                          "expired"));
  CHECK_FALSE(ReadCertificate(authority.certificate).ok());
  CHECK_FALSE(ReadCertificate("garbage").ok());
}

TEST_CASE("only node ids that fit a certificate and a log line are issued", "[identity]") {
  const Authority authority = CreateAuthority().value();
  const std::string request = CreateRequest(CreateKey().value()).value();
  for (const std::string bad :
       {"", "UPPER", "a_b", "-a", ".a", "a\n", "a,URI:ng:role:coordinator", "*.a", "\xc3\xa4"}) {
    CAPTURE(bad);
    CHECK(absl::IsInvalidArgument(SignRequest(authority, request, bad, Role::kWorker).status()));
  }
  CHECK_FALSE(CheckNodeId(std::string(65, 'a')).ok());
  CHECK(CheckNodeId(std::string(64, 'a')).ok());
  CHECK(absl::IsInvalidArgument(SignRequest(authority, "x", "a", Role::kWorker).status()));
}

TEST_CASE("a join token has one form, and errors do not repeat it", "[identity][tokens]") {
  const JoinToken token = {std::string(64, 'a'), std::string(16, 'b'), std::string(64, 'c')};
  CHECK(ParseJoinToken(token.ToString()).value().secret == token.secret);
  for (const std::string& bad :
       {std::string("ng1"), token.ToString() + "0", "ng2" + token.ToString().substr(3),
        token.ToString() + ".", std::string("ng1.x.y.secretsecret")}) {
    const absl::Status status = ParseJoinToken(bad).status();
    CHECK(absl::IsInvalidArgument(status));
    CHECK_FALSE(absl::StrContains(status.message(), "secretsecret"));
  }
}

TEST_CASE("a token is stored hashed, works once, and for a day", "[identity][tokens]") {
  const TemporaryFolder folder;
  const Authority authority = CreateAuthority().value();
  const JoinTokens tokens(folder.path());
  const absl::Time now = absl::FromUnixSeconds(1'800'000'000);
  const JoinToken token = tokens.Mint(authority.certificate, now).value();
  CHECK(token.authority_digest == HexOf(DigestOfCertificate(authority.certificate).value()));
  const std::string stored = ReadStateFile(folder.path() + "/join_tokens").value();
  CHECK(absl::StrContains(stored, token.id));
  CHECK_FALSE(absl::StrContains(stored, token.secret));

  CHECK(absl::IsPermissionDenied(tokens.Redeem(token.id, std::string(64, '0'), now)));
  CHECK(absl::IsPermissionDenied(tokens.Redeem("ffffffffffffffff", token.secret, now)));
  CHECK(absl::IsPermissionDenied(tokens.Redeem(token.id, token.secret, now + absl::Hours(24))));
  // Another process reads the same file.
  CHECK(JoinTokens(folder.path()).Redeem(token.id, token.secret, now + absl::Hours(23)).ok());
  CHECK(absl::IsPermissionDenied(tokens.Redeem(token.id, token.secret, now)));

  const JoinToken twice = tokens.Mint(authority.certificate, now, 2).value();
  CHECK(tokens.Redeem(twice.id, twice.secret, now).ok());
  CHECK(tokens.Redeem(twice.id, twice.secret, now).ok());
  CHECK_FALSE(tokens.Redeem(twice.id, twice.secret, now).ok());
}

TEST_CASE("five wrong tokens close the door for the rest of the minute", "[identity][tokens]") {
  JoinAttempts attempts;
  const absl::Time now = absl::FromUnixSeconds(1'800'000'000);
  for (int i = 0; i < 5; ++i) {
    CHECK(attempts.Allowed("10.0.0.1", now));
    attempts.AddFailure("10.0.0.1", now);
  }
  CHECK_FALSE(attempts.Allowed("10.0.0.1", now + absl::Seconds(59)));
  CHECK(attempts.Allowed("10.0.0.2", now));
  CHECK(attempts.Allowed("10.0.0.1", now + absl::Seconds(60)));
}

TEST_CASE("enrolment gives a certificate for a key that never travelled", "[identity][enroll]") {
  ClusterFixture fixture;
  const Identity identity = fixture.EnrollAs("box").value();
  const CertificateFacts facts = ReadCertificate(identity.certificate).value();
  CHECK(facts.node_id == "box");
  CHECK(facts.role == Role::kWorker);
  CHECK(ProbeCoordinator("127.0.0.1", fixture.cluster->port(), identity).ok());
  for (const char* taken : {"coordinator", "local"}) {
    CHECK(absl::IsPermissionDenied(fixture.EnrollAs(taken).status()));
  }
  CHECK(absl::IsInvalidArgument(fixture.EnrollAs("Not A Name").status()));
}

TEST_CASE("a joiner sends its secret to the token's cluster alone", "[identity][enroll]") {
  ClusterFixture other;
  const Authority authority = CreateAuthority().value();
  const JoinToken foreign = {HexOf(DigestOfCertificate(authority.certificate).value()),
                             std::string(16, 'b'), std::string(64, 'c')};
  const absl::Status status = Enroll("127.0.0.1", other.cluster->port(), foreign, "box").status();
  CHECK(absl::IsUnauthenticated(status));
  CHECK(absl::StrContains(status.message(), "not sent"));

  SECTION("not even to a worker that shows the right authority") {
    const Identity worker = IssueIdentity(authority, "box", Role::kWorker).value();
    bool asked = false;
    StepGate gate([](Step) { return true; });
    const auto port = NodePort::Open({.host = "127.0.0.1",
                                      .port = 0,
                                      .identity = worker,
                                      .services = {},
                                      .steps = &gate,
                                      .enroll = [&](int socket, const std::string&) {
                                        ServeEnrollment(socket, worker, [&](const EnrollRequest&) {
                                          asked = true;
                                          return std::string();
                                        });
                                      }});
    REQUIRE(port.ok());
    const absl::Status refused = Enroll("127.0.0.1", (*port)->port(), foreign, "box").status();
    CHECK(absl::IsUnauthenticated(refused));
    CHECK(absl::StrContains(refused.message(), "not its coordinator"));
    CHECK_FALSE(asked);
  }
}

TEST_CASE("a wrong token is refused with the same sentence whatever is wrong with it",
          "[identity][enroll]") {
  ClusterFixture fixture;
  const Authority authority = OpenAuthority(fixture.state_dir()).value();
  JoinToken token =
      JoinTokens(fixture.state_dir()).Mint(authority.certificate, absl::Now()).value();
  const std::string secret = token.secret;
  token.secret = std::string(64, '0');
  const absl::Status wrong = Enroll("127.0.0.1", fixture.cluster->port(), token, "box").status();
  CHECK(absl::IsPermissionDenied(wrong));
  token.secret = secret;
  CHECK(Enroll("127.0.0.1", fixture.cluster->port(), token, "box").ok());
  const absl::Status again = Enroll("127.0.0.1", fixture.cluster->port(), token, "box").status();
  CHECK(again.message() == wrong.message());
}

TEST_CASE("nobody there, and somebody else there, are told apart", "[identity][enroll]") {
  const Authority authority = CreateAuthority().value();
  const JoinToken token = {HexOf(DigestOfCertificate(authority.certificate).value()),
                           std::string(16, 'b'), std::string(64, 'c')};
  const absl::Status nobody = Enroll("127.0.0.1", 1, token, "box").status();
  CHECK(absl::StrContains(nobody.message(), "127.0.0.1:1: cannot connect"));
  const Identity own = IssueIdentity(authority, "box", Role::kWorker).value();
  StepGate gate([](Step) { return true; });
  const auto worker_port = NodePort::Open({.host = "127.0.0.1",
                                           .port = 0,
                                           .identity = own,
                                           .services = {},
                                           .steps = &gate,
                                           .enroll = nullptr});
  REQUIRE(worker_port.ok());
  const absl::Status other = Enroll("127.0.0.1", (*worker_port)->port(), token, "box").status();
  CHECK(absl::StrContains(other.message(), "does not answer like a NeuroGrid coordinator"));
}

TEST_CASE("an address is a host and a port", "[identity]") {
  std::string host;
  int port = 0;
  CHECK(ParseAddress("[::1]:80", &host, &port).ok());
  CHECK(host == "::1");
  CHECK(ParseAddress("box:8091", &host, &port).ok());
  CHECK(port == 8091);
  for (const char* bad : {"", "box", "box:", ":1", "box:0", "box:65536", "::1:80", "box:1x"}) {
    CAPTURE(bad);
    CHECK_FALSE(ParseAddress(bad, &host, &port).ok());
  }
}

}  // namespace
}  // namespace neurogrid
