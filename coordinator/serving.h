// The coordinator's heart: one thread that owns every request, feeds the chain and hands out text.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "common/polling.h"
#include "coordinator/answer_reader.h"
#include "coordinator/generator.h"
#include "coordinator/scheduler.h"

namespace neurogrid {

/// The way into the active chain. Results come back through Serving::StepDone.
class Chain {
 public:
  virtual ~Chain() = default;
  /// Sends a step on its way; never waits for it. Called by the serving thread alone.
  virtual void Submit(uint64_t step, Batch batch) = 0;
};

/// What the serving thread tells whoever keeps counts; called on that thread.
class ServingObserver {
 public:
  virtual ~ServingObserver() = default;
  virtual void RequestEnded(const GenerationUsage& usage, absl::string_view reason,
                            double seconds) = 0;
  virtual void FirstToken(double seconds) = 0;
  virtual void NextToken(double seconds) = 0;
  virtual void Counts(const SchedulerStats& stats) = 0;
  /// Tokens pass through a chain again, so long after the one before it was lost.
  virtual void Recovered(double seconds) = 0;
};

struct ServingOptions {
  std::string fingerprint_seed;  // weights digest, precision: what decides the bits, beside devices
  SchedulerOptions scheduler;    // queue and fairness limits; the chain adds pages and stages
  bool polls = false;            // cores are free to wait for a chain of GPUs on, see Polling
};

class Serving final : public Generator {
 public:
  Serving(const Tokenizer& tokenizer, ServingOptions options, ServingObserver* observer);
  ~Serving() override;

  /// Ends every request with an error and the thread; what is asked later is refused. Nothing is
  /// sent into a chain after the return.
  void Stop();

  // Called from any thread; each takes effect on the serving thread, in order.

  /// A new chain serves from now on; it is let go at the next ChainUp or ChainDown.
  /// Results come back under `tag`; those of another chain are dropped.
  void ChainUp(uint64_t tag, std::shared_ptr<Chain> chain, SchedulerOptions shape,
               std::string determinism_class);
  /// The chain is lost: what was asked waits for the next one and goes on there
  /// (Scheduler::Park).
  void ChainDown(ServingState state, std::vector<std::string> missing);
  /// Takes the chain down for a better plan, but only when no request has begun: answers whether it
  /// did. Requests that come meanwhile wait in the queue.
  bool Vacate();
  void StepDone(uint64_t tag, uint64_t step, absl::StatusOr<std::vector<SampledToken>> sampled);
  /// No new requests; those that run go on.
  void Drain();
  /// Ends everything that still runs with `error`.
  void AbortAll(const absl::Status& error);

  /// True when nothing is queued, running or in flight, the canary aside.
  bool idle() const { return idle_.load(); }
  void set_describe_cluster(std::function<Json()> describe) {
    describe_cluster_ = std::move(describe);
  }
  SchedulerStats stats() const;

  std::unique_ptr<Generation> Start(GenerationRequest request, Refusal* refusal) override;
  ServingState state() const override { return state_.load(); }
  std::vector<std::string> missing() const override;
  bool alive() const override;
  double canary_age_ms() const override;
  int64_t context_tokens_max() const override { return context_tokens_max_.load(); }
  Json DescribeCluster() const override;
  Json DescribeRequests() const override;
  std::string fingerprint() const override;

 private:
  class Handle;
  struct Shared;
  struct Active;

  void Loop();
  void DropChain(ServingState state, std::vector<std::string> missing);
  void TokenPassed(SteadyTime now);
  void CloseMail();
  /// False, and nothing done, after Stop.
  bool Post(std::function<void()> action);
  void Turn(SteadyTime now);
  void SubmitSteps(SteadyTime now);
  void WakeReaders();
  void Deliver(std::vector<SchedulerEvent> events, SteadyTime now);
  void DeliverMore(SteadyTime now);
  void DeliverOne(SchedulerEvent event, SteadyTime now);
  GenerationEvent ToText(Active& active, SchedulerEvent& event, SteadyTime now);
  void CountToken(Active& active, SteadyTime now);
  void End(RequestId id, Active& active, const absl::Status& error, absl::string_view reason,
           SteadyTime now);
  void AdmitCall(GenerationRequest& request, std::shared_ptr<Shared>& shared, Refusal& refusal);
  bool RefuseNow(Refusal& refusal) const;
  void KeepCanaryFresh(SteadyTime now);
  void PublishCounts(SteadyTime now);

  const Tokenizer& tokenizer_;
  const ServingOptions options_;
  ServingObserver* const observer_;

  // Owned by the serving thread.
  std::unique_ptr<Scheduler> scheduler_;
  std::shared_ptr<Chain> chain_;
  uint64_t chain_tag_ = 0;
  absl::flat_hash_map<RequestId, std::unique_ptr<Active>> active_;
  std::vector<std::shared_ptr<Shared>> to_wake_;  // readers of the events of this turn
  RequestId canary_ = 0;                          // 0: none on its way; ids count from 1
  SteadyTime canary_begun_ = {};
  SteadyTime last_counts_ = {};
  std::optional<SteadyTime> lost_at_;  // when the chain was lost; until a token passes the next one

  // Read by other threads.
  std::atomic<ServingState> state_ = ServingState::kLoading;
  std::atomic<bool> draining_ = false;
  std::atomic<bool> idle_ = true;
  std::atomic<int64_t> last_turn_ns_ = 0;
  std::atomic<int64_t> last_token_ns_ = 0;  // 0: none since the chain came up
  std::atomic<int64_t> context_tokens_max_ = 0;
  mutable std::mutex published_mutex_;
  SchedulerStats stats_;
  int64_t takeovers_ = 0;  // losses after which tokens passed again, the canary's too
  double heal_s_ = 0;      // of the last one, from the loss to a token
  Json requests_ = Json(Json::Array());
  std::vector<std::string> missing_;
  std::string fingerprint_;
  std::function<Json()> describe_cluster_;

  std::mutex mail_mutex_;
  std::condition_variable mail_arrived_;
  std::deque<std::function<void()>> mail_;
  std::atomic<bool> mailed_ = false;  // mail_ is not empty
  Polling polling_{false};            // of the serving thread
  bool mail_closed_ = false;
  bool stop_ = false;   // of the serving thread
  std::thread thread_;  // Last: it uses everything above.
};

}  // namespace neurogrid
