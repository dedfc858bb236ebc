#include "tests/cluster/cluster_fixture.h"

#include <catch2/catch_test_macros.hpp>

#include "common/enroll.h"

namespace neurogrid {

bool Recorder::Wait(const std::function<bool()>& condition) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, std::chrono::seconds(60), condition);
}

RunningWorker::RunningWorker(Worker::Options options, const std::string& model_path)
    : device_(MakeDevice("cpu", 1).value()),
      source_(std::make_unique<LocalModel>(device_.get(), model_path)) {
  auto started = Worker::Start(std::move(options), source_.get());
  INFO(started.status().ToString());
  REQUIRE(started.ok());
  worker_ = *std::move(started);
  thread_ = std::thread([this] { ended_ = worker_->Run(); });
}

RunningWorker::~RunningWorker() {
  worker_->Stop();
  if (thread_.joinable()) thread_.join();
}

absl::Status RunningWorker::Join() {
  if (thread_.joinable()) thread_.join();
  return ended_;
}

ClusterFixture::ClusterFixture(std::optional<LocalDevice> local, ClusterTimes times,
                               std::string host)
    : local_(std::move(local)), times_(times), host_(std::move(host)) {
  StartCoordinator();
}

void ClusterFixture::StartCoordinator(int port) {
  auto started = Cluster::Start(
      {.state_dir = state_dir(), .host = host_, .port = port, .times = times_, .local = local_},
      &recorder);
  INFO(started.status().ToString());
  REQUIRE(started.ok());
  cluster = *std::move(started);
}

absl::StatusOr<Identity> ClusterFixture::EnrollAs(const std::string& name) {
  const Authority authority = OpenAuthority(state_dir()).value();
  const JoinTokens tokens(state_dir());
  const JoinToken token = tokens.Mint(authority.certificate, absl::Now()).value();
  return Enroll("127.0.0.1", cluster->port(), token, name);
}

Worker::Options ClusterFixture::OptionsFor(const Identity& identity) const {
  Worker::Options options;
  options.host = "127.0.0.1";
  options.port = cluster->port();
  options.identity = identity;
  options.device = {.kind = "cpu",
                    .name = "test device",
                    .instruction_set = "test",
                    .memory_total_bytes = 1 << 30,
                    .memory_free_bytes = 1 << 30,
                    .cores = 1,
                    .read_bandwidth = 1e10,
                    .matmul_rate = 1e11};
  options.host_id = "test";
  return options;
}

RunningWorker& ClusterFixture::AddWorker(const std::string& name, const std::string& model_path) {
  const absl::StatusOr<Identity> identity = EnrollAs(name);
  INFO(identity.status().ToString());
  REQUIRE(identity.ok());
  return workers.emplace_back(OptionsFor(*identity), model_path);
}

bool ClusterFixture::WaitForMembers(size_t count) {
  return recorder.Wait([&] { return cluster->Nodes().size() == count; });
}

BatchLimits TestLimits(const ModelConfig& config) {
  return {.rows_max = 32,
          .sequences_max = 4,
          .samples_max = 4,
          .pages = 32,
          .slots = 4,
          .positions_max = 128,
          .vocab_size = config.vocab_size};
}

ClusterPlan ClusterFixture::PlanOver(const std::vector<std::string>& nodes,
                                     const Checkpoint& checkpoint,
                                     const std::string& precision) const {
  const int layers = checkpoint.config().layers_count();
  const int stages = static_cast<int>(nodes.size());
  ClusterPlan plan;
  for (int s = 0; s < stages; ++s) {
    PlannedStage stage;
    stage.node = nodes[static_cast<size_t>(s)];
    stage.layers = {.first = s * layers / stages, .last = (s + 1) * layers / stages};
    stage.fixed_bytes = stage.page_bytes = stage.window_page_bytes = int64_t{1} << 40;
    plan.stages.push_back(stage);
  }
  plan.model_name = "tiny";
  plan.model_digest = checkpoint.digest();
  plan.model_path = checkpoint.path();
  plan.precision = precision;
  plan.limits = TestLimits(checkpoint.config());
  return plan;
}

uint64_t ClusterFixture::Activate(const std::vector<std::string>& nodes,
                                  const Checkpoint& checkpoint, const std::string& precision) {
  const uint64_t epoch = cluster->Assign(PlanOver(nodes, checkpoint, precision)).value();
  REQUIRE(recorder.Wait([&] {
    return recorder.active == epoch ||
           (!recorder.ended.empty() && recorder.ended.back().epoch == epoch);
  }));
  INFO((recorder.ended.empty() ? std::string() : recorder.ended.back().reason));
  REQUIRE(recorder.active == epoch);
  return epoch;
}

}  // namespace neurogrid
