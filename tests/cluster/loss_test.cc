// Workers as processes of their own: killed, frozen, refused, restarted; and a restarted
// coordinator.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <catch2/catch_test_macros.hpp>
#include <cstdlib>
#include <filesystem>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "common/enroll.h"
#include "common/state_dir.h"
#include "tests/cluster/cluster_fixture.h"
#include "tests/support/test_data.h"

namespace neurogrid {
namespace {

/// neurogrid-worker with its output in a file. Killed, if need be, at the end.
class WorkerProcess {
 public:
  WorkerProcess(const std::string& folder, const std::vector<std::string>& flags,
                const std::string& program = NG_WORKER_PROGRAM)
      : output_(absl::StrCat(folder, "/output-", ++count_)) {
    std::vector<std::string> words = {program};
    words.insert(words.end(), flags.begin(), flags.end());
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    posix_spawn_file_actions_t files;
    posix_spawn_file_actions_init(&files);
    posix_spawn_file_actions_addopen(&files, 1, output_.c_str(), O_WRONLY | O_CREAT, 0600);
    posix_spawn_file_actions_adddup2(&files, 1, 2);
    REQUIRE(posix_spawn(&id_, program.c_str(), &files, nullptr, argv.data(), environ) == 0);
    posix_spawn_file_actions_destroy(&files);
  }
  ~WorkerProcess() {
    if (id_ <= 0) return;
    kill(id_, SIGKILL);
    Wait();
  }
  void Signal(int signal) { kill(id_, signal); }
  /// The exit code, or minus the signal that ended it.
  int Wait() {
    int status = 0;
    waitpid(id_, &status, 0);
    id_ = -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  std::string Output() const { return ReadFile(output_); }

 private:
  static inline int count_ = 0;
  std::string output_;
  pid_t id_ = -1;
};

struct Processes : ClusterFixture {
  explicit Processes(ClusterTimes times = LongLease()) : ClusterFixture(std::nullopt, times) {}

  std::vector<std::string> Flags(const std::string& name, const std::string& token,
                                 const std::string& model) {
    std::vector<std::string> flags = {"--bootstrap", absl::StrCat("127.0.0.1:", cluster->port()),
                                      "--name",      name,
                                      "--device",    "cpu",
                                      "--threads",   "1",
                                      "--state-dir", absl::StrCat(folder.path(), "/", name)};
    if (!token.empty()) flags.insert(flags.end(), {"--token", token});
    if (!model.empty()) flags.insert(flags.end(), {"--model", model});
    return flags;
  }
  std::string Token() {
    const Authority authority = OpenAuthority(state_dir()).value();
    return JoinTokens(state_dir()).Mint(authority.certificate, absl::Now())->ToString();
  }
};

Batch OneToken(int vocab_size) {
  Batch batch;
  batch.tokens = {vocab_size / 2};
  batch.positions = {0};
  batch.sequence_offsets = {0, 1};
  batch.pages = {0};
  batch.page_offsets = {0, 1};
  batch.state_slots = {-1};
  batch.state_sources = {-1};
  batch.sampled_rows = {0};
  batch.sampling.resize(1);
  batch.sampling[0].position = 1;
  return batch;
}

TEST_CASE("a killed or frozen worker breaks the plan, and the rest serves a new one",
          "[loss][C1]") {
  const std::string path = Golden("tiny/llama");
  const auto checkpoint = Checkpoint::Open(path).value();
  const int vocab = checkpoint->config().vocab_size;
  Processes p({.lease = std::chrono::seconds(4)});
  WorkerProcess a(p.folder.path(), p.Flags("a", p.Token(), path));
  WorkerProcess b(p.folder.path(), p.Flags("b", p.Token(), path));
  WorkerProcess c(p.folder.path(), p.Flags("c", p.Token(), path));
  REQUIRE(p.WaitForMembers(3));
  const uint64_t first = p.Activate({"a", "b", "c"}, *checkpoint);
  REQUIRE(p.cluster->Submit(first, 1, OneToken(vocab)).ok());
  REQUIRE(p.recorder.Wait([&] { return p.recorder.results.size() == 1; }));
  REQUIRE(p.recorder.results[0].status.ok());
  const int32_t token = p.recorder.results[0].sampled[0].token;

  b.Signal(SIGKILL);
  REQUIRE(p.recorder.Wait([&] { return !p.recorder.ended.empty(); }));
  CHECK(p.recorder.ended[0].epoch == first);
  CHECK(p.recorder.ended[0].was_active);
  CHECK(absl::IsFailedPrecondition(p.cluster->Submit(first, 2, OneToken(vocab))));
  REQUIRE(p.WaitForMembers(2));

  const uint64_t second = p.Activate({"a", "c"}, *checkpoint);
  CHECK(second > first);
  REQUIRE(p.cluster->Submit(second, 3, OneToken(vocab)).ok());
  REQUIRE(p.recorder.Wait([&] { return p.recorder.results.size() == 2; }));
  CHECK(p.recorder.results[1].sampled[0].token == token);

  c.Signal(SIGSTOP);
  REQUIRE(p.recorder.Wait([&] { return p.recorder.ended.size() == 2; }));
  REQUIRE(p.WaitForMembers(1));
  c.Signal(SIGCONT);  // it finds itself fenced and joins anew
  REQUIRE(p.WaitForMembers(2));
  const uint64_t third = p.Activate({"c", "a"}, *checkpoint);
  REQUIRE(p.cluster->Submit(third, 4, OneToken(vocab)).ok());
  REQUIRE(p.recorder.Wait([&] { return p.recorder.results.size() == 3; }));
  CHECK(p.recorder.results[2].sampled[0].token == token);

  a.Signal(SIGTERM);
  CHECK(a.Wait() == 0);
  REQUIRE(p.recorder.Wait([&] { return p.recorder.ended.size() == 3; }));
  CHECK(p.recorder.ended[2].node == "a");
}

TEST_CASE(
    "a worker whose device breaks says in which op, leaves, and exits with 1; the rest serves on",
    "[loss][C17]") {
  const std::string path = Golden("tiny/llama");
  const auto checkpoint = Checkpoint::Open(path).value();
  const int vocab = checkpoint->config().vocab_size;
  Processes p;
  auto flags = p.Flags("gpu", p.Token(), path);
  *std::find(flags.begin(), flags.end(), "cpu") = "cuda:0";
  setenv("NG_EMULATED_FAILURE", "Embed", 1);
  WorkerProcess gpu(p.folder.path(), flags, NG_EMULATED_WORKER_PROGRAM);
  unsetenv("NG_EMULATED_FAILURE");
  WorkerProcess cpu(p.folder.path(), p.Flags("cpu", p.Token(), path));
  REQUIRE(p.WaitForMembers(2));
  const uint64_t first = p.Activate({"gpu", "cpu"}, *checkpoint);
  REQUIRE(p.cluster->Submit(first, 1, OneToken(vocab)).ok());
  REQUIRE(p.recorder.Wait([&] { return p.recorder.results.size() == 1; }));
  REQUIRE(p.recorder.results[0].status.ok());

  REQUIRE(p.cluster->Submit(first, 2, OneToken(vocab)).ok());
  REQUIRE(p.recorder.Wait([&] { return !p.recorder.ended.empty(); }));
  const std::string words = "the copy of its activations: Embed: an illegal memory access";
  CHECK(p.cluster->Nodes().size() == 1);  // whoever plans anew does so without it
  CHECK(p.recorder.ended[0].node == "gpu");
  CHECK(absl::StrContains(p.recorder.ended[0].reason, words));
  CHECK(p.recorder.ended[0].was_active);
  CHECK(gpu.Wait() == 1);
  CHECK(absl::StrContains(gpu.Output(), "error: the device is broken: stage gpu [0,2): "));
  CHECK(absl::StrContains(gpu.Output(), words));
  REQUIRE(p.WaitForMembers(1));

  const uint64_t second = p.Activate({"cpu"}, *checkpoint);
  REQUIRE(p.cluster->Submit(second, 3, OneToken(vocab)).ok());
  REQUIRE(p.recorder.Wait(
      [&] { return !p.recorder.results.empty() && p.recorder.results.back().epoch == second; }));
  CHECK(p.recorder.results.back().status.ok());
}

TEST_CASE("workers come back to a restarted coordinator by themselves, at a higher epoch",
          "[loss][C22]") {
  const std::string path = Golden("tiny/llama");
  const auto checkpoint = Checkpoint::Open(path).value();
  Processes p;
  const int port = p.cluster->port();
  {
    WorkerProcess a(p.folder.path(), p.Flags("a", p.Token(), path));
    REQUIRE(p.WaitForMembers(1));
    const uint64_t before = p.Activate({"a"}, *checkpoint);
    p.StopCoordinator();
    p.StartCoordinator(port);
    REQUIRE(p.WaitForMembers(1));
    CHECK(p.Activate({"a"}, *checkpoint) > before);
  }
  REQUIRE(p.WaitForMembers(0));
  // A later start needs no token: the certificate is in the state directory.
  WorkerProcess again(p.folder.path(), p.Flags("a", "", path));
  REQUIRE(p.WaitForMembers(1));
  p.Activate({"a"}, *checkpoint);
}

TEST_CASE("a worker without its model says which and where, and stays a member", "[loss]") {
  const auto checkpoint = Checkpoint::Open(Golden("tiny/llama")).value();
  Processes p;
  std::string words;
  ClusterPlan plan = p.PlanOver({"a"}, *checkpoint);
  std::string model;
  SECTION("when it has another one") {
    model = Golden("tiny/llama3-rope");
    words = "is another model than the cluster's tiny";
    CHECK(Checkpoint::Open(model).value()->digest() != checkpoint->digest());
  }
  SECTION("when the coordinator's path is not on this machine") {
    plan.model_path = "/only/there";
    words = "model tiny is not on this machine at /only/there";
    CHECK_FALSE(std::filesystem::exists(plan.model_path));
  }
  WorkerProcess a(p.folder.path(), p.Flags("a", p.Token(), model));
  REQUIRE(p.WaitForMembers(1));
  REQUIRE(p.cluster->Assign(plan).ok());
  REQUIRE(p.recorder.Wait([&] { return !p.recorder.ended.empty(); }));
  CHECK(absl::StrContains(p.recorder.ended[0].reason, words));
  CHECK_FALSE(p.recorder.ended[0].was_active);
  CHECK(p.cluster->Nodes().size() == 1);
}

TEST_CASE("a worker that cannot start says why in one sentence and exits with 1", "[loss]") {
  Processes p;
  const auto fails = [&](const std::vector<std::string>& flags, const std::string& words) {
    WorkerProcess worker(p.folder.path(), flags);
    CHECK(worker.Wait() == 1);
    const std::string output = worker.Output();
    INFO(output);
    const size_t error = output.rfind("error: ");
    REQUIRE(error != std::string::npos);
    CHECK(absl::StrContains(output.substr(error), words));
    CHECK(output.find('\n', error) == output.size() - 1);
  };
  const std::string token = p.Token();
  std::string wrong_secret = token;
  wrong_secret.replace(wrong_secret.size() - 8, 8, "00000000");
  std::string wrong_cluster = token;
  wrong_cluster.replace(4, 8, "00000000");
  fails(p.Flags("a", "", ""), "has not joined a cluster yet");
  fails(p.Flags("a", "nonsense", ""), "join token");
  fails(p.Flags("a", wrong_secret, ""), "unknown, used up or expired");
  fails(p.Flags("a", wrong_cluster, ""), "its secret was not sent");
  fails(p.Flags("a", token, "/nowhere"), "--model /nowhere: there is no file or folder /nowhere");
  fails(p.Flags("a b", token, ""), "node name");
  fails({"--bootstrap", "nonsense"}, "HOST:PORT");
  fails({}, "--bootstrap HOST:PORT is missing");
  fails({"--no-such-flag", "7"}, "unknown flag --no-such-flag; see --help");
  fails({"--bootstrap", "127.0.0.1:1", "word"}, "unexpected argument \"word\"; see --help");
  auto port_taken = p.Flags("a", token, "");
  port_taken.insert(port_taken.end(), {"--port", absl::StrCat(p.cluster->port())});
  fails(port_taken, "is in use by another program: choose another port");

  SECTION("and a member of another cluster is told to join again") {
    ClusterFixture other;
    auto flags = p.Flags("a", "", "");  // enrolled by the start above
    flags[1] = absl::StrCat("127.0.0.1:", other.cluster->port());
    fails(flags, "is not the one this worker joined");
  }
}

TEST_CASE("a second coordinator on one state directory is refused", "[loss][C23]") {
  ClusterFixture fixture;
  Recorder recorder;
  const absl::Status status =
      Cluster::Start({.state_dir = fixture.state_dir(), .port = 0}, &recorder).status();
  CHECK(absl::StrContains(status.message(), "another coordinator"));
  TemporaryFolder folder;
  const absl::Status taken =
      Cluster::Start({.state_dir = folder.path() + "/s", .port = fixture.cluster->port()},
                     &recorder)
          .status();
  CHECK(absl::StrContains(taken.message(), "is in use by another program"));
}

}  // namespace
}  // namespace neurogrid
