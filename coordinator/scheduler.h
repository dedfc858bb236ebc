// Which sequence runs when: between the queue of requests and the steps of the pipeline. Holds all
// state of every request; stages hold only page bytes. One thread owns it.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "common/status.h"
#include "coordinator/generator.h"
#include "coordinator/plan_step.h"
#include "coordinator/pools.h"
#include "coordinator/prefix_match.h"
#include "coordinator/sequence.h"
#include "coordinator/speculation.h"
#include "coordinator/state_slots.h"
#include "coordinator/step_budget.h"
#include "coordinator/waiting_queue.h"
#include "engine/batch.h"

namespace neurogrid {

struct SchedulerOptions {
  BatchLimits limits;        // of the weakest stage; pages and slots are those of the whole chain
  int stages = 1;            // of the chain
  int steps_in_flight = 0;   // 0: as many as stages
  int decode_groups = 0;     // 0: as many as stages; decoding sequences run in so many equal groups
  int prefill_depth = 1;     // chunks of one prompt in flight at a time; needs a chain in order
  bool speculates = false;   // steps run guesses where that pays; needs a chain of equal bits
  int first_slow = 0;        // RowCosts, of the chain
  bool ahead = false;        // decoding goes on before its tokens are told; needs one stage
  std::string model_digest;  // keys the prefix cache, as tenant and salt do

  int running_max = 256;          // sequences that hold pages
  int queued_requests_max = 256;  // waiting for their first page
  int64_t queued_tokens_max = 0;  // prompt tokens of those; 0: 4 x the larger page pool
  int tenant_running_max = 32;    // of one tenant; tenant "" has no such limit
  int tenant_queued_max = 64;     // requests
  absl::Duration queue_wait_max = absl::Seconds(60);
  absl::Duration park_timeout = absl::Seconds(600);  // without a chain, of requests that began
  double itl_target_ms = 100;  // prefill joins decodes only as far as steps stay below
};

/// What happened to one choice, or to a whole request (`error`).
struct SchedulerEvent {
  RequestId request = 0;
  int choice = 0;                        // prompt * n + choice
  std::optional<GeneratedToken> token;   // appended to the choice
  std::vector<GeneratedToken> prompt;    // with echo_logprobs, once a choice: prompt tokens 1..
  std::optional<FinishReason> finish;    // nothing follows for this choice
  Json stop_reason;                      // stop id, "max_tokens", "context_length" or null
  absl::Status error;                    // not OK: the request ended, all choices; fit for clients
  std::optional<GenerationUsage> usage;  // final, with the event that ends the request
};

struct SchedulerStep {
  uint64_t id = 0;  // counts up from 1
  Batch batch;
};

/// Ids of one kind.
struct PoolStats {
  int total = 0;
  int free = 0;    // never used or forgotten
  int cached = 0;  // held by nobody, kept for reuse, given away on demand

  /// 0 to 1; 0 for a kind that the model does not need.
  double share_held() const {
    return total == 0 ? 0 : 1.0 - static_cast<double>(free + cached) / total;
  }
};

struct SchedulerStats {
  int running = 0;             // sequences that hold pages or are about to
  int waiting = 0;             // requests that never ran, and preempted sequences
  int64_t waiting_tokens = 0;  // prompt tokens of the former
  int steps_in_flight = 0;
  PoolStats pages;
  PoolStats window_pages;
  PoolStats slots;
  int tokens_budget = 0;       // rows that the next mixed step may have
  int64_t prefix_queries = 0;  // prompt tokens looked up
  int64_t prefix_hits = 0;     // of those, found
  int64_t prompt_tokens = 0;
  int64_t generated_tokens = 0;
  int64_t preemptions = 0;
  int parked = 0;               // sequences whose chain is gone and that do not run again yet
  int64_t replayed_tokens = 0;  // computed again after the loss of a chain
  int64_t drafted_tokens = 0;   // guessed and run
  int64_t accepted_tokens = 0;  // of those, drawn
};

/// Chains that broke under a sequence, without a token in between, before it runs apart from others
/// of its kind, and before its request ends.
inline constexpr int kLossesSuspect = 2;
inline constexpr int kLossesMax = 3;

class Scheduler {
 public:
  explicit Scheduler(SchedulerOptions options);
  ~Scheduler();

  /// Queues a request, or says why not in `refusal` and returns nothing (api.md 5): kTooLong,
  /// kQueueFull, kRateLimited. Its tokens must be below the vocabulary.
  std::optional<RequestId> Admit(GenerationRequest request, SteadyTime now, Refusal* refusal);

  /// The next step, with everything in it: to be sent down the chain at once. Nothing when enough
  /// steps are in flight or there is nothing to run. A sequence that decodes is in at most one
  /// step, or with `ahead` in one more: while everything that may run decodes and nobody else could
  /// start, the step behind the one in flight takes its tokens from what that one draws
  /// (Batch::tokens). What it computed for a choice that has ended meanwhile is dropped. More must
  /// have returned nothing since the last Commit.
  std::optional<SchedulerStep> NextStep(SteadyTime now);

  /// Takes a step's result, one token a sampled row in order. Events are in order of rows. Text is
  /// the caller's: on a stop string it calls Finish before the next More or NextStep; a stop string
  /// wins over a length on the same token. Steps may return in any order unless prefill_depth > 1.
  /// InvalidArgument, nothing changed, for a step that is not in flight, a wrong number of tokens
  /// or a token outside the vocabulary.
  absl::StatusOr<std::vector<SchedulerEvent>> Commit(uint64_t step,
                                                     absl::Span<const SampledToken> sampled,
                                                     SteadyTime now);

  /// Where guesses were right the step drew more than one token of a choice: Commit tells the
  /// first, each call of More the next one of every such choice, until there are no events. A
  /// Finish or a Force in between takes effect as if every token had had a step of its own.
  std::vector<SchedulerEvent> More(SteadyTime now);

  /// The step will never return (its stage said why): its requests end with `error`, others go on.
  /// InvalidArgument for a step that is not in flight.
  absl::StatusOr<std::vector<SchedulerEvent>> FailStep(uint64_t step, const absl::Status& error,
                                                       SteadyTime now);

  /// Ends one choice, as on a stop string. The usage when that ended the request. No effect on what
  /// has ended already.
  std::optional<GenerationUsage> Finish(RequestId request, int choice, SteadyTime now);

  /// The next tokens of a choice, in place of what would be drawn, with the model's own logprobs.
  /// Like Finish before the next More or NextStep. No effect on what has ended already. Only for
  /// choices without a token yet and for requests with a reasoning budget.
  void Force(RequestId request, int choice, absl::Span<const int32_t> ids);

  /// Ends a request in any phase, without events. Pages in flight come back with their step.
  void Cancel(RequestId request);

  /// A paused request (slow reader) is passed over and first to be preempted.
  void Pause(RequestId request, bool paused);

  /// Requests whose time is over end with DeadlineExceeded (their own timeout), ResourceExhausted
  /// (too long in the queue) or Unavailable (too long without a chain). Cheap when nothing is due.
  std::vector<SchedulerEvent> Expire(SteadyTime now);
  /// When Expire has work next.
  std::optional<SteadyTime> next_expiry() const;

  /// The chain is gone with all pages, and so are the steps in flight. What ran waits as if it had
  /// been preempted: after Reset its tokens are computed again and it goes on with the next one. A
  /// request that was under way, without a token in between, when three chains broke ends
  /// (Aborted): after the second loss it ran apart from others of its kind. No step until Reset.
  std::vector<SchedulerEvent> Park(SteadyTime now);

  /// A new epoch: other stages, other pages; parks first where that was not done. Requests that no
  /// longer fit end: queued ones with InvalidArgument, those that began with Unavailable.
  std::vector<SchedulerEvent> Reset(SchedulerOptions options, SteadyTime now);

  /// Nothing for a request that has ended.
  std::optional<Generation::Progress> progress(RequestId request) const;
  std::optional<GenerationUsage> usage(RequestId request, SteadyTime now) const;
  /// Seconds until a refused client may find room: 1..120, from the measured drain of the queue.
  double retry_after_s(SteadyTime now) const;
  /// Tokens that fit a prompt plus output.
  int64_t context_tokens_max() const;
  bool idle() const;  // nothing queued, running or in flight
  SchedulerStats stats() const;
  /// Requests that have not ended, oldest first.
  std::vector<RequestId> requests() const;

 private:
  /// What a step in flight does for one sequence.
  struct Part {
    Sequence* sequence = nullptr;
    int64_t first = 0;  // token
    int rows = 0;
    int samples = 0;  // scored rows, then the drawn one
    bool draws = false;
    int32_t slot_left = -1;            // that it reads and that the sequence has left
    std::vector<int32_t> drafts = {};  // the last rows: guesses, each of which draws too
  };
  struct Flight {
    SteadyTime sent;
    std::vector<Part> parts;
    int prefill_rows = 0;
    bool ahead = false;
    bool held = false;  // it would have been ahead, but for guesses
  };
  struct World;  // what PlanStep looks at, and whose sequences those are
  enum class Onward { kAhead, kLeftOut, kWaits };

  static SchedulerOptions Completed(SchedulerOptions options);

  // Admission (scheduler.cc).
  std::optional<Refusal> RefusalOf(const GenerationRequest& request, SteadyTime now) const;
  absl::Status CheckLength(const GenerationRequest& request) const;
  void AddChoices(Request& request);

  // Steps (scheduler_step.cc).
  World Look() const;
  RunningView ViewOf(Sequence& sequence, bool tight) const;
  WaitingView ViewOf(const Sequence& sequence, const PrefixMatch& match) const;
  int64_t KnownMax(const Sequence& sequence) const;
  bool CutsPrefill(const Sequence& sequence) const;
  PrefixMatch MatchOf(const Sequence& sequence) const;
  std::optional<SchedulerStep> StepAhead(SteadyTime now);
  Onward OnwardOf(const Part& part) const;
  bool OthersHaveATurn() const;
  SchedulerStep Issue(const StepPlan& plan, const World& world, SteadyTime now);
  void Start(Sequence& sequence, SteadyTime now);
  void Preempt(Sequence& sequence);
  absl::Status CheckResult(const Flight& flight, absl::Span<const SampledToken> sampled) const;
  void Land(const Part& part);
  void TakeResult(const Part& part, absl::Span<const SampledToken> sampled, SteadyTime now,
                  std::vector<SchedulerEvent>& events);
  static absl::Status NothingToDraw();
  void ShareOut(Sequence& leader);
  void EndPrefillOnly(Sequence& leader, SteadyTime now, std::vector<SchedulerEvent>& events);
  void Append(Sequence& sequence, const SampledToken& sampled, SteadyTime now,
              std::vector<SchedulerEvent>& events);
  void FinishWith(Sequence& sequence, SchedulerEvent& event, FinishReason reason, Json stop_reason,
                  SteadyTime now);

  // Guesses (scheduler_guess.cc).
  DraftOffer OfferOf(Sequence& sequence) const;
  double GuessWait(const Flight& flight, int rows, double ms) const;
  void KeepProven(const Part& part, absl::Span<const SampledToken> drawn);
  void Settle(Sequence& sequence);

  // A lost chain and the next one (scheduler_recovery.cc).
  void LosePages(Sequence& sequence);
  absl::Status CheckGoesOn(const Request& request) const;

  // Ends (scheduler.cc).
  Request* Find(RequestId request) const;
  void EnterRunning(Sequence& sequence);
  void LeaveRunning(Sequence& sequence);
  void EndSequence(Sequence& sequence);
  void Promote(Sequence& ended, Sequence::State was);
  void EndRequest(Request& request);
  void FailRequest(Request& request, int choice, absl::Status error, SteadyTime now,
                   std::vector<SchedulerEvent>& events);
  void EraseIfDone(RequestId request);
  absl::Status LatenessOf(const Request& request, SteadyTime now) const;
  GenerationUsage UsageOf(const Request& request, SteadyTime now) const;
  std::optional<SteadyTime> ExpiryOf(const Request& request) const;

  SchedulerOptions options_;
  Pools pools_;
  StepBudget budget_;
  RowCosts row_costs_;
  GuessAccount guess_account_;
  bool held_back_ = false;  // of the next step
  SteadyTime last_commit_;
  WaitingQueue queue_;
  std::map<RequestId, std::unique_ptr<Request>> requests_;  // ended ones until their steps are back
  std::vector<Sequence*> running_;    // by arrival; they hold pages and states
  std::vector<Sequence*> preempted_;  // by arrival
  std::map<uint64_t, Flight> flights_;
  double reserve_ = 0.5;  // r of StepView
  RequestId last_request_ = 0;
  uint64_t last_step_ = 0;
  uint64_t last_ready_ = 0;
  int queued_requests_ = 0;    // that never ran
  int64_t queued_tokens_ = 0;  // prompt tokens in the queue
  double start_interval_s_ =
      0;  // between requests that leave the queue, a running mean; 0: unknown
  std::optional<SteadyTime> last_start_;
  std::optional<SteadyTime> next_expiry_;
  std::optional<SteadyTime> parked_since_;  // while there is no chain
  int64_t prefix_queries_ = 0;
  int64_t prefix_hits_ = 0;
  int64_t prompt_tokens_ = 0;
  int64_t generated_tokens_ = 0;
  int64_t preemptions_ = 0;
  int64_t replayed_tokens_ = 0;
  int64_t drafted_tokens_ = 0;
  int64_t accepted_tokens_ = 0;
};

}  // namespace neurogrid
