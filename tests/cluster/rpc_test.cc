// The ports from outside: every call by every kind of caller, garbage, floods, broken
// conversations.
#include <arpa/inet.h>
#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <catch2/catch_test_macros.hpp>

#include "absl/strings/match.h"
#include "common/enroll.h"
#include "proto/cluster.grpc.pb.h"
#include "proto/edge_stream.h"
#include "proto/stage.pb.h"
#include "proto/transport.h"
#include "tests/cluster/cluster_fixture.h"

namespace neurogrid {
namespace {

constexpr auto kCallTime = std::chrono::seconds(10);

struct Caller {
  std::string kind;
  Identity identity;
  bool member;  // TLS lets it in
};

std::vector<Caller> Callers(const Authority& authority) {
  Identity nobody;
  nobody.authority = authority.certificate;
  Identity foreign = IssueIdentity(CreateAuthority().value(), "a", Role::kWorker).value();
  foreign.authority = authority.certificate;  // it does trust this cluster
  return {{"nobody", nobody, false},
          {"a worker of another cluster", foreign, false},
          {"a worker whose certificate has expired",
           IssueIdentity(authority, "a", Role::kWorker, -absl::Hours(1)).value(), false},
          {"a worker", IssueIdentity(authority, "stranger", Role::kWorker).value(), true},
          {"a coordinator", IssueIdentity(authority, kCoordinatorNode, Role::kCoordinator).value(),
           true}};
}

grpc::Status CallJoin(const Caller& caller, int port, const std::string& node) {
  const auto stub = wire::Cluster::NewStub(DialNode("127.0.0.1", port, node, caller.identity));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kCallTime);
  const auto stream = stub->Join(&context);
  wire::FromWorker message;
  message.mutable_heartbeat();  // whoever is let in hears that hello comes first
  stream->Write(message);
  wire::FromCoordinator answer;
  while (stream->Read(&answer)) continue;
  return stream->Finish();
}

wire::EdgeStatus Parsed(absl::string_view frame) {
  wire::EdgeStatus status;
  REQUIRE(status.ParseFromArray(frame.data(), static_cast<int>(frame.size())));
  return status;
}

/// What the receiver of an edge says to this header, and then to these steps; OK where it says
/// nothing until the end.
absl::Status CallSteps(const Caller& caller, int port, const std::string& node,
                       const wire::EdgeHeader& header,
                       const std::vector<wire::StepMessage>& messages) {
  const TlsStream::Time deadline = std::chrono::steady_clock::now() + kCallTime;
  NG_ASSIGN_OR_RETURN(const std::unique_ptr<EdgeStream> stream,
                      EdgeStream::Dial("127.0.0.1", port, node, caller.identity, deadline));
  NG_RETURN_IF_ERROR(stream->Write(header.SerializeAsString(), deadline));
  NG_ASSIGN_OR_RETURN(const absl::string_view answer, stream->Read(kControlBytesMax, deadline));
  const wire::EdgeStatus opened = Parsed(answer);
  if (opened.code() != 0) {
    return absl::Status(static_cast<absl::StatusCode>(opened.code()), opened.message());
  }
  for (const wire::StepMessage& message : messages) {
    NG_RETURN_IF_ERROR(stream->Write(message.SerializeAsString(), deadline));
  }
  stream->Close();
  const absl::StatusOr<absl::string_view> end = stream->Read(kControlBytesMax, deadline);
  if (!end.ok()) return absl::IsUnavailable(end.status()) ? absl::OkStatus() : end.status();
  return absl::Status(static_cast<absl::StatusCode>(Parsed(*end).code()), Parsed(*end).message());
}

TEST_CASE("every call by every caller: only members are heard, and only in their role",
          "[rpc][R14]") {
  // A new call must be added below.
  CHECK(wire::StepMessage::descriptor()->file()->service_count() == 0);
  CHECK(wire::FromWorker::descriptor()->file()->service(0)->method_count() == 1);
  ClusterFixture fixture;
  RunningWorker& worker = fixture.AddWorker("a", "/nowhere");
  REQUIRE(fixture.WaitForMembers(1));
  wire::EdgeHeader header;
  header.set_cluster_id(ClusterIdOf(OpenAuthority(fixture.state_dir())->certificate).value());
  header.set_epoch(1);
  wire::StepMessage step;
  *step.mutable_header() = header;
  const int coordinator = fixture.cluster->port();
  const int stage = worker.worker().data_port();
  for (const Caller& caller : Callers(OpenAuthority(fixture.state_dir()).value())) {
    CAPTURE(caller.kind);
    const bool is_worker = caller.kind == "a worker";
    const auto code = [](const grpc::Status& status) {
      INFO(status.error_message());
      return status.error_code();
    };
    using Code = grpc::StatusCode;
    const Code outside = Code::UNAVAILABLE;
    CHECK(code(CallJoin(caller, coordinator, "coordinator")) == (!caller.member ? outside
                                                                 : is_worker
                                                                     ? Code::INVALID_ARGUMENT
                                                                     : Code::PERMISSION_DENIED));
    CHECK(code(CallJoin(caller, stage, "a")) == outside);  // a worker's port speaks no gRPC
    for (const auto& [port, node] :
         {std::pair<int, std::string>{coordinator, "coordinator"}, {stage, "a"}}) {
      CAPTURE(node);
      // Nobody serves: every member is told that this epoch is not in force.
      const absl::Status refused = CallSteps(caller, port, node, header, {step});
      INFO(refused.message());
      CHECK(refused.code() == (caller.member ? absl::StatusCode::kFailedPrecondition
                                             : absl::StatusCode::kUnavailable));
    }
  }
  CHECK(fixture.cluster->Nodes().size() == 1);
}

bool Connects(int socket, int port, in_addr_t host) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(port));
  address.sin_addr.s_addr = htonl(host);
  return connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0;
}

int Dial(int port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
  const timeval limit = {.tv_sec = 15, .tv_usec = 0};
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  REQUIRE(Connects(socket, port, INADDR_LOOPBACK));
  return socket;
}

/// Sends the bytes; true when the other end then closes, rather than waiting for more.
bool IsClosedAfter(int port, const std::string& bytes) {
  const int socket = Dial(port);
  send(socket, bytes.data(), bytes.size(), MSG_NOSIGNAL);
  char answer[256];
  ssize_t got = 0;
  do {
    got = recv(socket, answer, sizeof(answer), 0);
  } while (got > 0 || (got < 0 && errno == EINTR));  // EINTR: this process was stopped for a while
  close(socket);
  return got == 0 || errno == ECONNRESET;
}

TEST_CASE("garbage at the port is closed, and members still get in", "[rpc][R44]") {
  ClusterFixture fixture;
  const int port = fixture.cluster->port();
  CHECK(IsClosedAfter(port, "GET / HTTP/1.1\r\n\r\n"));
  CHECK(IsClosedAfter(port, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
  CHECK(IsClosedAfter(port, std::string(4096, '\xff')));
  CHECK(IsClosedAfter(port, "\x16\x03\x01 not a hello at all"));
  CHECK(IsClosedAfter(port, "NGJOIN9\nwhatever"));
  CHECK(IsClosedAfter(port, "NGJOIN1\nno TLS here either"));
  CHECK(IsClosedAfter(port, "NGSTEP9\nwhatever"));
  CHECK(IsClosedAfter(port, "NGSTEP1\nno TLS here either"));
  CHECK(IsClosedAfter(port, "NGST"));  // and no more, for 5 s
  CHECK(IsClosedAfter(port, ""));      // silence, after 5 s
  std::vector<int> flood;
  for (int i = 0; i < 120; ++i) flood.push_back(Dial(port));
  // The flood used up this address's rate for the moment; it refills.
  absl::StatusOr<Identity> identity = fixture.EnrollAs("a");
  for (int i = 0; i < 20 && !identity.ok(); ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    identity = fixture.EnrollAs("a");
  }
  CHECK(identity.ok());
  for (const int socket : flood) close(socket);
}

struct Conversation {
  Conversation(ClusterFixture& fixture, const Identity& identity)
      : stub(wire::Cluster::NewStub(
            DialNode("127.0.0.1", fixture.cluster->port(), "coordinator", identity))) {
    context.set_deadline(std::chrono::system_clock::now() + kCallTime);
    stream = stub->Join(&context);
  }
  wire::Hello* Hello() {
    message.mutable_hello()->set_version_min(kProtocolMin);
    message.mutable_hello()->set_version_max(kProtocolMax);
    return message.mutable_hello();
  }
  wire::FromCoordinator Say() {
    stream->Write(message);
    wire::FromCoordinator answer;
    stream->Read(&answer);
    message.Clear();
    return answer;
  }
  std::string End() {
    stream->WritesDone();
    wire::FromCoordinator answer;
    while (stream->Read(&answer)) continue;
    return stream->Finish().error_message();
  }
  grpc::ClientContext context;
  std::unique_ptr<wire::Cluster::Stub> stub;
  std::unique_ptr<grpc::ClientReaderWriter<wire::FromWorker, wire::FromCoordinator>> stream;
  wire::FromWorker message;
};

TEST_CASE("a version without common ground is refused at hello with both ranges", "[rpc][P21]") {
  ClusterFixture fixture;
  const Identity identity = fixture.EnrollAs("a").value();
  Conversation newer(fixture, identity);
  newer.Hello()->set_version_min(kProtocolMax + 1);
  newer.message.mutable_hello()->set_version_max(9);
  const wire::FromCoordinator refused = newer.Say();
  CHECK(absl::StrContains(refused.refused().reason(), "version"));
  CHECK(refused.refused().version_max() == kProtocolMax);
  Conversation spanning(fixture, identity);
  spanning.Hello()->set_version_max(9);
  const wire::FromCoordinator welcome = spanning.Say();
  CHECK(welcome.welcome().version() == kProtocolMax);
  CHECK(welcome.welcome().cluster_id().size() == 16);
  CHECK(welcome.welcome().lease_ms() == 60'000);
}

TEST_CASE("a worker that says something else is told what", "[rpc][R8]") {
  ClusterFixture fixture;
  const Identity identity = fixture.EnrollAs("a").value();
  const auto ends_with = [&](const auto& fill, absl::string_view words) {
    Conversation talk(fixture, identity);
    talk.Hello();
    REQUIRE(talk.Say().has_welcome());
    fill(talk.message);
    talk.stream->Write(talk.message);
    const std::string end = talk.End();
    INFO(end);
    CHECK(absl::StrContains(end, words));
  };
  using M = wire::FromWorker;
  ends_with([](M& m) { m.mutable_hello(); }, "hello twice");
  ends_with([](M&) {}, "unknown kind");
  ends_with([](M& m) { m.mutable_report()->set_memory_total_bytes(-5); }, "memory_total_bytes");
  ends_with([](M& m) { m.mutable_report()->set_device_kind(std::string(1 << 20, 'x')); },
            "larger than 1 MiB");
  ends_with([](M& m) { m.mutable_stage_failed()->set_reason(std::string(300, 'x')); },
            "stage_failed.reason");
  CHECK(fixture.cluster->Nodes().empty());
}

TEST_CASE("a step of the wrong size ends its edge with both sizes, and a late one is dropped",
          "[rpc]") {
  const std::string path = Golden("tiny/llama");
  const auto checkpoint = Checkpoint::Open(path).value();
  ClusterFixture fixture;
  RunningWorker& first = fixture.AddWorker("a", path);
  RunningWorker& second = fixture.AddWorker("b", path);
  REQUIRE(fixture.WaitForMembers(2));
  const uint64_t epoch = fixture.Activate({"a", "b"}, *checkpoint);
  // "a" itself misbehaves: the right certificate, boot id and epoch.
  const Authority authority = OpenAuthority(fixture.state_dir()).value();
  const Caller a{"a", IssueIdentity(authority, "a", Role::kWorker).value(), true};
  wire::StepMessage step;
  step.mutable_header()->set_cluster_id(ClusterIdOf(authority.certificate).value());
  step.mutable_header()->set_epoch(epoch);
  step.mutable_header()->set_boot_id(first.worker().boot_id());
  step.set_step(1);
  for (const int32_t value : {0}) {
    step.mutable_batch()->add_tokens(1);
    step.mutable_batch()->add_positions(value);
    step.mutable_batch()->add_sequence_offsets(value);
    step.mutable_batch()->add_sequence_offsets(1);
    step.mutable_batch()->add_pages(value);
    step.mutable_batch()->add_page_offsets(value);
    step.mutable_batch()->add_page_offsets(1);
    step.mutable_batch()->add_state_slots(-1);
    step.mutable_batch()->add_state_sources(-1);
  }
  step.set_activations("four");
  const int port = second.worker().data_port();
  wire::StepMessage late = step;
  late.mutable_header()->set_epoch(epoch - 1);
  const wire::EdgeHeader header = step.header();
  CHECK(CallSteps(a, port, "b", header, {late, late}).ok());
  const absl::Status wrong = CallSteps(a, port, "b", header, {late, step});
  INFO(wrong.message());
  CHECK(absl::IsInvalidArgument(wrong));
  CHECK(absl::StrContains(wrong.message(), "are 4 bytes, expected"));
  wire::StepMessage other_cluster = step;
  other_cluster.mutable_header()->set_cluster_id(std::string(16, 'x'));
  CHECK(absl::IsPermissionDenied(CallSteps(a, port, "b", header, {other_cluster})));
  CHECK(absl::IsPermissionDenied(CallSteps(a, port, "b", other_cluster.header(), {step})));
}

TEST_CASE("of two processes with one certificate the older one gives up", "[rpc]") {
  ClusterFixture fixture;
  const absl::StatusOr<Identity> identity = fixture.EnrollAs("a");
  REQUIRE(identity.ok());
  RunningWorker& older = fixture.workers.emplace_back(fixture.OptionsFor(*identity), "/nowhere");
  REQUIRE(fixture.WaitForMembers(1));
  RunningWorker& newer = fixture.workers.emplace_back(fixture.OptionsFor(*identity), "/nowhere");
  const absl::Status ended = older.Join();
  INFO(ended.message());
  CHECK(!ended.ok());
  CHECK(absl::StrContains(ended.message(), "another process joined as a"));
  REQUIRE(fixture.cluster->Nodes().size() == 1);
  CHECK(fixture.cluster->Nodes()[0].boot_id == newer.worker().boot_id());
}

TEST_CASE("where the coordinator is beyond loopback, every stage can be reached from there",
          "[rpc]") {
  // 127.0.0.2 is this machine too, and not where a port at 127.0.0.1 is.
  const in_addr_t elsewhere = INADDR_LOOPBACK + 1;
  for (const bool beyond : {false, true}) {
    CAPTURE(beyond);
    ClusterFixture fixture(LocalDevice{.device = "cpu", .threads = 1, .model_path = "/nowhere"},
                           LongLease(), beyond ? "0.0.0.0" : "127.0.0.1");
    fixture.AddWorker("a", "/nowhere");
    REQUIRE(fixture.WaitForMembers(2));
    for (const Node& node : fixture.cluster->Nodes()) {
      CAPTURE(node.id);
      const int socket = ::socket(AF_INET, SOCK_STREAM, 0);
      CHECK(Connects(socket, node.report.data_port, elsewhere) == beyond);
      close(socket);
    }
  }
}

}  // namespace
}  // namespace neurogrid
