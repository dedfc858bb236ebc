// The coordinator's end of the chain, without a network: whatever comes back wrong ends the epoch.
#include "coordinator/pipeline.h"

#include <atomic>
#include <catch2/catch_test_macros.hpp>

#include "absl/strings/match.h"
#include "tests/cluster/cluster_fixture.h"

namespace neurogrid {
namespace {

constexpr int kVocabulary = 50;

/// Keeps what was sent.
class SentSteps : public Peer {
 public:
  explicit SentSteps(std::vector<Step>* sent) : sent_(sent) {}
  void Send(Step step) override { sent_->push_back(std::move(step)); }

 private:
  std::vector<Step>* sent_;
};

struct Chain {
  explicit Chain(bool reachable = true)
      : pipeline(
            {.cluster_id = "cluster",
             .boot_id = 1,
             .identity = {},
             .open_peer = [this, reachable](PeerOptions) -> absl::StatusOr<std::unique_ptr<Peer>> {
               if (!reachable) return absl::UnavailableError("nobody there");
               return std::make_unique<SentSteps>(&sent);
             },
             .on_result = [this](StepResult result) { results.push_back(std::move(result)); },
             .on_open = [this](uint64_t epoch) { recorder.OnPlanActive(epoch, ""); },
             .on_broken =
                 [this](uint64_t epoch, const absl::Status& status) {
                   recorder.OnPlanEnded(epoch, "", std::string(status.message()), true);
                 }}) {
    Begin(5);
  }
  void Begin(uint64_t epoch) {
    pipeline.Begin({.epoch = epoch,
                    .first_node = "first",
                    .first_host = "127.0.0.1",
                    .first_port = 1,
                    .last_node = "last",
                    .last_boot_id = 9,
                    .stages = 2,
                    .vocab_size = kVocabulary});
    REQUIRE(recorder.Wait([&] { return recorder.active == epoch || !recorder.ended.empty(); }));
  }
  EdgeSender Last() const {
    return {.node_id = "last", .role = Role::kWorker, .epoch = 5, .boot_id = 9};
  }
  Step Result(uint64_t number, int32_t token = 3) const {
    Step step;
    step.epoch = 5;
    step.number = number;
    step.sampled.resize(1);
    step.sampled[0].token = token;
    step.times.resize(2);
    return step;
  }

  std::vector<Step> sent;
  std::vector<StepResult> results;
  Recorder recorder;
  Pipeline pipeline;
};

Batch OneSample() {
  Batch batch;
  batch.tokens = {1};
  batch.sampled_rows = {0};
  batch.sampling.resize(1);
  return batch;
}

TEST_CASE("steps go out numbered and come back under the caller's ids", "[pipeline][threads]") {
  Chain chain;
  REQUIRE(chain.pipeline.Submit(5, 41, OneSample()).ok());
  REQUIRE(chain.pipeline.Submit(5, 99, OneSample()).ok());
  REQUIRE(chain.sent.size() == 2);
  CHECK(chain.sent[0].number == 1);
  CHECK(chain.sent[1].number == 2);
  REQUIRE(chain.pipeline.TakeStep(chain.Last(), chain.Result(1)).ok());
  REQUIRE(chain.pipeline.TakeStep(chain.Last(), chain.Result(2)).ok());
  REQUIRE(chain.results.size() == 2);
  CHECK(chain.results[0].id == 41);
  CHECK(chain.results[1].id == 99);
  CHECK(chain.results[1].sampled[0].token == 3);
}

TEST_CASE("results are polled for while a chain asks for it", "[pipeline][threads]") {
  Chain chain;
  CHECK_FALSE(chain.pipeline.polls());
  Pipeline::Route route;
  route.epoch = 6;
  route.polls = true;
  chain.pipeline.Begin(route);
  CHECK(chain.pipeline.polls());
  chain.pipeline.End(6);
  CHECK_FALSE(chain.pipeline.polls());
}

TEST_CASE("a failed step is a result with its reason, and the epoch goes on",
          "[pipeline][threads]") {
  Chain chain;
  REQUIRE(chain.pipeline.Submit(5, 1, OneSample()).ok());
  REQUIRE(chain.pipeline.Submit(5, 2, OneSample()).ok());
  Step failed = chain.Result(1);
  failed.sampled.clear();
  failed.status = absl::InternalError("stage a [0,4): no memory");
  REQUIRE(chain.pipeline.TakeStep(chain.Last(), failed).ok());
  CHECK(chain.results[0].status.message() == "stage a [0,4): no memory");
  REQUIRE(chain.pipeline.TakeStep(chain.Last(), chain.Result(2)).ok());
  CHECK(chain.results[1].status.ok());
}

TEST_CASE("what a stage that broke says is no result, and nothing follows it",
          "[pipeline][threads]") {
  Chain chain;
  const ClusterTime now = std::chrono::steady_clock::now();
  REQUIRE(chain.pipeline.Submit(5, 1, OneSample()).ok());
  REQUIRE(chain.pipeline.Submit(5, 2, OneSample()).ok());
  Step broken = chain.Result(1);
  broken.sampled.clear();
  broken.status = absl::UnavailableError("worker_lost: a worker's device broke");
  REQUIRE(chain.pipeline.TakeStep(chain.Last(), broken).ok());
  CHECK_FALSE(chain.pipeline.TakeStep(chain.Last(), chain.Result(2)).ok());
  Step behind = broken;
  behind.number = 2;
  CHECK(chain.pipeline.TakeStep(chain.Last(), behind).ok());
  CHECK(chain.results.empty());
  chain.pipeline.CheckDeadline(now + std::chrono::hours(1));  // where it does not leave
  CHECK(chain.recorder.ended.size() == 1);
}

TEST_CASE("results that nobody waits for are refused by name", "[pipeline][threads]") {
  Chain chain;
  REQUIRE(chain.pipeline.Submit(5, 1, OneSample()).ok());
  const auto refuses = [&](const EdgeSender& sender, const Step& step, absl::string_view words) {
    const absl::Status status = chain.pipeline.TakeStep(sender, step);
    INFO(status.ToString());
    CHECK_FALSE(status.ok());
    CHECK(absl::StrContains(status.message(), words));
    CHECK(chain.results.empty());
  };
  refuses(chain.Last(), chain.Result(2), "1 is wanted");
  refuses(chain.Last(), chain.Result(1, kVocabulary), "holds token 50, expected one below 50");
  refuses(chain.Last(), chain.Result(1, -1), "holds token -1");
  Step many = chain.Result(1);
  many.sampled.resize(2);
  refuses(chain.Last(), many, "holds 2 tokens of 2 stages, expected 1 of 2");
  Step short_way = chain.Result(1);
  short_way.times.resize(1);
  refuses(chain.Last(), short_way, "1 tokens of 1 stages");
  EdgeSender other = chain.Last();
  other.node_id = "first";
  refuses(other, chain.Result(1), "first is not the last stage");
  other = chain.Last();
  other.boot_id = 10;
  refuses(other, chain.Result(1), "is not the last stage");
  other = chain.Last();
  other.role = Role::kCoordinator;
  refuses(other, chain.Result(1), "is not the last stage");
  other = chain.Last();
  other.epoch = 6;
  refuses(other, chain.Result(1), "epoch 6 is not in force");
}

TEST_CASE("late results of an epoch that is over are dropped and counted", "[pipeline][threads]") {
  Chain chain;
  REQUIRE(chain.pipeline.Submit(5, 1, OneSample()).ok());
  chain.pipeline.End(5);
  CHECK(chain.pipeline.TakeStep(chain.Last(), chain.Result(1)).ok());
  CHECK(chain.results.empty());
  CHECK(chain.pipeline.stale() == 1);
  CHECK(absl::IsFailedPrecondition(chain.pipeline.Submit(5, 2, OneSample())));
  chain.Begin(6);
  REQUIRE(chain.pipeline.Submit(6, 3, OneSample()).ok());
  CHECK(chain.sent.back().number == 1);
  CHECK(chain.pipeline.TakeStep(chain.Last(), chain.Result(1)).ok());
  CHECK(chain.results.empty());
}

TEST_CASE("steps under way are bounded", "[pipeline][threads]") {
  Chain chain;
  for (uint64_t i = 0; i < kStepsQueuedMax; ++i) {
    REQUIRE(chain.pipeline.Submit(5, i, OneSample()).ok());
  }
  CHECK(absl::IsResourceExhausted(chain.pipeline.Submit(5, 1000, OneSample())));
}

TEST_CASE("a lost edge and an unreachable stage are events", "[pipeline][threads][R9]") {
  Chain chain;
  chain.pipeline.OnEdgeEnd(chain.Last(), absl::OkStatus());
  REQUIRE(chain.recorder.ended.size() == 1);
  CHECK(absl::StrContains(chain.recorder.ended[0].reason, "last"));
  Chain unreachable(/*reachable=*/false);
  REQUIRE(unreachable.recorder.ended.size() == 1);
  CHECK(unreachable.recorder.ended[0].reason == "nobody there");
  CHECK(absl::IsFailedPrecondition(unreachable.pipeline.Submit(5, 1, OneSample())));
}

TEST_CASE("a step that never comes back ends its epoch", "[pipeline][threads][R47]") {
  Chain chain;
  const ClusterTime now = std::chrono::steady_clock::now();
  chain.pipeline.CheckDeadline(now + std::chrono::hours(1));
  CHECK(chain.recorder.ended.empty());
  REQUIRE(chain.pipeline.Submit(5, 1, OneSample()).ok());
  chain.pipeline.CheckDeadline(now + std::chrono::seconds(30));
  CHECK(chain.recorder.ended.empty());
  chain.pipeline.CheckDeadline(now + std::chrono::hours(1));
  REQUIRE(chain.recorder.ended.size() == 1);
  CHECK(absl::StrContains(chain.recorder.ended[0].reason, "did not come back"));
}

}  // namespace
}  // namespace neurogrid
